//! Who is live: one seat a link, counted by identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_model::PublicKey;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

#[derive(Debug, Default)]
struct Sitting {
    links: usize,
    revoked: CancellationToken,
}

#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<HashMap<PublicKey, Sitting>>);

impl Seats {
    /// Runs `judge` with the number of other identities that are live and of
    /// links that this one has, and gives a seat when it agrees; nobody else
    /// is seated meanwhile.
    pub(super) fn take<R, E>(
        self: &Arc<Self>,
        identity: PublicKey,
        judge: impl FnOnce(usize, usize) -> Result<R, E>,
    ) -> Result<(R, Seat), E> {
        let mut seats = self.lock();
        let own = seats.get(&identity).map(|sitting| sitting.links);
        let others = seats.len() - usize::from(own.is_some());
        let judged = judge(others, own.unwrap_or(0))?;
        let sitting = seats.entry(identity).or_default();
        sitting.links += 1;
        let seat = Seat {
            seats: Arc::clone(self),
            identity,
            revoked: sitting.revoked.clone(),
        };
        Ok((judged, seat))
    }

    /// Tells all links of an identity that they are over. One that joins
    /// afterwards has a seat of its own.
    pub(super) fn revoke(&self, identity: &PublicKey) -> usize {
        let sitting = self.lock().remove(identity);
        sitting.map_or(0, |sitting| {
            sitting.revoked.cancel();
            sitting.links
        })
    }

    /// Live links of an identity.
    pub(super) fn links_of(&self, identity: &PublicKey) -> usize {
        self.lock().get(identity).map_or(0, |s| s.links)
    }

    /// Identities with a live link.
    pub(super) fn identities(&self) -> Vec<PublicKey> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicKey, Sitting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One link's place among the live agents; to be kept as long as the link.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    identity: PublicKey,
    revoked: CancellationToken,
}

impl Seat {
    /// Completes when the agent is revoked: the link and all its streams are
    /// to end at once.
    pub fn revoked(&self) -> WaitForCancellationFuture<'_> {
        self.revoked.cancelled()
    }

    /// The same as a token, to be watched from elsewhere.
    #[must_use]
    pub fn revocation(&self) -> &CancellationToken {
        &self.revoked
    }

    /// Whether it is revoked already.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked.is_cancelled()
    }

    /// Whose seat it is.
    #[must_use]
    pub fn identity(&self) -> &PublicKey {
        &self.identity
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // A revoked identity's count is gone; the one there is another's.
        if self.revoked.is_cancelled() {
            return;
        }
        let mut seats = self.seats.lock();
        if let Some(sitting) = seats.get_mut(&self.identity) {
            sitting.links = sitting.links.saturating_sub(1);
            if sitting.links == 0 {
                seats.remove(&self.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    fn sit(seats: &Arc<Seats>, n: u8) -> (usize, Seat) {
        seats.take(key(n), |others, _| Ok::<_, ()>(others)).unwrap()
    }

    #[test]
    fn links_of_one_identity_count_once() {
        let seats = Arc::new(Seats::default());
        let (others, first) = sit(&seats, 1);
        assert_eq!(others, 0);
        let (others, second) = sit(&seats, 1);
        assert_eq!(others, 0);
        let (others, _third) = sit(&seats, 2);
        assert_eq!(others, 1);
        assert_eq!(seats.links_of(&key(1)), 2);
        drop(first);
        assert_eq!(seats.identities().len(), 2);
        drop(second);
        assert_eq!(seats.identities(), [key(2)]);
        let refused = seats.take(key(3), |others, _| Err::<(), _>(others));
        assert_eq!((refused.unwrap_err(), seats.links_of(&key(3))), (1, 0));
    }

    #[test]
    fn a_revoked_seat_leaves_the_newcomers_alone() {
        let seats = Arc::new(Seats::default());
        let (_, old) = sit(&seats, 1);
        assert_eq!(seats.revoke(&key(1)), 1);
        assert!(old.is_revoked());
        let (_, new) = sit(&seats, 1);
        assert!(!new.is_revoked());
        drop(old);
        assert_eq!(seats.links_of(&key(1)), 1);
    }
}
