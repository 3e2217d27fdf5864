//! Links over QUIC (RFC 9000): one connection a link, one stream a channel.
//!
//! Each stream is a [`Socket`] like any other, so that everything above it is
//! the same: first message, sealed frames, recycling. QUIC's own TLS names
//! nobody and is trusted by nobody; the sealing inside is what counts.
//!
//! The edge's door is silent to strangers: datagrams that begin a connection
//! are dropped before the QUIC library sees them unless their connection id is
//! a [`Knock`]; later ones carry an id that this door made, in this process or
//! in one before: what comes for a connection that is over with its process is
//! answered with a stateless reset (RFC 9000 §10.3), so that its agent dials
//! again at once.
//!
//! A knock opens one connection; whoever hears one repeats it in vain. A holder
//! of a secret can make many, so until one of its streams has proved a secret a
//! connection has one stream, little room and little time,
//! and a place among the strangers that newer ones may take. It ends with its
//! streams, whatever its agent would like.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use adit_link_proto::{KNOCK_LEN, Knock, QuicDoorKeys, SeenKnocks};
use adit_model::Identity;
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionId, Endpoint, EndpointConfig, IdleTimeout,
    Runtime, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::carrier::Socket;
use crate::counters::Counters;
use crate::lane::Lanes;
use crate::tasks::Tasks;

mod asking;
mod filter;
mod ids;
mod life;
mod refusals;
mod stream;

use filter::Filter;
use ids::{Ids, Maker};
use life::{Hints, Life};
use stream::{Room, Streams};

/// A connection that heard nothing for this long is over; heartbeats come more
/// often.
const IDLE: Duration = Duration::from_secs(30);
/// What may be under way of all streams, not acknowledged.
const SEND_WINDOW: u64 = 8 * 1024 * 1024;
/// What datagrams may wait, each way.
const DATAGRAM_BUFFER: usize = 4 * 1024 * 1024;
/// What each connection says it speaks, as any web server would.
const ALPN: &[u8] = b"h3";
/// What a connection may hold, in all, that has proved nothing.
const STRANGER_WINDOW: u32 = 16 * 1024;
/// How long QUIC's own handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// When a stream has to have proved a secret: later than the first one's time.
const PROOF: Duration = Duration::from_secs(20);
/// From one stateless reset of a door to the next, whoever they are for.
const RESET_EVERY: Duration = Duration::from_millis(1);
/// How long a connection is kept after its last stream, for what is under way.
const LINGER: Duration = Duration::from_secs(5);

/// Knocks that are remembered, and of these with one id.
const KNOCKS: (usize, usize) = (65_536, 4096);

/// Connections, and their bytes, that the library keeps until they are taken.
const WAITING: (usize, u64) = (1024, 16 * 1024);

/// Why no QUIC door or connection came about.
#[derive(Debug, thiserror::Error)]
pub enum QuicError {
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The TLS library's.
    #[error("QUIC cannot be set up: {0}")]
    Tls(String),
}

fn tls(error: impl std::fmt::Display) -> QuicError {
    QuicError::Tls(error.to_string())
}

/// Says whether a knock proves a secret.
pub type Judge = Arc<dyn Fn(&Knock) -> bool + Send + Sync>;

fn transport(streams: u16, room: Room) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0u8.into())
        .stream_receive_window(room.stream.into())
        .receive_window(room.link.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok());
    transport
}

/// A certificate that names nobody, made anew at each start.
fn server_config(room: Room) -> Result<ServerConfig, QuicError> {
    let named = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(tls)?;
    let chain = vec![CertificateDer::from(named.cert.der().to_vec())];
    let key = PrivatePkcs8KeyDer::from(named.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .map_err(tls)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicServerConfig::try_from(config).map_err(tls)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = transport(1, room);
    transport.receive_window(STRANGER_WINDOW.into());
    let (connections, bytes) = WAITING;
    config
        .transport_config(Arc::new(transport))
        .max_incoming(connections)
        .incoming_buffer_size(bytes)
        .incoming_buffer_size_total(bytes * 64);
    Ok(config)
}

/// What makes an endpoint a door.
struct Doorway<'a> {
    server: ServerConfig,
    keys: QuicDoorKeys,
    hints: &'a Arc<Hints>,
}

/// An endpoint that says nothing to whom `judge` does not know: a door, or an
/// agent's.
fn silent(
    socket: UdpSocket,
    door: Option<Doorway<'_>>,
    judge: Judge,
    (tasks, counters): (&Tasks, Arc<Counters>),
) -> io::Result<(Endpoint, Arc<Filter>)> {
    socket.set_nonblocking(true)?;
    let runtime = Owned::new(tasks);
    let mut config = EndpointConfig::default();
    let (server, filter, ids) = if let Some(door) = door {
        let inner = refusals::wrap(socket, door.hints, tasks)?;
        config
            .reset_key(Arc::new(door.keys.resets))
            .min_reset_interval(RESET_EVERY);
        let ids = Arc::new(Ids::of_door(door.keys.ids)?);
        let filter = Filter::new(inner, judge, (Arc::clone(&ids), counters));
        (Some(door.server), filter, ids)
    } else {
        let inner = runtime.wrap_udp_socket(socket)?;
        let ids = Arc::new(Ids::of_agent()?);
        let filter = Filter::new(inner, judge, (Arc::clone(&ids), counters));
        (None, filter.of_agent(), ids)
    };
    let (filter, runtime) = (Arc::new(filter), Arc::new(runtime));
    config.cid_generator(move || Box::new(Maker::new(Arc::clone(&ids))));
    let socket = Arc::clone(&filter);
    let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, runtime)?;
    Ok((endpoint, filter))
}

