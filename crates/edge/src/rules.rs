//! The owner's rules for tunnels, by name: who may visit, how many, how fast.
//!
//! A rule counts what all visitors of a name do together, on whatever door. A
//! visitor is counted by an RAII permit. Time comes in as an argument.
//!
//! Invariants: memory is bounded by the visitors that are there and by a number
//! of guests; a limit of 0 is no limit; `deny` is stronger than `allow`.

mod bucket;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use adit_model::{PortRanges, PublicKey, TunnelName};
use ipnet::IpNet;

use self::bucket::Bucket;
pub(crate) use self::pace::{Paces, Way};
use crate::limits::AddressKey;
use crate::metrics::kinds::{Family, labels};

/// Most addresses that are let in to one tunnel at a time.
pub(crate) const MAX_GUESTS: usize = 4096;

/// What the owner says about a tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSpec {
    /// Who may visit; empty: everybody.
    pub allow: Vec<IpNet>,
    /// Who may not, whatever `allow` says.
    pub deny: Vec<IpNet>,
    /// Most visitors at a time.
    pub connections: u32,
    /// Most visitors of one address at a time.
    pub connections_per_address: u32,
    /// New visitors a second, on average; a second's worth may come at once.
    pub connections_per_second: u32,
    /// Bytes a second, each way, of all visitors together.
    pub bytes_per_second: u64,
    /// Only addresses that were let in may visit.
    pub guests_only: bool,
    /// Most agents behind the name.
    pub max_agents: u32,
}

/// What the owner says about an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSpec {
    /// Its identity.
    pub key: PublicKey,
    /// The ports that its TCP tunnels may have; `None`: all that the edge
    /// opens.
    pub ports: Option<PortRanges>,
    /// The same for UDP tunnels.
    pub udp_ports: Option<PortRanges>,
    /// Most tunnels at a time; 0 = no limit.
    pub max_tunnels: usize,
    /// The private tunnels that it may reach; `None`: all of its owner.
    pub forward: Option<Vec<TunnelName>>,
    /// What all its visitors together may do.
    pub rule: RuleSpec,
}

/// An agent's rule, and what the visitors of all its tunnels do.
#[derive(Debug)]
pub(crate) struct AgentRule {
    pub(crate) ports: Option<PortRanges>,
    pub(crate) udp_ports: Option<PortRanges>,
    pub(crate) max_tunnels: usize,
    pub(crate) forward: Option<Vec<TunnelName>>,
    pub(crate) rule: Arc<Rule>,
}

labels!(
    /// Why a rule turned a visitor away.
    Refused "reason":
    /// Its address may not visit.
    Address = "address",
    /// Its address was not let in.
    NotGuest = "not_guest",
    /// The tunnel has as many visitors as it may.
    Full = "full",
    /// The address has as many visitors here as it may.
    AddressFull = "address_full",
    /// New visitors come faster than they may.
    TooFast = "too_fast",
);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "address is not allowed here",
            Self::NotGuest => "address was not let in",
            Self::Full => "tunnel has as many visitors as it may",
            Self::AddressFull => "address has as many visitors here as it may",
            Self::TooFast => "tunnel gets new visitors faster than it may",
        })
    }
}

/// One tunnel's rule and what its visitors do.
#[derive(Debug)]
pub(crate) struct Rule {
    spec: RuleSpec,
    now: Mutex<Now>,
    /// Bytes from visitors, and to them.
    bytes: Option<[Bucket; 2]>,
}

#[derive(Debug, Default)]
struct Now {
    visitors: u32,
    of_address: HashMap<AddressKey, u32>,
    /// When the next visitor would be in time (GCRA).
    due: Option<Instant>,
    guests: HashMap<AddressKey, Instant>,
}

/// A visitor that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    rule: Arc<Rule>,
    address: AddressKey,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let mut now = self.rule.now();
        now.visitors = now.visitors.saturating_sub(1);
        if let Some(count) = now.of_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                now.of_address.remove(&self.address);
            }
        }
    }
}

impl Rule {
    fn new(spec: RuleSpec, at: Instant) -> Self {
        let bucket = || (spec.bytes_per_second > 0).then(|| Bucket::new(spec.bytes_per_second, at));
        Self {
            bytes: bucket().zip(bucket()).map(|(up, down)| [up, down]),
            now: Mutex::default(),
            spec,
        }
    }

