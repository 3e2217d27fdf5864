//! Who may try the PIN, how often, and when it changes.
//!
//! Five wrong PINs from one address ban it; all addresses together have a
//! budget, so that many addresses gain nothing; and the PIN changes after each
//! enrolment or ten minutes after the first wrong try, so that tries do not
//! add up. With 31^6 PINs and the default budget a guesser has a chance of
//! about one in three million per PIN.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The gate's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinLimits {
    /// Wrong PINs of one address before it is banned.
    pub per_address: u32,
    /// How long an address's wrong PINs are remembered.
    pub memory: Duration,
    /// Attempts of all addresses in one [`PinLimits::budget_window`].
    pub budget: u32,
    /// The time in which the budget renews.
    pub budget_window: Duration,
    /// After how long a time with attempts the PIN changes.
    pub rotate_after: Duration,
    /// Most addresses remembered.
    pub max_addresses: usize,
}

impl Default for PinLimits {
    fn default() -> Self {
        Self {
            per_address: 5,
            memory: Duration::from_secs(3600),
            budget: 30,
            budget_window: Duration::from_secs(60),
            rotate_after: Duration::from_secs(600),
            max_addresses: 4096,
        }
    }
}

/// Whether an address may try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinPermit {
    /// It may; the attempt counts.
    Go,
    /// Not now: too many attempts by all.
    TryLater,
    /// It has used up its tries.
    Banned,
}

/// What a judged attempt leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinOutcome {
    /// The address is to be banned.
    pub ban: bool,
    /// A new PIN is to be made.
    pub rotate: bool,
}

/// The gate in front of the PIN.
#[derive(Debug)]
pub struct PinGate {
    limits: PinLimits,
    wrong: HashMap<IpAddr, (u32, Instant)>,
    window: Option<(Instant, u32)>,
    /// The first wrong try at the present PIN.
    tried_since: Option<Instant>,
}

impl PinGate {
    /// An open gate.
    #[must_use]
    pub fn new(limits: PinLimits) -> Self {
        Self {
            limits,
            wrong: HashMap::new(),
            window: None,
            tried_since: None,
        }
    }

    /// Asks for one attempt, before the PIN is asked of the agent.
    pub fn permit(&mut self, from: IpAddr, now: Instant) -> PinPermit {
        let from = network(from);
        self.forget(now);
        if self
            .wrong
            .get(&from)
            .is_some_and(|(count, _)| *count >= self.limits.per_address)
        {
            return PinPermit::Banned;
        }
        let (since, used) = match self.window {
            Some((since, used))
                if now.saturating_duration_since(since) < self.limits.budget_window =>
            {
                (since, used)
            }
            _ => (now, 0),
        };
        if used >= self.limits.budget {
            return PinPermit::TryLater;
        }
        self.window = Some((since, used + 1));
        PinPermit::Go
    }

    /// The attempt was wrong.
    pub fn wrong(&mut self, from: IpAddr, now: Instant) -> PinOutcome {
        let from = network(from);
        self.forget(now);
        if !self.wrong.contains_key(&from) && self.wrong.len() >= self.limits.max_addresses {
            let oldest = self.wrong.iter().min_by_key(|(_, (_, last))| *last);
            if let Some(oldest) = oldest.map(|(address, _)| *address) {
                self.wrong.remove(&oldest);
            }
        }
        let entry = self.wrong.entry(from).or_insert((0, now));
        *entry = (entry.0.saturating_add(1), now);
        let ban = entry.0 >= self.limits.per_address;
        let since = *self.tried_since.get_or_insert(now);
        let rotate = now.saturating_duration_since(since) >= self.limits.rotate_after;
        if rotate {
            self.tried_since = None;
        }
        PinOutcome { ban, rotate }
    }

    /// The attempt was right: an agent is enrolled, so the PIN changes.
    pub fn right(&mut self, from: IpAddr) -> PinOutcome {
        self.wrong.remove(&network(from));
        self.tried_since = None;
        PinOutcome {
            ban: false,
            rotate: true,
        }
    }

