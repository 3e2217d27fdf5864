//! The agent's side of a link: dial, prove, keep channels ready.
//!
//! The control channel runs in one task. Data channels are dialled when the
//! edge asks, spread over the workers; each is one task that waits for a
//! stream, hands it to the [`StreamHandler`], and waits again.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_link_proto::{
    AgentEvent, AgentFresh, AgentHandshake, ControlEvent, HandshakeError, PskKeys, Session,
};
use adit_model::{Identity, InstanceId, Pin as LinkPin, Psk, PublicKey};
use adit_wire::{AuthOk, Drain, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::accept::{HandshakeFailure, next_event, send_all};
use crate::carrier::Socket;
use crate::channel::{Channel, Incoming};
use crate::control::{ControlEnd, Outbox, run_control};
use crate::counters::Counters;
use crate::dialer::Dialer;
use crate::entropy::random;
use crate::path::Path;
use crate::race::Turn;
use crate::socket::suites;
use crate::tasks::Tasks;

/// How long the edge may take for one step of the handshake. Silence is its
/// answer to a wrong secret; it closes within 15 s.
const STEP_TIME: Duration = Duration::from_secs(10);
/// Events that may wait for the agent, beside one for each of its tunnels.
const EVENTS: usize = 256;

pub use crate::path::{CONNECT_TIME, Spot};

/// A boxed future that may cross threads.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves the streams that the edge begins.
pub trait StreamHandler: Send + Sync {
    /// Serves one stream; returns its channel when the stream ended in order
    /// (see [`crate::Stream::end`]).
    fn handle(&self, incoming: Incoming) -> BoxFuture<Option<Channel>>;
}

/// Asked for the PIN only when the edge wants one; `None` gives up.
pub type PinSource = Arc<dyn Fn() -> BoxFuture<Option<LinkPin>> + Send + Sync>;

/// What a dial needs.
#[derive(Clone)]
pub struct DialConfig {
    /// Where the edge may be reached, tried in this order.
    pub spots: Vec<Spot>,
    /// TLS for the carriers that wear it; it has to prove nothing.
    pub tls: Arc<rustls::ClientConfig>,
    /// The key that the edge must prove.
    pub edge: PublicKey,
    /// What admits this agent.
    pub psk: Psk,
    /// Who this agent is.
    pub identity: Arc<Identity>,
    /// This process.
    pub instance: InstanceId,
    /// Where a PIN comes from, if anywhere.
    pub pin: Option<PinSource>,
    /// Tunnels that the agent is going to open: so many more messages may wait
    /// in either direction.
    pub tunnels: usize,
    /// Serves the streams.
    pub handler: Arc<dyn StreamHandler>,
    /// Owns the link's tasks.
    pub tasks: Tasks,
    /// Runtimes for data channels; empty for the current one.
    pub workers: Vec<Handle>,
    /// What the driver counts.
    pub counters: Arc<Counters>,
    /// This program's version, told to the edge.
    pub version: String,
}

/// Why no link came about.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No address could be reached.
    #[error("edge cannot be reached: {0}")]
    Unreachable(Unreached),
    /// The edge took the connection and said nothing: the secret is unknown
    /// to it, the clocks differ, or something else listens there.
    #[error("edge did not answer")]
    Silent,
    /// The edge knows the secret but admits no such agent, or not with this
    /// PIN; it never says which.
    #[error("edge refused this agent")]
    Refused,
    /// Only room is missing for this agent.
    #[error("edge has as many agents as it takes")]
    Full,
    /// The edge wants a PIN and there is none.
    #[error("edge wants its PIN")]
    PinWanted,
    /// Another edge answered than the one that is pinned.
    #[error("edge proved the key {presented}, but {expected} is pinned")]
    WrongEdge {
        /// The pinned key.
        expected: PublicKey,
        /// The key that was proved.
        presented: PublicKey,
    },
    /// The other side does not speak the link protocol, or bytes were altered.
    #[error("handshake failed: {0}")]
    Broken(String),
    /// This machine failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// No address could be reached.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct Unreached {
    /// Each address with its reason.
    pub why: String,
    /// The most that is known of any of them.
    pub way: Way,
}