    /// The owner's word.
    pub(crate) fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a visitor in.
    ///
    /// # Errors
    /// See [`Refused`]; then it is not counted.
    pub(crate) fn enter(self: &Arc<Self>, ip: IpAddr, at: Instant) -> Result<Visit, Refused> {
        let (spec, ip) = (&self.spec, ip.to_canonical());
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&ip));
        if within(&spec.deny) || !(spec.allow.is_empty() || within(&spec.allow)) {
            return Err(Refused::Address);
        }
        let address = AddressKey::of(ip);
        let mut now = self.now();
        let is_guest = now.guests.get(&address).is_some_and(|until| *until > at);
        if spec.guests_only && !is_guest {
            return Err(Refused::NotGuest);
        }
        if spec.connections > 0 && now.visitors >= spec.connections {
            return Err(Refused::Full);
        }
        let here = now.of_address.get(&address).copied().unwrap_or(0);
        if spec.connections_per_address > 0 && here >= spec.connections_per_address {
            return Err(Refused::AddressFull);
        }
        now.in_time(spec.connections_per_second, at)?;
        now.visitors += 1;
        now.of_address.insert(address, here + 1);
        let rule = Arc::clone(self);
        Ok(Visit { rule, address })
    }

    /// Lets an address in for so long; false when too many are let in.
    pub(crate) fn let_in(&self, ip: IpAddr, time: Duration, at: Instant) -> bool {
        let address = AddressKey::of(ip);
        let mut now = self.now();
        now.guests.retain(|_, until| *until > at);
        if now.guests.len() >= MAX_GUESTS && !now.guests.contains_key(&address) {
            return false;
        }
        let Some(until) = at.checked_add(time) else {
            return false;
        };
        now.guests.insert(address, until);
        true
    }

    /// Takes that back; false when the address was not let in.
    pub(crate) fn shut_out(&self, ip: IpAddr, at: Instant) -> bool {
        let until = self.now().guests.remove(&AddressKey::of(ip));
        until.is_some_and(|until| until > at)
    }
}

impl Now {
    fn in_time(&mut self, per_second: u32, at: Instant) -> Result<(), Refused> {
        if per_second == 0 {
            return Ok(());
        }
        let second = Duration::from_secs(1);
        let due = self.due.map_or(at, |due| due.max(at));
        let next = due + second / per_second;
        if next > at + second {
            return Err(Refused::TooFast);
        }
        self.due = Some(next);
        Ok(())
    }
}

/// Counts a visitor in by a rule, where there is one; a refusal is counted too.
///
/// # Errors
/// See [`Rule::enter`].
pub(crate) fn enter(
    rule: Option<&Arc<Rule>>,
    ip: IpAddr,
    refusals: &Family<Refused>,
) -> Result<Option<Visit>, Refused> {
    try_enter(rule, ip).inspect_err(|refused| refusals.of(*refused).add(1))
}

fn try_enter(rule: Option<&Arc<Rule>>, ip: IpAddr) -> Result<Option<Visit>, Refused> {
    let now = tokio::time::Instant::now().into_std();
    rule.map(|rule| rule.enter(ip, now)).transpose()
}

/// One visitor and the rules of several agents, asked one after the other: who
/// is taken by none was turned away once.
#[derive(Debug, Default)]
pub(crate) struct AgentRules {
    full: u8,
    last: Option<Refused>,
}

impl AgentRules {
    /// Counts the visitor in by an agent's rule, where there is one; `None`
    /// when another agent has to be found.
    pub(crate) fn enter(&mut self, rule: Option<&Arc<Rule>>, ip: IpAddr) -> Option<Option<Visit>> {
        let entered = try_enter(rule, ip).inspect_err(|refused| {
            self.full = self.full.saturating_add(1);
            self.last = Some(*refused);
        });
        entered.ok()
    }

    /// How many have refused, 255 for more.
    pub(crate) fn full(&self) -> u8 {
        self.full
    }

    /// No agent has taken the visitor: what the last one that refused has said
    /// is counted.
    pub(crate) fn turned_away(&self, refusals: &Family<Refused>) -> Option<Refused> {
        self.last.inspect(|refused| refusals.of(*refused).add(1))
    }
}

