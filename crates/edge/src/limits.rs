//! Limits per address: connections, requests, bans.
//!
//! One sharded table of bounded size remembers what each address (for IPv6
//! each /64) does now: how many connections it has open, its request bucket
//! (GCRA), its refusals and failed proofs, and its ban. A connection is counted
//! by an RAII [`ConnectionPermit`], through which the requests of that
//! connection are counted without another look-up.
//!
//! Invariants: memory is bounded by [`LimitSettings::addresses`] whatever the
//! number of addresses seen, the stalest going first; loopback and trusted
//! proxies are limited but never banned, because a ban of theirs would hit
//! everybody behind them; a limit of 0 is no limit. Time comes in as an
//! argument.

mod address;
mod bans;
mod table;
mod unproved;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

pub use self::address::AddressKey;
use self::table::{Entry, Handle, Shard, Tally};
pub use self::unproved::{UnprovedPermit, UnprovedSockets};
use crate::metrics::{LimitRefusal, Metrics};

/// So many failures within so long lead to a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    /// The failure that bans; 0 = never.
    pub count: u32,
    /// Counted from the first failure.
    pub within: Duration,
}

/// What the limits are.
#[derive(Clone, Debug)]
pub struct LimitSettings {
    /// Open connections of one address; 0 = no limit.
    pub connections_per_address: u32,
    /// Requests of one address a second, on average; 0 = no limit.
    pub requests_per_second: u32,
    /// Requests that may come at once after a pause; never below one second's
    /// worth.
    pub request_burst: u32,
    /// Requests and connections refused by the two limits above.
    pub refusals: Threshold,
    /// First messages and channel headers that prove no secret, wrong PINs.
    pub proofs: Threshold,
    /// Wrong user names or passwords.
    pub logins: Threshold,
    /// TLS handshakes that were none.
    pub handshakes: Threshold,
    /// How long a ban lasts.
    pub ban: Duration,
    /// Most addresses remembered.
    pub addresses: usize,
    /// Proxies that speak for many visitors.
    pub trusted: Vec<IpNet>,
    /// A trusted proxy's limits are these many times those of a visitor.
    pub trusted_factor: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            connections_per_address: 1000,
            requests_per_second: 1000,
            request_burst: 0,
            refusals: Threshold {
                count: 1000,
                within: minutes(1),
            },
            proofs: Threshold {
                count: 30,
                within: minutes(10),
            },
            logins: Threshold {
                count: 20,
                within: minutes(10),
            },
            handshakes: Threshold {
                count: 200,
                within: minutes(10),
            },
            ban: minutes(10),
            addresses: 65_536,
            trusted: Vec::new(),
            trusted_factor: 16,
        }
    }
}

/// A failure that counts towards a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strike {
    /// A request or a connection above a limit; counted here by itself.
    Refusal,
    /// A proof of a secret or a PIN that was wrong.
    Proof,
    /// A wrong user name or password.
    Login,
    /// Something else than TLS where TLS is spoken, or a handshake that never
    /// ends.
    Handshake,
}

/// Why an address was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is banned for so long from now.
    #[error("address is banned for {} s more", left.as_secs())]
    Banned {
        /// Time to the end of the ban.
        left: Duration,
    },
    /// It has as many open connections as an address may have.
    #[error("address has too many open connections")]
    TooManyConnections,
    /// It sends requests faster than an address may.
    #[error("address sends too many requests")]
    TooManyRequests {
        /// After this a request is allowed again.
        retry_after: Duration,
    },
}

/// What the table holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Addresses remembered.
    pub addresses: usize,
    /// Of these, banned.
    pub banned: usize,
}

/// How an address is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Visitor,
    Loopback,
    Trusted,
}

/// The limits of all doors.
#[derive(Debug)]
pub struct Limits {
    settings: LimitSettings,
    metrics: Arc<Metrics>,
    start: Instant,
    hasher: RandomState,
    shards: Box<[Mutex<Shard>]>,
}

/// Enough that cores seldom meet at one lock; a power of two.
const SHARDS: usize = 64;

