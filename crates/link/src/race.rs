//! Dials that run beside each other, of which one tells the edge who it is.
//!
//! A secret may be good for one link only, and a PIN is asked of a person: so
//! each dial goes as far as the edge's proof, and the first one there alone
//! goes on.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const NOBODY: usize = usize::MAX;

/// How the dials of one round stand.
#[derive(Debug)]
pub struct Race {
    first: AtomicUsize,
    /// A bit for each dial that has a connection.
    connected: AtomicU64,
}

impl Race {
    /// Nobody has begun.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            first: AtomicUsize::new(NOBODY),
            connected: AtomicU64::new(0),
        })
    }

    /// What tells the dial `number` whether it may go on; below 64.
    #[must_use]
    pub fn turn(self: &Arc<Self>, number: usize) -> Turn {
        Turn {
            race: Arc::clone(self),
            number,
        }
    }

    /// To which dial the edge has proved itself first.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        let first = self.first.load(Ordering::Relaxed);
        (first != NOBODY).then_some(first)
    }

    /// That one came to nothing: another may go on.
    pub fn again(&self) {
        self.first.store(NOBODY, Ordering::Relaxed);
    }

    /// Whether a dial has a connection and waits for the edge.
    #[must_use]
    pub fn is_connected(&self, number: usize) -> bool {
        self.connected.load(Ordering::Relaxed) & bit(number) != 0
    }
}

fn bit(number: usize) -> u64 {
    u32::try_from(number)
        .ok()
        .and_then(|number| 1u64.checked_shl(number))
        .unwrap_or(0)
}

/// One dial's place in its round.
#[derive(Clone, Debug)]
pub struct Turn {
    race: Arc<Race>,
    number: usize,
}

impl Turn {
    /// Of a dial that runs alone.
    #[must_use]
    pub fn alone() -> Self {
        Race::new().turn(0)
    }

    /// This dial begins anew.
    pub fn begins(&self) {
        let others = !bit(self.number);
        self.race.connected.fetch_and(others, Ordering::Relaxed);
    }

    /// This dial has a connection.
    pub fn has_connected(&self) {
        let own = bit(self.number);
        self.race.connected.fetch_or(own, Ordering::Relaxed);
    }

    /// Ready when this dial is the one that goes on, else never.
    pub async fn take(&self) {
        let (own, order) = (self.number, Ordering::Relaxed);
        let taken = self.race.first.compare_exchange(NOBODY, own, order, order);
        if taken.is_err_and(|first| first != own) {
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn one_goes_on_until_it_came_to_nothing() {
        let race = Race::new();
        let (one, other) = (race.turn(0), race.turn(1));
        one.has_connected();
        other.has_connected();
        assert!(race.is_connected(0) && race.is_connected(1) && !race.is_connected(2));
        assert_eq!(race.first(), None);
        assert!(other.take().now_or_never().is_some());
        assert!(other.take().now_or_never().is_some());
        assert!(one.take().now_or_never().is_none());
        assert_eq!(race.first(), Some(1));
        race.again();
        other.begins();
        assert!(race.is_connected(0) && !race.is_connected(1));
        assert!(one.take().now_or_never().is_some());
    }
}
