//! The UDP door: datagrams of public ports to tunnels and back.
//!
//! UDP has no connections; what one visitor's address and port say to one of
//! ours is a **flow**, and counts as a connection wherever one is counted.
//! Each port has a socket on each worker with a reader and a table of its own
//! flows; each flow is a task of that worker with a stream of its own over the
//! link. The first datagram of a flow begins it, and it ends when nothing came
//! for a while, when its agent or target goes, or with the port.
//!
//! Invariants: whoever has no room drops a datagram and counts it, nobody
//! waits with what is not bounded; what goes to an address answers what came
//! from it, nothing is made here; a datagram proves nothing about its sender,
//! so none bans anybody.

mod census;
mod flow;
mod inbox;
mod port;
mod socket;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use adit_link::tasks::Tasks;
use adit_model::TunnelName;
use adit_wire::TunnelKind;
use tokio::time::Instant;

pub(crate) use self::census::{Census, FlowLimits};
pub(crate) use self::port::{Opened, serve};
pub(crate) use self::socket::bind;
use crate::access::AccessLog;
use crate::limits::Limits;
use crate::metrics::{Metrics, UdpDrop};
use crate::registry::Registry;
use crate::rules::{Rules, Visit, enter};
use crate::seldom::Seldom;

/// When a flow is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IdleTimes {
    /// Without a datagram for so long.
    pub(crate) usual: Duration,
    /// The same for a visitor that has said one thing and was answered: most
    /// are done then (a DNS question say), and a flow costs a channel.
    pub(crate) answered: Duration,
}

impl IdleTimes {
    /// The usual time as the agent is told of it.
    fn told(&self) -> NonZeroU32 {
        let millis = u32::try_from(self.usual.as_millis()).unwrap_or(u32::MAX);
        NonZeroU32::new(millis).unwrap_or(NonZeroU32::MIN)
    }
}

/// What all UDP ports share.
pub(crate) struct UdpDoor {
    pub(crate) registry: Arc<Registry>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) census: Arc<Census>,
    pub(crate) idle: IdleTimes,
    /// Where each flow leaves a line.
    pub(crate) log: Option<Arc<AccessLog>>,
    /// Holds back lines about visitors that were turned away.
    pub(crate) seldom: Seldom,
    /// Owner of flows, and of channels on their way home.
    pub(crate) tasks: Tasks,
}

impl UdpDoor {
    /// Whether a visitor may begin a flow; the reason is counted.
    fn admit(
        &self,
        name: &TunnelName,
        from: SocketAddr,
        port: std::num::NonZeroU16,
    ) -> Result<(census::Place, Option<Visit>), UdpDrop> {
        let (ip, now) = (from.ip().to_canonical(), Instant::now().into_std());
        if self.limits.banned(ip, now).is_some() {
            return Err(UdpDrop::Banned);
        }
        // A rule is made for names that are there.
        if !self.registry.keeps(name, TunnelKind::Udp) {
            return Err(UdpDrop::NoBackend);
        }
        let place = self.census.enter(port, ip).ok_or(UdpDrop::Flows)?;
        let (rule, refusals) = (self.rules.of(name, now), &self.metrics.limits.by_rule);
        let visit = enter(rule.as_ref(), ip, refusals).map_err(|_| UdpDrop::Rule)?;
        Ok((place, visit))
    }

    fn dropped(&self, why: UdpDrop, count: usize) {
        self.metrics.udp.drops.of(why).add(count as u64);
    }
}