impl Limits {
    /// Limits that know no address yet.
    #[must_use]
    pub fn new(settings: LimitSettings, metrics: Arc<Metrics>, now: Instant) -> Arc<Self> {
        let capacity = settings.addresses.div_ceil(SHARDS);
        let shards = (0..SHARDS)
            .map(|_| Mutex::new(Shard::new(capacity)))
            .collect();
        Arc::new(Self {
            settings,
            metrics,
            start: now,
            hasher: RandomState::new(),
            shards,
        })
    }

    /// Counts a connection in until the permit is dropped.
    ///
    /// # Errors
    /// [`Refusal::Banned`] and [`Refusal::TooManyConnections`].
    pub fn connect(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<ConnectionPermit, Refusal> {
        let (key, standing, now) = self.read(address, now);
        let shard = self.shard_of(key);
        let mut table = self.lock(shard);
        let handle = table.touch(key, now);
        let limit = self.scaled(self.settings.connections_per_address, standing);
        if let Some(entry) = table.get(handle) {
            let refusal = if entry.banned_until > now {
                Some(banned(entry, now))
            } else if limit > 0 && entry.connections >= limit {
                self.count(entry, Strike::Refusal, standing, now);
                Some(Refusal::TooManyConnections)
            } else {
                entry.connections += 1;
                None
            };
            table.settle_handle(handle);
            if let Some(refusal) = refusal {
                self.tell(refusal);
                return Err(refusal);
            }
        }
        Ok(ConnectionPermit {
            limits: Arc::clone(self),
            address,
            standing,
            key,
            shard,
            handle,
        })
    }

    /// Counts one request of `address`: one that came through a trusted proxy,
    /// say. [`ConnectionPermit::request`] is the cheaper way for a peer.
    ///
    /// # Errors
    /// [`Refusal::Banned`] and [`Refusal::TooManyRequests`].
    pub fn request(&self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        let (key, standing, now) = self.read(address, now);
        let mut table = self.lock(self.shard_of(key));
        let handle = table.touch(key, now);
        self.request_at(&mut table, handle, standing, now)
    }

    /// Counts a failure; `true` when it is the one that bans the address.
    pub fn strike(&self, address: IpAddr, strike: Strike, now: Instant) -> bool {
        let (key, standing, now) = self.read(address, now);
        let mut table = self.lock(self.shard_of(key));
        let handle = table.touch(key, now);
        let is_ban = table
            .get(handle)
            .is_some_and(|entry| self.count(entry, strike, standing, now));
        table.settle_handle(handle);
        is_ban
    }

    /// Counts the table; walks all of it, for a scrape and not for a request.
    #[must_use]
    pub fn census(&self, now: Instant) -> Census {
        let now = self.nanos_at(now);
        let mut census = Census::default();
        for shard in 0..SHARDS {
            let table = self.lock(shard);
            census.addresses += table.len();
            census.banned += table.banned(now);
        }
        census
    }

    fn request_at(
        &self,
        table: &mut Shard,
        handle: Handle,
        standing: Standing,
        now: u64,
    ) -> Result<(), Refusal> {
        let Some(entry) = table.get(handle) else {
            return Ok(());
        };
        let refusal = if entry.banned_until > now {
            banned(entry, now)
        } else {
            let rate = self.scaled(self.settings.requests_per_second, standing);
            let burst = self.scaled(self.settings.request_burst, standing);
            let Err(retry_after) = pass(&mut entry.arrival, rate, burst, now) else {
                return Ok(());
            };
            self.count(entry, Strike::Refusal, standing, now);
            Refusal::TooManyRequests { retry_after }
        };
        table.settle_handle(handle);
        self.tell(refusal);
        Err(refusal)
    }

    /// Adds a failure to the entry; `true` when it bans.
    fn count(&self, entry: &mut Entry, strike: Strike, standing: Standing, now: u64) -> bool {
        let (threshold, index) = match strike {
            Strike::Refusal => (self.settings.refusals, 0),
            Strike::Proof => (self.settings.proofs, 1),
            Strike::Login => (self.settings.logins, 2),
            Strike::Handshake => (self.settings.handshakes, 3),
        };
        if threshold.count == 0 || standing != Standing::Visitor {
            return false;
        }
        let tally = &mut entry.tallies[index];
        if tally.count == 0 || now.saturating_sub(tally.since) > nanos(threshold.within) {
            *tally = Tally {
                count: 0,
                since: now,
            };
        }
        tally.count += 1;
        if tally.count < threshold.count {
            return false;
        }
        *tally = Tally::default();
        entry.banned_until = now.saturating_add(nanos(self.settings.ban));
        self.metrics.limits.bans.add(1);
        true
    }

    fn tell(&self, refusal: Refusal) {
        let label = match refusal {
            Refusal::Banned { .. } => LimitRefusal::Banned,
            Refusal::TooManyConnections => LimitRefusal::Connections,
            Refusal::TooManyRequests { .. } => LimitRefusal::Requests,
        };
        self.metrics.limits.refused.of(label).add(1);
    }

    fn scaled(&self, limit: u32, standing: Standing) -> u32 {
        match standing {
            Standing::Trusted => limit.saturating_mul(self.settings.trusted_factor.max(1)),
            Standing::Visitor | Standing::Loopback => limit,
        }
    }

    fn read(&self, address: IpAddr, now: Instant) -> (AddressKey, Standing, u64) {
        let standing = self.standing(address);
        (AddressKey::of(address), standing, self.nanos_at(now))
    }

    fn standing(&self, address: IpAddr) -> Standing {
        let canonical = address.to_canonical();
        let is_trusted = |net: &IpNet| net.contains(&canonical);
        if self.settings.trusted.iter().any(is_trusted) {
            Standing::Trusted
        } else if canonical.is_loopback() {
            Standing::Loopback
        } else {
            Standing::Visitor
        }
    }

    fn nanos_at(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.start))
    }

    fn shard_of(&self, key: AddressKey) -> usize {
        // Keyed at random: nobody can aim many addresses at one shard.
        (self.hasher.hash_one(key) as usize) % SHARDS
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One counted connection; dropping it counts it out.
#[derive(Debug)]
pub struct ConnectionPermit {
    limits: Arc<Limits>,
    address: IpAddr,
    standing: Standing,
    key: AddressKey,
    shard: usize,
    handle: Handle,
}

impl ConnectionPermit {
    /// Counts one request of this connection's peer.
    ///
    /// # Errors
    /// [`Refusal::Banned`] and [`Refusal::TooManyRequests`].
    pub fn request(&self, now: Instant) -> Result<(), Refusal> {
        let now = self.limits.nanos_at(now);
        let mut table = self.limits.lock(self.shard);
        let handle = match table.get(self.handle) {
            Some(_) => {
                table.settle_handle(self.handle);
                self.handle
            }
            // The table was full of others meanwhile.
            None => table.touch(self.key, now),
        };
        self.limits
            .request_at(&mut table, handle, self.standing, now)
    }

    /// Whose connection it is.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut table = self.limits.lock(self.shard);
        if let Some(entry) = table.get(self.handle) {
            entry.connections = entry.connections.saturating_sub(1);
            table.settle_handle(self.handle);
        }
    }
}

fn banned(entry: &Entry, now: u64) -> Refusal {
    Refusal::Banned {
        left: Duration::from_nanos(entry.banned_until.saturating_sub(now)),
    }
}

/// The generic cell rate algorithm: `arrival` is when the next request would be
/// due at the plain rate; it may lie ahead of now by the burst at most.
fn pass(arrival: &mut u64, rate: u32, burst: u32, now: u64) -> Result<(), Duration> {
    if rate == 0 {
        return Ok(());
    }
    let interval = 1_000_000_000 / u64::from(rate);
    let ahead = interval.saturating_mul(u64::from(burst.max(rate)));
    let next = (*arrival).max(now) + interval;
    match next.saturating_sub(now).checked_sub(ahead) {
        None | Some(0) => {
            *arrival = next;
            Ok(())
        }
        Some(early) => Err(Duration::from_nanos(early)),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
