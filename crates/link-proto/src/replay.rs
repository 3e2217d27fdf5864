//! Seen first messages: each works once, within ±35 s.
//!
//! Entries leave only after they are too old to matter; until then a full
//! cache makes new strangers wait. A quota for each secret id keeps the holder
//! of one secret (or of one leaked token) from filling it for all.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::first::SecretId;

/// Seconds by which a stamp may differ from the edge's clock.
pub const REPLAY_WINDOW: u64 = 35;

/// Why a proved first message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Its stamp is outside the window.
    #[error("stamp differs by {0} s from this clock")]
    Skewed(u64),
    /// It came before.
    #[error("first message was seen before")]
    Replayed,
    /// It is stamped before this clock can vouch for what was seen.
    #[error("stamp is from before this clock began")]
    TooEarly,
    /// The cache, or this secret's share of it, is full for now.
    #[error("too many first messages at once")]
    TryLater,
}

/// One seen first message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The secret that it named.
    pub id: SecretId,
    /// Its nonce.
    pub nonce: [u8; 16],
    /// Its stamp, unix seconds.
    pub stamp: u64,
}

/// The edge's memory of first messages.
#[derive(Debug)]
pub struct ReplayCache {
    seen: HashSet<(SecretId, [u8; 16])>,
    by_stamp: BTreeMap<u64, Vec<(SecretId, [u8; 16])>>,
    per_id: HashMap<SecretId, usize>,
    capacity: usize,
    quota: usize,
    not_before: u64,
}

impl ReplayCache {
    /// Room for `capacity` messages, `quota` of them for one secret id.
    #[must_use]
    pub fn new(capacity: usize, quota: usize) -> Self {
        Self {
            seen: HashSet::new(),
            by_stamp: BTreeMap::new(),
            per_id: HashMap::new(),
            capacity,
            quota,
            not_before: 0,
        }
    }

    /// Takes back what was written before a restart. Entries beyond the
    /// capacity are kept out by refusing every stamp up to theirs.
    pub fn restore(&mut self, entries: impl IntoIterator<Item = Seen>) {
        for seen in entries {
            if self.seen.len() >= self.capacity {
                self.not_before(seen.stamp);
            } else if !self.seen.contains(&(seen.id, seen.nonce)) {
                self.insert(seen);
            }
        }
    }

    /// Refuses stamps at or below `unix` from now on; never set back.
    pub fn not_before(&mut self, unix: u64) {
        self.not_before = self.not_before.max(unix);
    }

    /// Begins anew after the clock was anchored anew: only stamps above
    /// `not_before` count, whatever direction the clock went.
    pub fn reanchor(&mut self, not_before: u64) {
        self.not_before = not_before;
    }

    /// Uses a message up. To be called after its MAC was checked.
    ///
    /// # Errors
    /// See [`ReplayError`].
    pub fn check(
        &mut self,
        id: SecretId,
        nonce: [u8; 16],
        stamp: u64,
        now: u64,
    ) -> Result<(), ReplayError> {
        self.forget(now);
        let apart = stamp.abs_diff(now);
        if apart > REPLAY_WINDOW {
            return Err(ReplayError::Skewed(apart));
        }
        if stamp <= self.not_before && self.not_before != 0 {
            return Err(ReplayError::TooEarly);
        }
        if self.seen.contains(&(id, nonce)) {
            return Err(ReplayError::Replayed);
        }
        let used = self.per_id.get(&id).copied().unwrap_or(0);
        if used >= self.quota || self.seen.len() >= self.capacity {
            return Err(ReplayError::TryLater);
        }
        self.insert(Seen { id, nonce, stamp });
        Ok(())
    }

    fn insert(&mut self, seen: Seen) {
        let key = (seen.id, seen.nonce);
        self.seen.insert(key);
        self.by_stamp.entry(seen.stamp).or_default().push(key);
        *self.per_id.entry(seen.id).or_default() += 1;
    }

