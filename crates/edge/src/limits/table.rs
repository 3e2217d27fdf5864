//! A bounded table of addresses, the stalest going first.
//!
//! One [`Shard`] is a slab of entries with an index by address and two lists
//! through the slab, each ordered by last touch: *plain* entries, and *held*
//! ones (banned, or with open connections), which are given up only when no
//! plain entry is left. So a flood from many addresses cannot lift a ban or
//! reset a connection count before it has filled the whole table.
//!
//! Invariant: a shard never holds more than its capacity; every entry stands
//! in the index once and in exactly one of the two lists. A [`Handle`] outlives
//! its entry safely: the generation tells that the slot was given away.

use std::collections::HashMap;

use super::address::AddressKey;

/// No neighbour.
const NIL: u32 = u32::MAX;
const PLAIN: usize = 0;
const HELD: usize = 1;

/// Failures within one window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) count: u32,
    /// Nanoseconds since the table's start.
    pub(super) since: u64,
}

/// What is remembered of one address. Times are nanoseconds since the table's
/// start.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    key: AddressKey,
    generation: u32,
    newer: u32,
    older: u32,
    list: usize,
    pub(super) connections: u32,
    /// Theoretical arrival time of the next request (GCRA, ITU-T I.371).
    pub(super) arrival: u64,
    pub(super) banned_until: u64,
    pub(super) tallies: [Tally; 4],
}

impl Entry {
    fn new(key: AddressKey, generation: u32) -> Self {
        Self {
            key,
            generation,
            newer: NIL,
            older: NIL,
            list: PLAIN,
            connections: 0,
            arrival: 0,
            banned_until: 0,
            tallies: [Tally::default(); 4],
        }
    }

    /// A ban that is over counts until the next [`Shard::touch`].
    fn is_held(&self) -> bool {
        self.connections > 0 || self.banned_until > 0
    }
}

/// Names an entry without looking its address up again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle {
    slot: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
}

/// One part of the table, behind one lock.
#[derive(Debug)]
pub(super) struct Shard {
    index: HashMap<AddressKey, u32>,
    entries: Vec<Entry>,
    lists: [List; 2],
    capacity: usize,
}

impl Shard {
    pub(super) fn new(capacity: usize) -> Self {
        let empty = List {
            newest: NIL,
            oldest: NIL,
        };
        Self {
            index: HashMap::new(),
            entries: Vec::new(),
            lists: [empty; 2],
            capacity: capacity.max(1),
        }
    }

    /// The entry of `key`, made when there is none; the stalest makes room.
    pub(super) fn touch(&mut self, key: AddressKey, now: u64) -> Handle {
        let slot = match self.index.get(&key) {
            Some(&slot) => slot,
            None => self.insert(key, now),
        };
        let entry = &mut self.entries[slot as usize];
        if entry.banned_until <= now {
            entry.banned_until = 0;
        }
        self.settle(slot);
        self.handle(slot)
    }

    /// The entry of `key` if it is known; its age does not change.
    pub(super) fn peek(&self, key: AddressKey) -> Option<&Entry> {
        let slot = *self.index.get(&key)?;
        self.entries.get(slot as usize)
    }

    /// The entry that `handle` was given for, unless it made room for another.
    pub(super) fn get(&mut self, handle: Handle) -> Option<&mut Entry> {
        self.entries
            .get_mut(handle.slot as usize)
            .filter(|entry| entry.generation == handle.generation)
    }

