//! Which pre-shared secret a changing id names.
//!
//! Each secret is found by its ids of the epochs before, at and after now; a
//! stranger costs one look-up. Only references stand here: a secret's keys are
//! derived when its id was named, so that an enrolled agent that sleeps costs
//! a few hundred bytes.
//!
//! Invariant: after [`SecretMap::begin_refresh`] and as many
//! [`SecretMap::refresh`] steps as it asks for, exactly the three epochs around
//! now are in the map.

use std::collections::HashMap;

use adit_link_proto::{ID_EPOCH, PskKeys, SecretId};
use adit_model::Psk;

use super::policy::Way;

#[derive(Debug, Default)]
pub(super) struct SecretMap {
    by_id: HashMap<SecretId, Way>,
    ids: HashMap<Way, [SecretId; 3]>,
    /// The middle one of the three.
    epoch: u64,
}

impl SecretMap {
    pub(super) fn new(unix: u64) -> Self {
        Self {
            epoch: unix / ID_EPOCH,
            ..Self::default()
        }
    }

    pub(super) fn find(&self, id: SecretId) -> Option<Way> {
        self.by_id.get(&id).copied()
    }

    /// Adds a secret or replaces the one of this way.
    pub(super) fn insert(&mut self, way: Way, psk: &Psk) {
        self.remove(way);
        let ids = PskKeys::new(psk).ids_around(self.epoch.saturating_mul(ID_EPOCH));
        for id in ids {
            self.by_id.insert(id, way);
        }
        self.ids.insert(way, ids);
    }

    pub(super) fn remove(&mut self, way: Way) {
        for id in self.ids.remove(&way).into_iter().flatten() {
            if self.by_id.get(&id) == Some(&way) {
                self.by_id.remove(&id);
            }
        }
    }

    /// Moves to the epoch of `unix`; the ways that need new ids, none when the
    /// epoch has not changed.
    pub(super) fn begin_refresh(&mut self, unix: u64) -> Vec<Way> {
        let epoch = unix / ID_EPOCH;
        if epoch == self.epoch {
            return Vec::new();
        }
        self.epoch = epoch;
        self.ids.keys().copied().collect()
    }

    /// Gives a way its new ids, unless it is gone meanwhile.
    pub(super) fn refresh(&mut self, way: Way, psk: &Psk) {
        if self.ids.contains_key(&way) {
            self.insert(way, psk);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::TokenId;

    const NOW: u64 = 1_800_000_000;

    fn psk(n: u8) -> Psk {
        Psk::from_random([n; 32])
    }

    fn token(n: u8) -> Way {
        Way::Token(TokenId([n; 4]))
    }

    #[test]
    fn a_secret_is_found_around_now_and_nowhere_else() {
        let mut map = SecretMap::new(NOW);
        map.insert(token(1), &psk(1));
        map.insert(token(2), &psk(2));
        let keys = PskKeys::new(&psk(1));
        for unix in [NOW - 600, NOW, NOW + 600] {
            assert_eq!(map.find(keys.id_at(unix)), Some(token(1)));
        }
        for unix in [NOW - 1200, NOW + 1200] {
            assert_eq!(map.find(keys.id_at(unix)), None);
        }
        map.remove(token(1));
        assert_eq!(map.find(keys.id_at(NOW)), None);
        let keys = PskKeys::new(&psk(2));
        assert_eq!(map.find(keys.id_at(NOW)), Some(token(2)));
        assert_eq!(map.len(), 3);
    }

    #[test]
    fn a_new_epoch_drops_the_oldest_ids() {
        let mut map = SecretMap::new(NOW);
        map.insert(token(1), &psk(1));
        assert!(map.begin_refresh(NOW + 1).is_empty());
        let keys = PskKeys::new(&psk(1));
        for step in 1..5 {
            let now = NOW + 600 * step;
            // Before its turn comes it is found all the same.
            assert_eq!(map.begin_refresh(now), [token(1)]);
            assert_eq!(map.find(keys.id_at(now)), Some(token(1)));
            map.refresh(token(1), &psk(1));
            assert_eq!(map.find(keys.id_at(now + 600)), Some(token(1)));
            assert_eq!(map.find(keys.id_at(now - 1200)), None);
            assert_eq!(map.len(), 3);
        }
        map.remove(token(1));
        map.refresh(token(1), &psk(1));
        assert_eq!(map.len(), 0);
    }

    #[test]
    fn a_replaced_secret_is_not_found_any_more() {
        let mut map = SecretMap::new(NOW);
        map.insert(Way::SharedSecret, &psk(1));
        map.insert(Way::SharedSecret, &psk(2));
        assert_eq!(map.find(PskKeys::new(&psk(1)).id_at(NOW)), None);
        let id = PskKeys::new(&psk(2)).id_at(NOW);
        assert_eq!(map.find(id), Some(Way::SharedSecret));
        assert_eq!(map.len(), 3);
    }
}