/// How far a dial came that reached nobody, nearest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// The name has no address.
    Unresolved,
    /// Nothing came back, or no way leads there.
    Unanswered,
    /// The machine is there and takes no connection: the process is gone.
    Refused,
}

impl Way {
    /// What an error of a connect says.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Self::Refused,
            _ => Self::Unanswered,
        }
    }
}

/// What happens on a live link.
#[derive(Debug)]
pub enum LinkEvent {
    /// The edge says something that the driver does not handle itself.
    Message(Message),
    /// A measured round trip.
    Rtt(Duration),
    /// The edge is going away and says until when.
    Drain(Drain),
    /// A newer agent has taken this one's place; it must not dial again.
    Superseded,
    /// The link is over.
    Lost(ControlEnd),
}

/// A live link, on the agent. Dropping it ends the link.
pub struct AgentLink {
    auth: AuthOk,
    peer: SocketAddr,
    spot: Spot,
    outbox: Arc<Outbox>,
    events: mpsc::Receiver<LinkEvent>,
    stop: CancellationToken,
    pub(crate) dialer: Arc<Dialer>,
}

impl AgentLink {
    /// What the edge said when it admitted this agent.
    #[must_use]
    pub fn auth(&self) -> &AuthOk {
        &self.auth
    }

    /// The address that answered.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Where and how the edge was reached.
    #[must_use]
    pub fn spot(&self) -> &Spot {
        &self.spot
    }

    /// Sends a message; false when the edge does not read.
    #[must_use]
    pub fn send(&self, message: Message) -> bool {
        self.outbox.send(message)
    }

    /// The next event; after [`LinkEvent::Lost`] there is none.
    pub async fn event(&mut self) -> LinkEvent {
        self.events
            .recv()
            .await
            .unwrap_or(LinkEvent::Lost(ControlEnd::Stopped))
    }

    /// Ends the link; open streams may go on until their own end.
    pub fn close(&self) {
        self.stop.cancel();
    }
}

