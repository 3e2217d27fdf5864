//! Who holds which name.
//!
//! A name belongs to an owner for as long as somebody of that owner holds it,
//! and for a grace time after. A holder is one process of one identity. Each
//! claim gets a generation, higher than all before; what a fenced link still
//! says about the name carries an older one and counts no more.
//!
//! Rules, in this order:
//! 1. A name that another owner holds, or held within the grace time, is
//!    refused.
//! 2. The same process (identity and instance) takes its own name over at
//!    once; its older link is fenced.
//! 3. Any other live holder shares, unless it or the newcomer is exclusive: then
//!    the newest process of one identity has the name, and other identities are
//!    refused.
//! 4. An exclusive name in its grace time waits for its identity.
//!
//! Invariants: all holders of a name have one owner; an exclusive holder is
//! alone; one link holds a name once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use adit_model::{InstanceId, LinkId, PublicKey, TunnelName};

/// Who admitted an agent: agents of one owner may share a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// Whoever knows the edge's shared secret.
    Shared,
    /// An account, by its number.
    Account(u64),
}

/// One process of one identity, on its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Its link.
    pub link: LinkId,
    /// Its identity.
    pub identity: PublicKey,
    /// Which process of it.
    pub instance: InstanceId,
    /// Who admitted it.
    pub owner: Owner,
}

impl Holder {
    fn same_process(&self, other: &Self) -> bool {
        self.identity == other.identity && self.instance == other.instance
    }
}

/// A granted claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lease's generation.
    pub generation: u64,
    /// Links that lost the name to this claim.
    pub fenced: Vec<LinkId>,
}

/// Why a claim was refused. What the agent is told is the same for
/// [`ClaimRefused::OtherOwner`] as for any other refusal of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefused {
    /// Another owner holds the name.
    #[error("the name belongs to another owner")]
    OtherOwner,
    /// The name is held, and one of both sides wants it alone.
    #[error("the name is held exclusively")]
    Exclusive,
    /// The edge has no room for more names, or the name for more holders.
    #[error("too many names or holders")]
    TooMany,
}

/// The books' limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLimits {
    /// How long a name waits for its owner.
    pub grace: Duration,
    /// Most names, waiting ones included.
    pub names: usize,
    /// Most holders of one name.
    pub holders: usize,
}

impl Default for LeaseLimits {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(60),
            names: 100_000,
            holders: 1024,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Held {
    holder: Holder,
    generation: u64,
    exclusive: bool,
}

#[derive(Debug)]
enum Lease {
    Live(Vec<Held>),
    /// Nobody holds it until then, but it is kept.
    Waiting {
        owner: Owner,
        /// The identity for which an exclusive name is kept.
        only: Option<PublicKey>,
        until: Instant,
    },
}

/// The edge's leases.
#[derive(Debug)]
pub struct Leases {
    limits: LeaseLimits,
    names: HashMap<TunnelName, Lease>,
    by_link: HashMap<LinkId, HashSet<TunnelName>>,
    waiting: BTreeMap<Instant, Vec<TunnelName>>,
    generation: u64,
}

impl Leases {
    /// Empty books.
    #[must_use]
    pub fn new(limits: LeaseLimits) -> Self {
        Self {
            limits,
            names: HashMap::new(),
            by_link: HashMap::new(),
            waiting: BTreeMap::new(),
            generation: 0,
        }
    }

    /// Claims `name` for `holder`.
    ///
    /// # Errors
    /// See [`ClaimRefused`]; nothing has changed then.
    pub fn claim(
        &mut self,
        name: &TunnelName,
        holder: Holder,
        exclusive: bool,
        now: Instant,
    ) -> Result<Claim, ClaimRefused> {
        self.expire(now);
        let full = self.names.len() >= self.limits.names;
        let fenced = match self.names.get(name) {
            None if full => return Err(ClaimRefused::TooMany),
            None => Vec::new(),
            Some(Lease::Waiting { owner, only, .. }) => {
                if *owner != holder.owner {
                    return Err(ClaimRefused::OtherOwner);
                }
                if only.is_some_and(|identity| identity != holder.identity) {
                    return Err(ClaimRefused::Exclusive);
                }
                Vec::new()
            }
            Some(Lease::Live(held)) => judge(held, &holder, exclusive, self.limits.holders)?,
        };
        self.generation += 1;
        let generation = self.generation;
        let mut live = match self.names.remove(name) {
            Some(Lease::Live(live)) => live,
            _ => Vec::new(),
        };
        live.retain(|old| {
            let ends = old.holder.same_process(&holder) || fenced.contains(&old.holder.link);
            if ends {
                forget_link(&mut self.by_link, old.holder.link, name);
            }
            !ends
        });
        live.push(Held {
            holder,
            generation,
            exclusive,
        });
        self.names.insert(name.clone(), Lease::Live(live));
        let names = self.by_link.entry(holder.link).or_default();
        names.insert(name.clone());
        Ok(Claim { generation, fenced })
    }

