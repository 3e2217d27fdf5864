//! Serves one stream of an edge: permission, target, bytes or datagrams both
//! ways.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_link::agent::{BoxFuture, StreamHandler};
use adit_link::socket::suites;
use adit_link::{Channel, Datagrams, Duplex, Incoming, PeerStream, StreamError};
use adit_link_proto::PeerTarget;
use adit_model::{Code, Identity};
use adit_wire::{Delivered, ResetReason, Start, TunnelKind};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::connect::NotReached;
use crate::datagrams;
use crate::events::{AgentEvent, Teller, Visitor, VisitorChange};
use crate::pump::{Broken, Carried, pump, pump_answer};
use crate::random;
use crate::settings::Peers;
use crate::tunnels::{Tunnel, Tunnels};

/// The handler of one link's streams.
pub(crate) struct Forwarder {
    tunnels: Arc<Tunnels>,
    teller: Arc<Teller>,
    /// Streams of this link.
    streams: TaskTracker,
    /// Who this agent is to other agents.
    identity: Arc<Identity>,
}

impl Forwarder {
    pub(crate) fn new(
        tunnels: Arc<Tunnels>,
        teller: Arc<Teller>,
        streams: TaskTracker,
        identity: Arc<Identity>,
    ) -> Self {
        Self {
            tunnels,
            teller,
            streams,
            identity,
        }
    }

    /// What this agent allows: its own tunnels, while it is not stopping.
    fn permit(&self, start: &Start) -> Result<Arc<Tunnel>, ResetReason> {
        if self.tunnels.is_closing() {
            return Err(ResetReason::Draining);
        }
        let tunnel = self.tunnels.get(start.tunnel);
        let tunnel = tunnel.ok_or(ResetReason::NoSuchTunnel)?;
        let fits = start.idle_ms.is_some() == (tunnel.kind == TunnelKind::Udp);
        fits.then(|| Arc::clone(tunnel))
            .ok_or(ResetReason::Protocol)
    }
}

impl StreamHandler for Forwarder {
    fn handle(&self, incoming: Incoming) -> BoxFuture<Option<Channel>> {
        let permitted = self.permit(incoming.start());
        let teller = Arc::clone(&self.teller);
        let counted = self.streams.token();
        let identity = Arc::clone(&self.identity);
        Box::pin(async move {
            match permitted {
                Ok(tunnel) => match incoming.start().idle_ms {
                    None => serve(incoming, &tunnel, &teller, &identity, counted).await,
                    Some(idle) => {
                        let idle = Duration::from_millis(idle.get().into());
                        serve_flow(incoming, &tunnel, &teller, idle, counted).await
                    }
                },
                Err(reason) => {
                    incoming.refuse(reason).await;
                    None
                }
            }
        })
    }
}

async fn serve(
    incoming: Incoming,
    tunnel: &Tunnel,
    teller: &Teller,
    identity: &Arc<Identity>,
    _counted: TaskTrackerToken,
) -> Option<Channel> {
    if let Some(peers) = &tunnel.peers {
        // Boxed: who serves visitors should not hold room for it.
        return Box::pin(serve_agent(incoming, tunnel, teller, (identity, peers))).await;
    }
    let mut local = match tunnel.connector.connect(incoming.start().patience()).await {
        Ok(local) => local,
        Err(failed) => {
            report(tunnel, teller, &failed);
            incoming.refuse(failed.reason()).await;
            return None;
        }
    };
    if let Some(version) = tunnel.proxy_protocol {
        let start = incoming.start();
        let header = version.header(start.visitor, start.door);
        if let Err(error) = local.announce(&header, start.patience()).await {
            let why = format!("{}: {error}", tunnel.target);
            let code = Code::TARGET_CLOSED;
            report(tunnel, teller, &NotReached { code, why });
            incoming.refuse(ResetReason::TargetClosed).await;
            return None;
        }
    }
    let mut visit = Visit::begin(*incoming.start(), tunnel, teller);
    let mut stream = incoming.accept().ok()?;
    stream.compress(tunnel.compression);
    let (carried, channel) = pump_answer(stream, local, |up, down| visit.moved(up, down)).await;
    ended(&carried, tunnel, teller);
    visit.clean = carried.broken.is_none();
    channel
}

/// Serves another agent, once it has proved that it is one of `peers`; before
/// that nothing is connected to.
async fn serve_agent(
    incoming: Incoming,
    tunnel: &Tunnel,
    teller: &Teller,
    (identity, peers): (&Arc<Identity>, &Peers),
) -> Option<Channel> {
    let start = *incoming.start();
    let fresh = match random::peer() {
        Ok(fresh) => fresh,
        Err(error) => {
            tracing::warn!(tunnel = %tunnel.name, code = %Code::RUNTIME_FAILED, %error, "no handshake could begin");
            incoming.refuse(ResetReason::Unspecified).await;
            return None;
        }
    };
    let name = tunnel.name.clone();
    let handshake = PeerTarget::start(name, Arc::clone(identity), fresh, suites());
    let outer = incoming.accept().ok()?;
    let met = PeerStream::accept(outer, handshake, |identity| peers.admit(identity)).await;
    let (stream, agent) = match met {
        Ok(met) => met,
        Err(error) => {
            let told = start.forwarder.map(|key| key.to_string());
            let agent = told.unwrap_or_default();
            tracing::info!(tunnel = %tunnel.name, agent, %error, "an agent was not let in");
            return None;
        }
    };
    tracing::debug!(tunnel = %tunnel.name, %agent, "an agent comes in");
    let local = match tunnel.connector.connect(start.patience()).await {
        Ok(local) => local,
        Err(failed) => {
            report(tunnel, teller, &failed);
            stream.reset(failed.reason(), Delivered::None);
            return None;
        }
    };
    let mut visit = Visit::begin(start, tunnel, teller);
    let (carried, channel) = pump(stream, local, |up, down| visit.moved(up, down)).await;
    ended(&carried, tunnel, teller);
    visit.clean = carried.broken.is_none();
    channel
}