/// A QUIC door: one bound socket, and how its streams are served.
pub struct Door {
    endpoint: Endpoint,
    /// Streams of a connection that has proved a secret.
    streams: u16,
    room: Room,
    hints: Arc<Hints>,
    counters: Arc<Counters>,
}

impl Door {
    /// Opens the door of `edge` on a bound socket, silent to whom `judge` does
    /// not know. One connection may have `channels` data channels.
    ///
    /// # Errors
    /// See [`QuicError`].
    pub fn open(
        socket: UdpSocket,
        channels: u16,
        whose: (&Identity, Judge),
        ground: (&Tasks, Arc<Counters>),
    ) -> Result<Self, QuicError> {
        Self::with(Room::default(), (socket, channels), whose, ground)
    }

    fn with(
        room: Room,
        (socket, channels): (UdpSocket, u16),
        (edge, judge): (&Identity, Judge),
        (tasks, counters): (&Tasks, Arc<Counters>),
    ) -> Result<Self, QuicError> {
        let server = server_config(room)?;
        let hints = Arc::<Hints>::default();
        let ground = (tasks, Arc::clone(&counters));
        let door = Doorway {
            server,
            keys: QuicDoorKeys::new(edge, socket.local_addr()?),
            hints: &hints,
        };
        let (endpoint, _) = silent(socket, Some(door), judge, ground)?;
        Ok(Self {
            endpoint,
            streams: channels.saturating_add(1),
            room,
            hints,
            counters,
        })
    }

    /// Takes connections until `stop`; those that are there go on until `tasks`
    /// stop. Each of their streams is given to `serve`, a connection to a task
    /// of `tasks`. A connection holds a `place` until it has proved a secret,
    /// and ends when the place does.
    pub async fn serve<P>(
        self,
        tasks: Tasks,
        stop: CancellationToken,
        place: impl Fn() -> P,
        serve: impl Fn(Socket, SocketAddr) + Clone + Send + 'static,
    ) where
        P: Future<Output = ()> + Send + 'static,
    {
        let stopping = tasks.stopping().clone();
        let (began, mut seen) = (Instant::now(), SeenKnocks::new(KNOCKS.0, KNOCKS.1));
        while let Some(Some(incoming)) = stopping.run_until_cancelled(self.endpoint.accept()).await
        {
            let first = incoming.orig_dst_cid();
            let knock = <&[u8; KNOCK_LEN]>::try_from(&first[..]).map(Knock::parse);
            let is_new = |knock| seen.use_up(knock, began.elapsed().as_secs());
            if stop.is_cancelled() {
                incoming.ignore();
                continue;
            }
            if !knock.is_ok_and(is_new) {
                incoming.ignore();
                let refused = &self.counters.knocks_refused;
                refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            let (place, serve) = (place(), serve.clone());
            let most = (self.streams, self.room);
            let ground = (Arc::clone(&self.hints), Arc::clone(&self.counters));
            tasks.spawn_until_stopped(async move {
                let connected = tokio::time::timeout(HANDSHAKE, incoming.into_future());
                tokio::pin!(place);
                let connected = tokio::select! {
                    connected = connected => connected,
                    () = &mut place => return,
                };
                if let Ok(Ok(connection)) = connected {
                    let guest = Arc::new(Guest::new(connection, most, ground));
                    guest.stay(place, serve).await;
                }
            });
        }
        self.endpoint.close(VarInt::from_u32(0), b"");
    }
}

/// A connection, on the edge.
struct Guest {
    connection: Connection,
    lanes: Arc<Lanes>,
    streams: Arc<Streams>,
    life: Life,
    most: (u16, Room),
    proved: CancellationToken,
}

impl Guest {
    fn new(
        connection: Connection,
        most: (u16, Room),
        (hints, counters): (Arc<Hints>, Arc<Counters>),
    ) -> Self {
        Self {
            life: Life::new(connection.clone(), hints),
            streams: Streams::new(connection.clone(), most.1, Arc::clone(&counters)),
            lanes: Lanes::new(connection.clone(), counters),
            connection,
            most,
            proved: CancellationToken::new(),
        }
    }