    /// A link is gone: its names wait for their owner. Gives the names that
    /// it held.
    pub fn release(&mut self, link: LinkId, now: Instant) -> Vec<TunnelName> {
        self.expire(now);
        let names = self.by_link.remove(&link).unwrap_or_default();
        for name in &names {
            self.remove(link, name, Some(now + self.limits.grace));
        }
        names.into_iter().collect()
    }

    /// A link gives one name up on purpose: it is free at once. False when
    /// the link does not hold it.
    pub fn close(&mut self, link: LinkId, name: &TunnelName, now: Instant) -> bool {
        self.expire(now);
        let held = self
            .by_link
            .get(&link)
            .is_some_and(|names| names.contains(name));
        if held {
            forget_link(&mut self.by_link, link, name);
            self.remove(link, name, None);
        }
        held
    }

    /// Takes `link` off the holders of `name`; the last one leaves the name
    /// waiting until `until`, or free.
    fn remove(&mut self, link: LinkId, name: &TunnelName, until: Option<Instant>) {
        let Some(Lease::Live(live)) = self.names.get_mut(name) else {
            return;
        };
        let Some(at) = live.iter().position(|held| held.holder.link == link) else {
            return;
        };
        let gone = live.remove(at);
        if !live.is_empty() {
            return;
        }
        match until {
            None => {
                self.names.remove(name);
            }
            Some(until) => {
                let lease = Lease::Waiting {
                    owner: gone.holder.owner,
                    only: gone.exclusive.then_some(gone.holder.identity),
                    until,
                };
                self.names.insert(name.clone(), lease);
                self.waiting.entry(until).or_default().push(name.clone());
            }
        }
    }

    /// Frees names whose grace time is over.
    pub fn expire(&mut self, now: Instant) {
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > now {
                break;
            }
            let (at, names) = first.remove_entry();
            for name in names {
                let over = matches!(self.names.get(&name), Some(Lease::Waiting { until, .. }) if *until == at);
                if over {
                    self.names.remove(&name);
                }
            }
        }
    }

    /// The live holders of a name with their generations, oldest first.
    pub fn holders(&self, name: &TunnelName) -> impl Iterator<Item = (Holder, u64)> + '_ {
        let live = match self.names.get(name) {
            Some(Lease::Live(live)) => live.as_slice(),
            _ => &[],
        };
        live.iter().map(|held| (held.holder, held.generation))
    }

    /// Whether `link` holds `name` under `generation` now.
    #[must_use]
    pub fn is_current(&self, name: &TunnelName, link: LinkId, generation: u64) -> bool {
        self.holders(name)
            .any(|(holder, held)| holder.link == link && held == generation)
    }

    /// Whose the name is.
    #[must_use]
    pub fn owner(&self, name: &TunnelName) -> Option<Owner> {
        match self.names.get(name)? {
            Lease::Live(live) => live.first().map(|held| held.holder.owner),
            Lease::Waiting { owner, .. } => Some(*owner),
        }
    }

    /// Whether the name is held or kept for its owner.
    #[must_use]
    pub fn is_taken(&self, name: &TunnelName) -> bool {
        self.names.contains_key(name)
    }

    /// Names held or kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no name is held or kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

/// Judges a claim of a held name; gives the links to fence.
fn judge(
    held: &[Held],
    holder: &Holder,
    exclusive: bool,
    max: usize,
) -> Result<Vec<LinkId>, ClaimRefused> {
    if held.iter().any(|h| h.holder.owner != holder.owner) {
        return Err(ClaimRefused::OtherOwner);
    }
    let (own, others): (Vec<&Held>, Vec<&Held>) =
        held.iter().partition(|h| h.holder.same_process(holder));
    let alone = exclusive || others.iter().any(|h| h.exclusive);
    let of_others = |h: &&Held| h.holder.identity != holder.identity;
    if alone && others.iter().any(of_others) {
        return Err(ClaimRefused::Exclusive);
    }
    if !alone && others.len() >= max {
        return Err(ClaimRefused::TooMany);
    }
    let older = others.iter().filter(|_| alone);
    let fenced = own.iter().chain(older).map(|h| h.holder.link);
    Ok(fenced.filter(|link| *link != holder.link).collect())
}

fn forget_link(
    by_link: &mut HashMap<LinkId, HashSet<TunnelName>>,
    link: LinkId,
    name: &TunnelName,
) {
    if let Some(names) = by_link.get_mut(&link) {
        names.remove(name);
        if names.is_empty() {
            by_link.remove(&link);
        }
    }
}

#[cfg(test)]
mod tests;
