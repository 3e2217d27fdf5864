//! The cap on link sockets that have not proved a secret yet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::metrics::Metrics;

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    sockets: BTreeMap<u64, CancellationToken>,
}

/// All link sockets of strangers, oldest first. When one more than the cap
/// arrives, the oldest is told to go: an honest agent proves itself within a
/// round trip, so under a flood it is the silent who are pushed out.
#[derive(Debug)]
pub struct UnprovedSockets {
    cap: usize,
    metrics: Arc<Metrics>,
    waiting: Mutex<Waiting>,
}

impl UnprovedSockets {
    /// At most `cap` sockets at a time (at least one).
    #[must_use]
    pub fn new(cap: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            cap: cap.max(1),
            metrics,
            waiting: Mutex::default(),
        })
    }

    /// Counts a socket in; above the cap the oldest one is pushed out.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> UnprovedPermit {
        let token = CancellationToken::new();
        let (number, oldest) = {
            let mut waiting = self.lock();
            let number = waiting.next;
            waiting.next += 1;
            waiting.sockets.insert(number, token.clone());
            let full = waiting.sockets.len() > self.cap;
            let oldest = full.then(|| waiting.sockets.pop_first()).flatten();
            self.metrics.link.unproved.set(waiting.sockets.len());
            (number, oldest)
        };
        if let Some((_, oldest)) = oldest {
            self.metrics.link.unproved_dropped.add(1);
            oldest.cancel();
        }
        UnprovedPermit {
            sockets: Arc::clone(self),
            number,
            token,
        }
    }

    /// Sockets counted now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().sockets.len()
    }

    /// No socket is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one socket as unproved until it is dropped: when the peer has proved
/// a secret, or when the socket is closed.
#[derive(Debug)]
pub struct UnprovedPermit {
    sockets: Arc<UnprovedSockets>,
    number: u64,
    token: CancellationToken,
}

impl UnprovedPermit {
    /// Completes when newer sockets need the place: close this one at once.
    pub fn pushed_out(&self) -> WaitForCancellationFuture<'_> {
        self.token.cancelled()
    }

    /// Whether the place is already taken away.
    #[must_use]
    pub fn is_pushed_out(&self) -> bool {
        self.token.is_cancelled()
    }
}

impl Drop for UnprovedPermit {
    fn drop(&mut self) {
        let mut waiting = self.sockets.lock();
        waiting.sockets.remove(&self.number);
        let left = waiting.sockets.len();
        self.sockets.metrics.link.unproved.set(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_a_dropped_one_frees_its_place() {
        let metrics = Arc::new(Metrics::new());
        let sockets = UnprovedSockets::new(2, Arc::clone(&metrics));
        let (a, b) = (sockets.enter(), sockets.enter());
        let c = sockets.enter();
        assert!(a.is_pushed_out() && !b.is_pushed_out() && !c.is_pushed_out());
        assert_eq!(sockets.len(), 2);
        drop(b);
        let d = sockets.enter();
        assert!(!c.is_pushed_out() && !d.is_pushed_out());
        drop((a, c, d));
        assert!(sockets.is_empty());
        assert_eq!(metrics.link.unproved_dropped.get(), 1);
        assert_eq!(metrics.link.unproved.get(), 0);
    }

    #[tokio::test]
    async fn a_socket_learns_that_it_is_pushed_out() {
        let sockets = UnprovedSockets::new(1, Arc::new(Metrics::new()));
        let a = sockets.enter();
        let _b = sockets.enter();
        a.pushed_out().await;
    }
}