impl Drop for AgentLink {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Dials the edge at `spot`, resolved to `peer` unless a proxy resolves it, and
/// proves both sides to each other; `connected` is a TCP connection that leads
/// there already.
///
/// # Errors
/// See [`DialError`].
pub async fn dial(
    config: &DialConfig,
    spot: &Spot,
    peer: SocketAddr,
    connected: Option<TcpStream>,
) -> Result<AgentLink, DialError> {
    dial_beside(config, spot, (peer, connected), &Turn::alone()).await
}

/// As [`dial`], beside others: says who this agent is when its turn comes.
///
/// # Errors
/// See [`DialError`].
pub async fn dial_beside(
    config: &DialConfig,
    spot: &Spot,
    (peer, connected): (SocketAddr, Option<TcpStream>),
    turn: &Turn,
) -> Result<AgentLink, DialError> {
    turn.begins();
    let unreached = |error: io::Error| {
        let way = Way::of(&error);
        let why = format!("{spot}: {error}");
        DialError::Unreachable(Unreached { why, way })
    };
    let path = Path::find(config, spot, peer).await.map_err(unreached)?;
    let now = unix_now();
    let id = PskKeys::new(&config.psk).id_at(now);
    let mut socket = path.open_on(connected, id).await.map_err(unreached)?;
    turn.has_connected();
    let (auth, session) = shake_hands(&mut socket, config, now, turn).await?;
    let stop = config.tasks.stopping().child_token();
    let outbox = Arc::new(Outbox::with_tunnels(config.tunnels));
    let (tell, events) = mpsc::channel(EVENTS + config.tunnels);
    let dialer = Dialer::new(config, path, session.keys, &auth, stop.clone());
    dialer.want(auth.idle_channels, 0);
    let control = Box::new(session.control);
    let of_link = Arc::clone(&dialer);
    let (task_outbox, task_stop) = (Arc::clone(&outbox), stop.clone());
    config.tasks.spawn(async move {
        let handle = |event| on_event(event, &dialer, &tell);
        let end = run_control(socket, control, &task_outbox, &task_stop, handle).await;
        task_stop.cancel();
        if end == ControlEnd::Dead {
            dialer.cut();
        }
        // The agent may have stopped listening.
        let _ = tell.try_send(LinkEvent::Lost(end));
    });
    Ok(AgentLink {
        auth,
        peer,
        spot: spot.clone(),
        outbox,
        events,
        stop,
        dialer: of_link,
    })
}

fn on_event(
    event: ControlEvent,
    dialer: &Arc<Dialer>,
    tell: &mpsc::Sender<LinkEvent>,
) -> ControlFlow<()> {
    let event = match event {
        ControlEvent::Message(Message::ChannelsWanted { idle, trunks }) => {
            dialer.want(idle, trunks);
            return ControlFlow::Continue(());
        }
        ControlEvent::Message(Message::IncomingConn { conn, .. }) => {
            dialer.dial_for(conn);
            return ControlFlow::Continue(());
        }
        ControlEvent::Message(Message::Drain(drain)) => LinkEvent::Drain(drain),
        ControlEvent::Message(Message::Superseded) => LinkEvent::Superseded,
        ControlEvent::Message(message) => LinkEvent::Message(message),
        ControlEvent::Rtt(rtt) => LinkEvent::Rtt(rtt),
        _ => return ControlFlow::Continue(()),
    };
    match tell.try_send(event) {
        // A measured round trip may be lost, nothing else.
        Ok(()) | Err(mpsc::error::TrySendError::Full(LinkEvent::Rtt(_))) => {
            ControlFlow::Continue(())
        }
        Err(_) => ControlFlow::Break(()),
    }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

async fn shake_hands(
    socket: &mut Socket,
    config: &DialConfig,
    now: u64,
    turn: &Turn,
) -> Result<(AuthOk, Session), DialError> {
    let keys = PskKeys::new(&config.psk);
    let fresh = AgentFresh {
        ephemeral: random()?,
        nonce: random()?,
    };
    let identity = Arc::clone(&config.identity);
    let mut handshake = AgentHandshake::start(
        &keys,
        config.edge,
        identity,
        config.instance,
        now,
        fresh,
        suites(),
        &config.version,
    )
    .map_err(broken)?;
    let own_proof = in_time(meet(socket, &mut handshake)).await?;
    turn.take().await;
    let said = socket.write_all(&own_proof).await;
    said.map_err(|error| DialError::Broken(error.to_string()))?;
    loop {
        match in_time(next_event(socket, &mut handshake)).await? {
            AgentEvent::Live => return handshake.finish(crate::control::now()).map_err(broken),
            AgentEvent::Refused => return Err(DialError::Refused),
            AgentEvent::Full => return Err(DialError::Full),
            AgentEvent::PinWanted => {
                let source = config.pin.as_ref().ok_or(DialError::PinWanted)?;
                let pin = source().await.ok_or(DialError::PinWanted)?;
                handshake.offer_pin(&pin).map_err(broken)?;
            }
        }
    }
}

/// Until the edge has proved who it is; what the agent is to say then.
async fn meet(
    socket: &mut Socket,
    handshake: &mut AgentHandshake,
) -> Result<Vec<u8>, HandshakeFailure> {
    send_all(socket, handshake).await?;
    loop {
        let mut bytes = [0; 1024];
        let count = socket.read(&mut bytes).await?;
        if count == 0 {
            return Err(HandshakeFailure::Closed);
        }
        handshake.handle_input(&bytes[..count])?;
        if let Some(own) = handshake.poll_transmit() {
            return Ok(own);
        }
    }
}

async fn in_time<T>(
    step: impl Future<Output = Result<T, HandshakeFailure>>,
) -> Result<T, DialError> {
    match tokio::time::timeout(STEP_TIME, step).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(HandshakeFailure::Closed)) | Err(_) => Err(DialError::Silent),
        Ok(Err(HandshakeFailure::Io(error))) => Err(DialError::Broken(error.to_string())),
        Ok(Err(HandshakeFailure::Proof(error))) => Err(broken(error)),
    }
}

fn broken(error: HandshakeError) -> DialError {
    match error {
        HandshakeError::WrongEdge {
            expected,
            presented,
        } => DialError::WrongEdge {
            expected,
            presented,
        },
        other => DialError::Broken(other.to_string()),
    }
}