/// Why nobody could be let in to a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Its rule does not ask for guests.
    #[error(
        "the tunnel {0} is open to everybody whom its rule allows: set guests_only = true in a \
         [[tunnel]] table of its name"
    )]
    Open(TunnelName),
    /// It has no table of its own and is not live.
    #[error("no tunnel {0} is live, and no [[tunnel]] table has its name")]
    NotLive(TunnelName),
    /// Too many addresses are let in.
    #[error("the tunnel has {MAX_GUESTS} guests already")]
    TooMany,
}

/// The rules of all tunnels.
#[derive(Debug)]
pub(crate) struct Rules {
    named: HashMap<TunnelName, Arc<Rule>>,
    /// For every other name, each on its own.
    others: Option<RuleSpec>,
    made: Mutex<HashMap<TunnelName, Weak<Rule>>>,
    /// Those of them that have guests, until the last one's time is over.
    with_guests: Mutex<HashMap<TunnelName, (Arc<Rule>, Instant)>>,
    agents: HashMap<PublicKey, AgentRule>,
}

impl Rules {
    pub(crate) fn new(
        named: impl IntoIterator<Item = (TunnelName, RuleSpec)>,
        others: Option<RuleSpec>,
        agents: Vec<AgentSpec>,
        at: Instant,
    ) -> Self {
        let agent = |spec: AgentSpec| {
            let rule = AgentRule {
                ports: spec.ports,
                udp_ports: spec.udp_ports,
                max_tunnels: spec.max_tunnels,
                forward: spec.forward,
                rule: Arc::new(Rule::new(spec.rule, at)),
            };
            (spec.key, rule)
        };
        let named = named.into_iter();
        Self {
            named: named
                .map(|(name, spec)| (name, Arc::new(Rule::new(spec, at))))
                .collect(),
            others,
            made: Mutex::default(),
            with_guests: Mutex::default(),
            agents: agents.into_iter().map(agent).collect(),
        }
    }

    /// What the owner says about an agent.
    pub(crate) fn agent(&self, key: &PublicKey) -> Option<&AgentRule> {
        self.agents.get(key)
    }

    /// The rule by which a tunnel takes guests only.
    fn for_guests(&self, name: &TunnelName) -> Result<Arc<Rule>, GuestError> {
        let live = || {
            let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            made.get(name).and_then(Weak::upgrade)
        };
        let rule = self.named.get(name).cloned().or_else(live);
        match rule {
            Some(rule) if rule.spec.guests_only => Ok(rule),
            Some(_) => Err(GuestError::Open(name.clone())),
            None if self.others.is_some() => Err(GuestError::NotLive(name.clone())),
            None => Err(GuestError::Open(name.clone())),
        }
    }

    /// Lets an address in to a tunnel for so long.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub(crate) fn let_in(
        &self,
        name: &TunnelName,
        ip: IpAddr,
        time: Duration,
        at: Instant,
    ) -> Result<(), GuestError> {
        let rule = self.for_guests(name)?;
        if !rule.let_in(ip, time, at) {
            return Err(GuestError::TooMany);
        }
        // A link that is lost for a moment must not cost a guest its place.
        let kept = self.with_guests.lock();
        let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (_, until)| *until > at);
        let until = at.checked_add(time).unwrap_or(at);
        let entry = kept.entry(name.clone()).or_insert((rule, until));
        entry.1 = entry.1.max(until);
        Ok(())
    }

    /// Takes that back; false when the address was not let in.
    ///
    /// # Errors
    /// See [`GuestError`].
    pub(crate) fn shut_out(
        &self,
        name: &TunnelName,
        ip: IpAddr,
        at: Instant,
    ) -> Result<bool, GuestError> {
        Ok(self.for_guests(name)?.shut_out(ip, at))
    }

    /// The rule of a name, the same for as long as anybody holds it.
    pub(crate) fn of(&self, name: &TunnelName, at: Instant) -> Option<Arc<Rule>> {
        if let Some(rule) = self.named.get(name) {
            return Some(Arc::clone(rule));
        }
        let spec = self.others.as_ref()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rule) = made.get(name).and_then(Weak::upgrade) {
            return Some(rule);
        }
        made.retain(|_, rule| rule.strong_count() > 0);
        let rule = Arc::new(Rule::new(spec.clone(), at));
        made.insert(name.clone(), Arc::downgrade(&rule));
        Some(rule)
    }
}