/// Tells why a stream broke off.
fn ended(carried: &Carried, tunnel: &Tunnel, teller: &Teller) {
    match &carried.broken {
        None => {}
        Some(Broken::Visitor(StreamError::Protocol)) => altered(tunnel),
        Some(Broken::Visitor(error)) => tracing::debug!(tunnel = %tunnel.name, %error, "visitor"),
        Some(Broken::Target(error)) => {
            let why = format!("{}: {}", tunnel.target, in_the_middle(error));
            let code = Code::TARGET_CLOSED;
            report(tunnel, teller, &NotReached { code, why });
        }
    }
}

/// A flow of datagrams. There is nothing to connect to: the stream is taken as
/// soon as there is a socket.
async fn serve_flow(
    incoming: Incoming,
    tunnel: &Tunnel,
    teller: &Teller,
    idle: Duration,
    _counted: TaskTrackerToken,
) -> Option<Channel> {
    let patience = incoming.start().patience();
    let addresses = match tunnel.connector.datagrams(patience).await {
        Ok(addresses) => addresses,
        Err(failed) => {
            report(tunnel, teller, &failed);
            incoming.refuse(failed.reason()).await;
            return None;
        }
    };
    let mut visit = Visit::begin(*incoming.start(), tunnel, teller);
    let link = Datagrams::of(incoming.accept().ok()?)?;
    let lost = |code, why: &str| {
        let why = format!("{}: {why}", tunnel.target);
        report(tunnel, teller, &NotReached { code, why });
    };
    let moved = |up, down| visit.moved(up, down);
    let carried = datagrams::carry(link, addresses, &tunnel.connector, idle, lost, moved);
    let (carried, channel) = carried.await;
    match &carried.broken {
        None => {}
        Some(datagrams::Broken::Visitor(StreamError::Protocol)) => altered(tunnel),
        Some(datagrams::Broken::Visitor(error)) => {
            tracing::debug!(tunnel = %tunnel.name, %error, "visitor");
        }
        Some(datagrams::Broken::Target(error)) => {
            report(tunnel, teller, &tunnel.connector.not_reached(error));
        }
    }
    if carried.too_large + carried.overrun > 0 {
        let (too_large, overrun) = (carried.too_large, carried.overrun);
        tracing::debug!(tunnel = %tunnel.name, too_large, overrun, "a flow has lost datagrams");
    }
    visit.clean = carried.broken.is_none();
    channel
}

fn altered(tunnel: &Tunnel) {
    tracing::warn!(tunnel = %tunnel.name, "a channel was ended: its bytes were altered");
}

fn in_the_middle(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            "it ended the TLS connection without saying so; what it sent may be incomplete".into()
        }
        _ => format!("it closed the connection in the middle ({error})"),
    }
}

fn report(tunnel: &Tunnel, teller: &Teller, failed: &NotReached) {
    if tunnel.is_news(failed.code) {
        tracing::debug!(tunnel = %tunnel.name, code = %failed.code, "{failed}");
        teller.tell(AgentEvent::TargetTrouble {
            tunnel: tunnel.name.clone(),
            code: failed.code,
            why: failed.why.clone(),
        });
    }
}

/// Counts one visitor and its bytes, also when its task is dropped in the
/// middle.
struct Visit<'a> {
    start: Start,
    tunnel: &'a Tunnel,
    teller: &'a Teller,
    to_target: u64,
    to_visitor: u64,
    /// Both directions have ended in order.
    clean: bool,
}

impl<'a> Visit<'a> {
    fn begin(start: Start, tunnel: &'a Tunnel, teller: &'a Teller) -> Self {
        let counts = tunnel.stream_opened();
        let visit = Self {
            start,
            tunnel,
            teller,
            to_target: 0,
            to_visitor: 0,
            clean: false,
        };
        visit.mention(VisitorChange::Opened, counts);
        visit
    }

    /// So many bytes have moved in all: a stream may last for days.
    fn moved(&mut self, to_target: u64, to_visitor: u64) {
        let more = (to_target - self.to_target, to_visitor - self.to_visitor);
        self.tunnel.moved(more.0, more.1);
        (self.to_target, self.to_visitor) = (to_target, to_visitor);
    }

    fn mention(&self, change: VisitorChange, (open, ever): (u32, u64)) {
        self.teller.visitor(Visitor {
            tunnel: self.tunnel.name.clone(),
            address: self.start.visitor,
            conn: self.start.conn,
            change,
            open,
            ever,
        });
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let change = VisitorChange::Closed {
            to_target: self.to_target,
            to_visitor: self.to_visitor,
            clean: self.clean,
        };
        self.mention(change, self.tunnel.stream_closed());
    }
}