    /// Until the agent closes the connection, falls silent, is gone, has had no
    /// stream for a while, or is a stranger for too long.
    async fn stay(
        self: &Arc<Self>,
        place: impl Future<Output = ()>,
        serve: impl Fn(Socket, SocketAddr),
    ) {
        let stranger = async {
            tokio::select! {
                () = place => {}
                () = tokio::time::sleep(PROOF) => {}
            }
        };
        let outstayed = async {
            // The place is free from the proof on.
            if self.proved.run_until_cancelled(stranger).await.is_none() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.take_streams(serve) => {}
            () = self.lanes.run() => {}
            () = self.streams.keep_flowing() => {}
            () = self.life.over() => {}
            () = outstayed => {}
        }
        self.connection.close(VarInt::from_u32(0), b"");
    }

    async fn take_streams(self: &Arc<Self>, serve: impl Fn(Socket, SocketAddr)) {
        // The address that went through the handshake: a later one may be
        // anybody's until it is checked, and is to be blamed for nothing.
        let peer = self.connection.remote_address();
        let open = TaskTracker::new();
        open.close();
        loop {
            let unused = async {
                open.wait().await;
                tokio::time::sleep(LINGER).await;
            };
            let next = tokio::select! {
                next = self.connection.accept_bi() => next,
                () = unused => return,
            };
            let Ok(stream) = next else { return };
            let held = Held::Taken(Arc::clone(self), open.token());
            let lanes = Arc::clone(&self.lanes);
            serve(Socket::from(self.streams.add(stream, lanes, held)), peer);
        }
    }

    fn proved(&self) {
        if !self.proved.is_cancelled() {
            self.proved.cancel();
            let (streams, room) = self.most;
            self.connection
                .set_max_concurrent_bi_streams(streams.into());
            self.connection.set_receive_window(room.link.into());
        }
    }
}

/// An agent's connection to a QUIC door.
#[derive(Clone)]
pub(crate) struct Dialled {
    connection: Connection,
    lanes: Arc<Lanes>,
    streams: Arc<Streams>,
    held: Arc<DropGuard>,
}

impl Dialled {
    /// Connects to the door at `peer`.
    pub(crate) async fn connect(
        peer: SocketAddr,
        name: &str,
        knock: Knock,
        config: &rustls::ClientConfig,
        (tasks, counters): (&Tasks, Arc<Counters>),
    ) -> io::Result<Self> {
        let any: SocketAddr = if peer.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let (socket, room) = (UdpSocket::bind(any)?, Room::default());
        // Nobody begins a connection with an agent.
        let nobody: Judge = Arc::new(|_| false);
        let ground = (tasks, Arc::clone(&counters));
        let (endpoint, filter) = silent(socket, None, nobody, ground)?;
        let config = client_config(config, knock, room)?;
        let connecting = endpoint.connect_with(config, peer, name);
        let connecting = connecting.map_err(io::Error::other)?;
        let connection = tokio::select! {
            connected = connecting => connected?,
            error = asking::refused(any, peer) => return Err(error),
        };
        let unused = CancellationToken::new();
        let held = Arc::new(unused.clone().drop_guard());
        let streams = Streams::new(connection.clone(), room, Arc::clone(&counters));
        let lanes = Lanes::new(connection.clone(), counters);
        let (kept, read, all) = (connection.clone(), Arc::clone(&lanes), Arc::clone(&streams));
        tasks.spawn_until_stopped(async move {
            tokio::select! {
                () = read.run() => {}
                () = all.keep_flowing() => {}
                () = asking::keep_asking(&filter) => {}
                () = async {
                    unused.cancelled().await;
                    tokio::time::sleep(LINGER).await;
                } => kept.close(VarInt::from_u32(0), b""),
            }
            endpoint.wait_idle().await;
        });
        Ok(Self {
            connection,
            lanes,
            streams,
            held,
        })
    }

    /// A new stream to the door.
    pub(crate) async fn open(&self) -> io::Result<Socket> {
        let stream = self.connection.open_bi().await?;
        let held = Held::Dialled(Arc::clone(&self.held));
        let lanes = Arc::clone(&self.lanes);
        Ok(Socket::from(self.streams.add(stream, lanes, held)))
    }
}

/// How an agent knocks.
fn client_config(
    config: &rustls::ClientConfig,
    knock: Knock,
    room: Room,
) -> io::Result<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let crypto = QuicClientConfig::try_from(config).map_err(io::Error::other)?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(0, room)));
    config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(knock.bytes())));
    Ok(config)
}

/// How a stream holds its connection, which outlives its streams by [`LINGER`].
enum Held {
    Dialled(#[expect(dead_code, reason = "held")] Arc<DropGuard>),
    Taken(
        Arc<Guest>,
        #[expect(dead_code, reason = "held")] TaskTrackerToken,
    ),
}

/// Tokio's runtime, with an owner for what is spawned.
#[derive(Debug)]
struct Owned(Tasks);

impl Owned {
    fn new(tasks: &Tasks) -> Self {
        Self(tasks.clone())
    }
}

impl Runtime for Owned {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.0.spawn(task);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> std::time::Instant {
        TokioRuntime.now()
    }
}

#[cfg(test)]
mod tests;