    /// Drops what is outside the window at `now`.
    fn forget(&mut self, now: u64) {
        while let Some(oldest) = self.by_stamp.first_entry() {
            if oldest.key().saturating_add(REPLAY_WINDOW) >= now {
                break;
            }
            for key in oldest.remove() {
                self.seen.remove(&key);
                if let Some(used) = self.per_id.get_mut(&key.0) {
                    *used -= 1;
                    if *used == 0 {
                        self.per_id.remove(&key.0);
                    }
                }
            }
        }
    }

    /// Messages remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn nonce(n: u64) -> [u8; 16] {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&n.to_be_bytes());
        nonce
    }

    #[test]
    fn each_message_works_once_inside_the_window() {
        let (mut cache, id) = (ReplayCache::new(100, 100), SecretId([1; 8]));
        assert_eq!(cache.check(id, nonce(1), NOW, NOW), Ok(()));
        for now in [NOW, NOW + 35] {
            let again = cache.check(id, nonce(1), NOW, now);
            assert_eq!(again, Err(ReplayError::Replayed));
        }
        let late = cache.check(id, nonce(1), NOW, NOW + 36);
        assert_eq!(late, Err(ReplayError::Skewed(36)));
        assert!(cache.is_empty());
        let early = cache.check(id, nonce(2), NOW + 136, NOW + 100);
        assert_eq!(early, Err(ReplayError::Skewed(36)));
        assert_eq!(cache.check(id, nonce(2), NOW + 135, NOW + 100), Ok(()));
        assert_eq!(
            cache.check(SecretId([2; 8]), nonce(2), NOW + 100, NOW + 100),
            Ok(())
        );
    }

    #[test]
    fn a_full_cache_forgets_nothing_that_matters() {
        let mut cache = ReplayCache::new(10, 6);
        let (greedy, other) = (SecretId([1; 8]), SecretId([2; 8]));
        for n in 0..6 {
            assert_eq!(cache.check(greedy, nonce(n), NOW, NOW), Ok(()));
        }
        let over = cache.check(greedy, nonce(6), NOW, NOW);
        assert_eq!(over, Err(ReplayError::TryLater));
        for n in 0..4 {
            assert_eq!(cache.check(other, nonce(n), NOW + 10, NOW), Ok(()));
        }
        let full = cache.check(other, nonce(4), NOW, NOW);
        assert_eq!(full, Err(ReplayError::TryLater));
        for n in 0..6 {
            let again = cache.check(greedy, nonce(n), NOW, NOW + 35);
            assert_eq!(again, Err(ReplayError::Replayed));
        }
        // The first six are too old to matter now; the others are not.
        assert_eq!(cache.check(greedy, nonce(9), NOW + 36, NOW + 36), Ok(()));
        assert_eq!(cache.len(), 5);
        let again = cache.check(other, nonce(0), NOW + 10, NOW + 36);
        assert_eq!(again, Err(ReplayError::Replayed));
    }

    #[test]
    fn a_restart_and_a_reboot_open_no_gap() {
        let id = SecretId([1; 8]);
        let seen = |n| Seen {
            id,
            nonce: nonce(n),
            stamp: NOW + n,
        };
        let mut cache = ReplayCache::new(2, 2);
        cache.restore([seen(1), seen(1), seen(2), seen(3)]);
        for n in 1..=3 {
            assert!(cache.check(id, nonce(n), NOW + n, NOW).is_err(), "{n}");
        }
        let mut cache = ReplayCache::new(10, 10);
        cache.not_before(NOW + 35);
        let old = cache.check(id, nonce(1), NOW + 35, NOW + 20);
        assert_eq!(old, Err(ReplayError::TooEarly));
        assert_eq!(cache.check(id, nonce(1), NOW + 36, NOW + 20), Ok(()));
        cache.not_before(NOW);
        let old = cache.check(id, nonce(2), NOW + 30, NOW + 20);
        assert_eq!(old, Err(ReplayError::TooEarly));
    }
}
