//! What is done under the registry's lock.

use std::collections::HashSet;

use adit_link_proto::Holder;
use adit_model::{Code, LinkId, PublicKey, TunnelId, TunnelName};
use adit_wire::{Message, OpenTunnel, TunnelState, TunnelStatus};

use super::{Inner, LinkEntry, TunnelRefusal};
use crate::backend::BackendId;

impl Inner {
    /// Whether the link may open this tunnel, as far as the name's lease does
    /// not decide it.
    pub(super) fn check(&self, id: LinkId, open: &OpenTunnel) -> Result<&LinkEntry, TunnelRefusal> {
        let entry = self.links.get(&id).ok_or(TunnelRefusal::NoLink)?;
        if entry.tunnels.len() >= self.rules.max_tunnels {
            return Err(TunnelRefusal::TooMany);
        }
        let identity = entry.link.facts().identity;
        if let Some(agent) = self.rules.rules.agent(&identity)
            && agent.max_tunnels > 0
            && self.names_beside(&identity, &open.name) >= agent.max_tunnels
        {
            return Err(TunnelRefusal::AgentFull(agent.max_tunnels));
        }
        if entry.tunnels.contains_key(&open.tunnel) {
            return Err(TunnelRefusal::NumberInUse);
        }
        // A lease holds a name once for each link.
        let pool = self.pools.get(&open.name);
        if pool.is_some_and(|pool| pool.has(id)) {
            return Err(TunnelRefusal::NameInUse);
        }
        // Other owners learn nothing but that the name is taken.
        let own = self.leases.owner(&open.name) == Some(entry.owner);
        if own && pool.is_some_and(|pool| pool.kind != open.kind) {
            return Err(TunnelRefusal::OtherKind);
        }
        Ok(entry)
    }

    /// Names of an identity beside one that it may be taking over.
    fn names_beside(&self, identity: &PublicKey, name: &TunnelName) -> usize {
        let own = |entry: &&LinkEntry| entry.link.facts().identity == *identity;
        let entries = self.links.values().filter(own);
        let held = entries.flat_map(|entry| entry.tunnels.values().map(|(held, _)| held));
        held.filter(|held| *held != name)
            .collect::<HashSet<_>>()
            .len()
    }

    /// Whether another agent may stand behind the name.
    pub(super) fn has_room(
        &self,
        holder: &Holder,
        name: &TunnelName,
        most: u32,
    ) -> Result<(), TunnelRefusal> {
        let others: HashSet<_> = self
            .leases
            .holders(name)
            .map(|(other, _)| other.identity)
            .filter(|identity| *identity != holder.identity)
            .collect();
        if most > 0 && others.len() >= most as usize {
            return Err(TunnelRefusal::TooManyAgents(most));
        }
        Ok(())
    }

    pub(super) fn remove_backend(&mut self, name: &TunnelName, backend: BackendId) {
        if let Some(pool) = self.pools.get_mut(name) {
            for gone in pool.backends.iter().filter(|held| held.id() == backend) {
                gone.close();
            }
            pool.backends.retain(|held| held.id() != backend);
            if pool.backends.is_empty() {
                self.pools.remove(name);
            }
        }
    }

    /// A newer link has taken the name: the older one loses it and is told; when
    /// it holds nothing else, not to dial again.
    pub(super) fn fence(&mut self, link: LinkId, name: &TunnelName) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        let lost: Vec<_> = entry
            .tunnels
            .iter()
            .filter(|(_, (held, _))| held == name)
            .map(|(id, (_, backend))| (*id, *backend))
            .collect();
        for (tunnel, _) in &lost {
            entry.tunnels.remove(tunnel);
        }
        if entry.tunnels.is_empty() {
            entry.link.send(Message::Superseded);
        } else {
            for (tunnel, _) in &lost {
                entry.link.send(taken_over(*tunnel));
            }
        }
        for (_, backend) in lost {
            self.remove_backend(name, backend);
        }
    }
}

/// Trouble and not an end: an agent asks for a closed tunnel again, and two
/// processes would take the name from each other without end.
fn taken_over(tunnel: TunnelId) -> Message {
    Message::TunnelStatus(TunnelStatus {
        tunnel,
        state: TunnelState::Trouble,
        url: None,
        code: Code::SUPERSEDED.number,
        text: Code::SUPERSEDED.title.to_owned(),
    })
}