    /// Puts the entry at the young end of the list that fits its state. To be
    /// called after a change of its connections or its ban.
    pub(super) fn settle_handle(&mut self, handle: Handle) {
        if self.get(handle).is_some() {
            self.settle(handle.slot);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Entries banned at `now`.
    pub(super) fn banned(&self, now: u64) -> usize {
        let is_banned = |entry: &&Entry| entry.banned_until > now;
        self.entries.iter().filter(is_banned).count()
    }

    /// Who is banned at `now`, and how long yet.
    pub(super) fn bans(&self, now: u64) -> Vec<(AddressKey, u64)> {
        let left = |entry: &Entry| entry.banned_until.checked_sub(now).filter(|left| *left > 0);
        let bans = self.entries.iter();
        bans.filter_map(|entry| Some((entry.key, left(entry)?)))
            .collect()
    }

    fn handle(&self, slot: u32) -> Handle {
        let generation = self.entries[slot as usize].generation;
        Handle { slot, generation }
    }

    fn insert(&mut self, key: AddressKey, now: u64) -> u32 {
        let slot = if self.entries.len() < self.capacity {
            let slot = u32::try_from(self.entries.len()).unwrap_or(NIL - 1);
            self.entries.push(Entry::new(key, 0));
            slot
        } else {
            let slot = self.stalest(now);
            self.unlink(slot);
            let old = &mut self.entries[slot as usize];
            self.index.remove(&old.key);
            *old = Entry::new(key, old.generation.wrapping_add(1));
            slot
        };
        self.index.insert(key, slot);
        self.link(slot, PLAIN);
        slot
    }

    /// A held entry whose reason to be held is over goes first, then the
    /// stalest plain one, then the stalest held one.
    fn stalest(&self, now: u64) -> u32 {
        let [plain, held] = [self.lists[PLAIN].oldest, self.lists[HELD].oldest];
        let is_over = |entry: &Entry| entry.connections == 0 && entry.banned_until <= now;
        let held_is_over = self.entries.get(held as usize).is_some_and(is_over);
        if plain == NIL || held_is_over {
            held
        } else {
            plain
        }
    }

    fn settle(&mut self, slot: u32) {
        let list = usize::from(self.entries[slot as usize].is_held());
        if self.lists[list].newest == slot {
            return;
        }
        self.unlink(slot);
        self.link(slot, list);
    }

    fn unlink(&mut self, slot: u32) {
        let Entry {
            newer, older, list, ..
        } = self.entries[slot as usize];
        match newer {
            NIL => self.lists[list].newest = older,
            n => self.entries[n as usize].older = older,
        }
        match older {
            NIL => self.lists[list].oldest = newer,
            o => self.entries[o as usize].newer = newer,
        }
    }

    fn link(&mut self, slot: u32, list: usize) {
        let newest = self.lists[list].newest;
        let entry = &mut self.entries[slot as usize];
        (entry.newer, entry.older, entry.list) = (NIL, newest, list);
        match newest {
            NIL => self.lists[list].oldest = slot,
            n => self.entries[n as usize].newer = slot,
        }
        self.lists[list].newest = slot;
    }

    #[cfg(test)]
    pub(super) fn capacity_in_memory(&self) -> usize {
        self.entries.capacity()
    }

    #[cfg(test)]
    pub(super) fn connections(&self) -> u32 {
        self.entries.iter().map(|entry| entry.connections).sum()
    }

    #[cfg(test)]
    fn check(&self) {
        let mut seen = 0;
        for (list, ends) in self.lists.iter().enumerate() {
            let (mut slot, mut newer) = (ends.newest, NIL);
            while slot != NIL {
                let entry = &self.entries[slot as usize];
                assert_eq!((entry.list, entry.newer), (list, newer));
                assert_eq!(self.index.get(&entry.key), Some(&slot));
                (newer, slot) = (slot, entry.older);
                seen += 1;
            }
            assert_eq!(ends.oldest, newer);
        }
        assert_eq!((seen, self.index.len()), (self.entries.len(), seen));
        assert!(seen <= self.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> AddressKey {
        AddressKey::V4(n)
    }

    #[test]
    fn the_stalest_plain_entry_makes_room() {
        let mut shard = Shard::new(3);
        for n in 1..=3 {
            shard.touch(key(n), 0);
        }
        shard.touch(key(1), 0);
        shard.touch(key(4), 0);
        shard.check();
        assert!(shard.peek(key(2)).is_none());
        assert!(shard.peek(key(1)).is_some() && shard.peek(key(3)).is_some());
    }

    #[test]
    fn a_held_entry_stays_while_plain_ones_are_left() {
        let mut shard = Shard::new(3);
        let banned = shard.touch(key(1), 0);
        shard.get(banned).unwrap().banned_until = 100;
        shard.settle_handle(banned);
        for n in 2..50 {
            shard.touch(key(n), 0);
            shard.check();
        }
        assert!(shard.peek(key(1)).is_some());
        // Its ban over, it is the first to go.
        shard.touch(key(99), 100);
        assert!(shard.peek(key(1)).is_none());
    }

    #[test]
    fn a_handle_of_a_given_away_slot_reaches_nothing() {
        let mut shard = Shard::new(1);
        let first = shard.touch(key(1), 0);
        shard.get(first).unwrap().connections = 1;
        shard.settle_handle(first);
        let second = shard.touch(key(2), 0);
        shard.check();
        assert!(shard.get(first).is_none());
        assert_eq!(shard.get(second).unwrap().connections, 0);
    }

    #[test]
    fn any_order_of_use_keeps_the_lists_whole() {
        let (mut shard, mut state) = (Shard::new(16), 0x2545_F491_4F6C_DD1Du64);
        for now in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let handle = shard.touch(key((state % 40) as u32), now);
            let entry = shard.get(handle).unwrap();
            match state >> 32 & 7 {
                0 => entry.banned_until = now + (state >> 40) % 64,
                1 => entry.connections += 1,
                2 => entry.connections = 0,
                _ => {}
            }
            shard.settle_handle(handle);
            shard.check();
        }
    }
}
