//! Bans: spoken by the limits, or by the owner; listed and lifted.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::table::Tally;
use super::{AddressKey, Limits, SHARDS, Standing, nanos};

impl Limits {
    /// Bans an address now; `false` for one that is never banned.
    pub fn ban(&self, address: IpAddr, length: Duration, now: Instant) -> bool {
        let (key, standing, now) = self.read(address, now);
        if standing != Standing::Visitor {
            return false;
        }
        let mut table = self.lock(self.shard_of(key));
        let handle = table.touch(key, now);
        if let Some(entry) = table.get(handle) {
            entry.banned_until = entry.banned_until.max(now.saturating_add(nanos(length)));
            self.metrics.limits.bans.add(1);
        }
        table.settle_handle(handle);
        true
    }

    /// How long `address` is banned yet.
    #[must_use]
    pub fn banned(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let (key, _, now) = self.read(address, now);
        let table = self.lock(self.shard_of(key));
        let left = table.peek(key)?.banned_until.checked_sub(now)?;
        (left > 0).then(|| Duration::from_nanos(left))
    }

    /// Lifts a ban, and forgets what led to it; false when there was none.
    pub fn lift(&self, address: IpAddr, now: Instant) -> bool {
        let (key, _, now) = self.read(address, now);
        let mut table = self.lock(self.shard_of(key));
        if table.peek(key).is_none() {
            return false;
        }
        let handle = table.touch(key, now);
        let lifted = table.get(handle).is_some_and(|entry| {
            entry.tallies = [Tally::default(); 4];
            std::mem::take(&mut entry.banned_until) > now
        });
        table.settle_handle(handle);
        lifted
    }

    /// Who is banned, and how long yet; the longest first, not more than
    /// `most`. Walks the table, for a person and not for a request.
    #[must_use]
    pub fn bans(&self, now: Instant, most: usize) -> Vec<(AddressKey, Duration)> {
        let now = self.nanos_at(now);
        let of_shard = |shard| self.lock(shard).bans(now);
        let mut bans: Vec<_> = (0..SHARDS).flat_map(of_shard).collect();
        bans.sort_unstable_by_key(|(_, left)| Reverse(*left));
        bans.truncate(most);
        let left = |(key, left)| (key, Duration::from_nanos(left));
        bans.into_iter().map(left).collect()
    }

    /// Grows with each ban: who has asked whether an address is banned need not
    /// ask again before it does. Costs a load.
    #[must_use]
    pub fn bans_spoken(&self) -> u64 {
        self.metrics.limits.bans.get()
    }

    /// Whether `address` is never banned, because others may stand behind it.
    #[must_use]
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.standing(address) != Standing::Visitor
    }

    /// How long a ban lasts.
    #[must_use]
    pub fn ban_length(&self) -> Duration {
        self.settings.ban
    }
}
