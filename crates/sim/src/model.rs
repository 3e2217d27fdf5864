//! The reference model of leases: a history, and what follows from it.
//!
//! The model keeps no books. It writes down who held which name from when to
//! when, and derives every answer from that list alone, so that it can share
//! no mistake of bookkeeping with the real leases.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use adit_link_proto::{ClaimRefused, Holder, Leases};
use adit_model::{LinkId, TunnelName};

#[derive(Clone, Debug)]
struct Held {
    name: TunnelName,
    holder: Holder,
    exclusive: bool,
    /// When it ended, and whether the name waits for its owner then.
    ended: Option<(Instant, bool)>,
}

/// The history of all names.
#[derive(Clone, Debug)]
pub struct LeaseModel {
    grace: Duration,
    held: Vec<Held>,
}

impl LeaseModel {
    /// An empty history.
    #[must_use]
    pub fn new(grace: Duration) -> Self {
        Self {
            grace,
            held: Vec::new(),
        }
    }

    fn live<'a>(&'a self, name: &'a TunnelName) -> impl Iterator<Item = &'a Held> {
        self.held
            .iter()
            .filter(move |h| h.name == *name && h.ended.is_none())
    }

    /// The links that hold a name.
    #[must_use]
    pub fn holders(&self, name: &TunnelName) -> BTreeSet<LinkId> {
        self.live(name).map(|h| h.holder.link).collect()
    }

    /// The last holding of a name that nobody holds now, while it waits.
    fn waiting(&self, name: &TunnelName, now: Instant) -> Option<&Held> {
        if self.live(name).next().is_some() {
            return None;
        }
        let of_name = self.held.iter().filter(|h| h.name == *name);
        let last = of_name.max_by_key(|h| h.ended.map(|(at, _)| at))?;
        let (at, waits) = last.ended?;
        (waits && now < at + self.grace).then_some(last)
    }

    /// What a claim must lead to: the links that it fences, or the refusal.
    ///
    /// # Errors
    /// The refusal.
    pub fn claim(
        &mut self,
        name: &TunnelName,
        holder: Holder,
        exclusive: bool,
        now: Instant,
    ) -> Result<BTreeSet<LinkId>, ClaimRefused> {
        let same =
            |h: &Held| (h.holder.identity, h.holder.instance) == (holder.identity, holder.instance);
        if let Some(last) = self.waiting(name, now) {
            if last.holder.owner != holder.owner {
                return Err(ClaimRefused::OtherOwner);
            }
            if last.exclusive && last.holder.identity != holder.identity {
                return Err(ClaimRefused::Exclusive);
            }
        }
        if self.live(name).any(|h| h.holder.owner != holder.owner) {
            return Err(ClaimRefused::OtherOwner);
        }
        let others: Vec<&Held> = self.live(name).filter(|h| !same(h)).collect();
        let alone = exclusive || others.iter().any(|h| h.exclusive);
        let another = |h: &&Held| h.holder.identity != holder.identity;
        if alone && others.iter().any(another) {
            return Err(ClaimRefused::Exclusive);
        }
        let mut fenced = BTreeSet::new();
        for held in &mut self.held {
            if held.name == *name && held.ended.is_none() && (alone || same(held)) {
                held.ended = Some((now, false));
                fenced.insert(held.holder.link);
            }
        }
        fenced.remove(&holder.link);
        self.held.push(Held {
            name: name.clone(),
            holder,
            exclusive,
            ended: None,
        });
        Ok(fenced)
    }

    /// A link is gone.
    pub fn release(&mut self, link: LinkId, now: Instant) {
        self.end(link, None, (now, true));
    }

    /// A link gives a name up.
    pub fn close(&mut self, link: LinkId, name: &TunnelName, now: Instant) {
        self.end(link, Some(name), (now, false));
    }

    fn end(&mut self, link: LinkId, name: Option<&TunnelName>, how: (Instant, bool)) {
        for held in &mut self.held {
            let named = name.is_none_or(|name| held.name == *name);
            if named && held.holder.link == link && held.ended.is_none() {
                held.ended = Some(how);
            }
        }
    }

    /// The edge was killed: it remembers nothing.
    pub fn forget(&mut self) {
        self.held.clear();
    }

    /// Compares the real books with the history.
    ///
    /// # Panics
    /// When they differ, or when a name's holders break its rules.
    pub fn check(&self, leases: &Leases, names: &[TunnelName], now: Instant) {
        for name in names {
            let real: Vec<Holder> = leases.holders(name).map(|(holder, _)| holder).collect();
            let links: BTreeSet<LinkId> = real.iter().map(|h| h.link).collect();
            assert_eq!(links, self.holders(name), "holders of {name}");
            assert_eq!(links.len(), real.len(), "a link holds {name} twice");
            let kept = !real.is_empty() || self.waiting(name, now).is_some();
            // The real books drop a name that has waited long enough lazily.
            assert!(!kept || leases.is_taken(name), "{name} is not kept");
            let processes: BTreeSet<_> = real.iter().map(|h| (h.identity, h.instance.0)).collect();
            assert_eq!(processes.len(), real.len(), "a process holds {name} twice");
            let owners: BTreeSet<_> = real.iter().map(|h| h.owner).collect();
            assert!(owners.len() <= 1, "{name} has several owners");
            let alone = self.live(name).any(|h| h.exclusive);
            assert!(!alone || real.len() == 1, "{name} is not held alone");
            let generations: Vec<u64> = leases.holders(name).map(|(_, g)| g).collect();
            assert!(generations.is_sorted(), "generations of {name} go back");
        }
    }
}