    /// Forgets an address's wrong PINs, and leaves the time at which the PIN
    /// changes: for an address that is never banned because others stand behind
    /// it, and for a right PIN that enrolled nobody.
    pub fn forgive(&mut self, from: IpAddr) {
        self.wrong.remove(&network(from));
    }

    /// When the PIN is to be changed though nobody tries any more.
    #[must_use]
    pub fn rotate_at(&self) -> Option<Instant> {
        self.tried_since
            .map(|since| since + self.limits.rotate_after)
    }

    /// The PIN was changed.
    pub fn rotated(&mut self) {
        self.tried_since = None;
    }

    fn forget(&mut self, now: Instant) {
        let memory = self.limits.memory;
        self.wrong
            .retain(|_, (_, last)| now.saturating_duration_since(*last) < memory);
    }
}

/// What one party holds: an IPv4 address or an IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn five_wrong_pins_ban_an_address_for_a_while() {
        let (mut gate, now) = (PinGate::new(PinLimits::default()), Instant::now());
        for n in 1..=5 {
            assert_eq!(gate.permit(address(1), now), PinPermit::Go);
            assert_eq!(gate.wrong(address(1), now).ban, n == 5);
        }
        assert_eq!(gate.permit(address(1), now), PinPermit::Banned);
        assert_eq!(gate.permit(address(2), now), PinPermit::Go);
        let later = now + Duration::from_secs(3600);
        assert_eq!(gate.permit(address(1), later), PinPermit::Go);
    }

    #[test]
    fn a_v6_network_is_one_address_and_mapped_v4_is_v4() {
        let (mut gate, now) = (PinGate::new(PinLimits::default()), Instant::now());
        let host = |n: u16| IpAddr::from([0x2001, 0xdb8, 1, 2, 0, 0, 0, n]);
        for n in 0..5 {
            gate.wrong(host(n), now);
        }
        assert_eq!(gate.permit(host(99), now), PinPermit::Banned);
        let next = IpAddr::from([0x2001, 0xdb8, 1, 3, 0, 0, 0, 1]);
        assert_eq!(gate.permit(next, now), PinPermit::Go);
        assert_eq!(network("::ffff:192.0.2.1".parse().unwrap()), address(1));
    }

    #[test]
    fn all_addresses_share_a_budget() {
        let (mut gate, now) = (PinGate::new(PinLimits::default()), Instant::now());
        for n in 0..30 {
            assert_eq!(gate.permit(address(n), now), PinPermit::Go);
        }
        assert_eq!(gate.permit(address(200), now), PinPermit::TryLater);
        let soon = now + Duration::from_secs(59);
        assert_eq!(gate.permit(address(200), soon), PinPermit::TryLater);
        let later = now + Duration::from_secs(60);
        assert_eq!(gate.permit(address(200), later), PinPermit::Go);
    }

    #[test]
    fn the_pin_changes_after_success_or_ten_minutes_of_tries() {
        let (mut gate, now) = (PinGate::new(PinLimits::default()), Instant::now());
        assert!(gate.right(address(1)).rotate);
        assert_eq!(gate.rotate_at(), None);
        assert!(!gate.wrong(address(1), now).rotate);
        let due = now + Duration::from_secs(600);
        assert_eq!(gate.rotate_at(), Some(due));
        assert!(gate.wrong(address(2), due).rotate);
        assert_eq!(gate.rotate_at(), None);
    }

    #[test]
    fn memory_is_bounded() {
        let limits = PinLimits {
            max_addresses: 8,
            ..PinLimits::default()
        };
        let (mut gate, mut now) = (PinGate::new(limits), Instant::now());
        for n in 0..100 {
            now += Duration::from_secs(1);
            gate.wrong(address(n), now);
            assert!(gate.wrong.len() <= 8);
        }
    }
}
