//! Links over QUIC (RFC 9000): one connection a link, one stream a channel.
//!
//! Each stream is a [`Socket`] like any other, so that everything above it is
//! the same: first message, sealed frames, recycling. QUIC's own TLS names
//! nobody and is trusted by nobody; the sealing inside is what counts.
//!
//! The edge's door is silent to strangers: datagrams that begin a connection
//! are dropped before the QUIC library sees them unless their connection id is
//! a [`Knock`]; later ones carry an id that this door made.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_link_proto::{KNOCK_LEN, Knock};
use adit_model::Carrier;
use quinn::congestion::BbrConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::udp::{RecvMeta, Transmit};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, ConnectionId, Endpoint, EndpointConfig, IdleTimeout,
    RecvStream, Runtime, SendStream, ServerConfig, TokioRuntime, TransportConfig, UdpPoller,
    VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::carrier::{Socket, Wire};
use crate::entropy::random;
use crate::tasks::Tasks;

/// A connection that heard nothing for this long is over; heartbeats come more
/// often.
const IDLE: Duration = Duration::from_secs(30);
/// What one stream may hold that its reader has not taken.
const STREAM_WINDOW: u32 = 1024 * 1024;
/// What datagrams may wait, each way.
const DATAGRAM_BUFFER: usize = 4 * 1024 * 1024;
/// What each connection says it speaks, as any web server would.
const ALPN: &[u8] = b"h3";
/// When a connection's first stream has to begin.
const FIRST_STREAM: Duration = Duration::from_secs(10);
/// How long a connection is kept after its last stream, for what is under way.
const LINGER: Duration = Duration::from_secs(5);

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

fn transport(streams: u16) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(0u8.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_BUFFER)
        .congestion_controller_factory(Arc::new(BbrConfig::default()))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok());
    transport
}

/// A certificate that names nobody, made anew at each start.
fn server_config(channels: u16) -> Result<ServerConfig, QuicError> {
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
    config.transport_config(Arc::new(transport(channels.saturating_add(1))));
    Ok(config)
}

/// A QUIC door: one bound socket, and how its streams are served.
pub struct Door {
    endpoint: Endpoint,
}

impl Door {
    /// Opens the door on a bound socket, silent to whom `judge` does not know.
    /// One connection may have `channels` data channels.
    ///
    /// # Errors
    /// See [`QuicError`].
    pub fn open(
        socket: UdpSocket,
        channels: u16,
        judge: Judge,
        tasks: &Tasks,
    ) -> Result<Self, QuicError> {
        socket.set_nonblocking(true)?;
        let seed = u64::from_be_bytes(random()?);
        let runtime = Owned::new(tasks);
        let inner = runtime.wrap_udp_socket(socket)?;
        let ids = move || -> Box<dyn quinn::ConnectionIdGenerator> {
            Box::new(HashedConnectionIdGenerator::from_key(seed))
        };
        let filter = Filter {
            inner,
            judge,
            ids: ids(),
        };
        let mut config = EndpointConfig::default();
        config.cid_generator(ids);
        let server = server_config(channels)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            config,
            Some(server),
            Arc::new(filter),
            Arc::new(runtime),
        )?;
        Ok(Self { endpoint })
    }

    /// Takes connections until `stop`; each of their streams is given to
    /// `serve`, a connection to a task of `tasks`.
    pub async fn serve(
        self,
        tasks: Tasks,
        stop: CancellationToken,
        serve: impl Fn(Socket, SocketAddr) + Clone + Send + 'static,
    ) {
        while let Some(Some(incoming)) = stop.run_until_cancelled(self.endpoint.accept()).await {
            if incoming.orig_dst_cid().len() != KNOCK_LEN {
                incoming.ignore();
                continue;
            }
            let serve = serve.clone();
            tasks.spawn_until_stopped(async move {
                if let Ok(connection) = incoming.await {
                    take_streams(connection, serve).await;
                }
            });
        }
        self.endpoint.close(VarInt::from_u32(0), b"");
    }
}

/// Until the agent closes the connection or falls silent.
async fn take_streams(connection: Connection, serve: impl Fn(Socket, SocketAddr)) {
    let mut next = tokio::time::timeout(FIRST_STREAM, connection.accept_bi()).await;
    while let Ok(Ok((send, recv))) = next {
        let stream = QuicStream {
            send,
            recv,
            _held: None,
        };
        let wire: Box<dyn Wire> = Box::new(stream);
        serve(Socket::from(wire), connection.remote_address());
        next = Ok(connection.accept_bi().await);
    }
}

/// An agent's connection to a QUIC door.
#[derive(Clone)]
pub(crate) struct Dialled {
    connection: Connection,
    held: Arc<DropGuard>,
}

impl Dialled {
    /// Connects to the door at `peer`.
    pub(crate) async fn connect(
        peer: SocketAddr,
        name: &str,
        knock: Knock,
        config: &rustls::ClientConfig,
        tasks: &Tasks,
    ) -> io::Result<Self> {
        let any: SocketAddr = if peer.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let runtime = Arc::new(Owned::new(tasks));
        let socket = UdpSocket::bind(any)?;
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, runtime)?;
        let mut config = config.clone();
        config.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(config).map_err(io::Error::other)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport(0)));
        config.initial_dst_cid_provider(Arc::new(move || ConnectionId::new(knock.bytes())));
        let connecting = endpoint.connect_with(config, peer, name);
        let connecting = connecting.map_err(io::Error::other)?;
        let connection = tokio::select! {
            connected = connecting => connected?,
            error = refused(any, peer) => return Err(error),
        };
        let unused = CancellationToken::new();
        let held = Arc::new(unused.clone().drop_guard());
        let kept = connection.clone();
        tasks.spawn_until_stopped(async move {
            tokio::select! {
                _ = kept.closed() => {}
                () = async {
                    unused.cancelled().await;
                    tokio::time::sleep(LINGER).await;
                } => kept.close(VarInt::from_u32(0), b""),
            }
            endpoint.wait_idle().await;
        });
        Ok(Self { connection, held })
    }

    /// A new stream to the door.
    pub(crate) async fn open(&self) -> io::Result<Socket> {
        let (send, recv) = self.connection.open_bi().await?;
        let _held = Some(Arc::clone(&self.held));
        let wire: Box<dyn Wire> = Box::new(QuicStream { send, recv, _held });
        Ok(Socket::from(wire))
    }
}

/// Ready when `peer` says that nobody listens there: QUIC itself would go on
/// asking. A door of ours says nothing to the one byte that is sent.
async fn refused(any: SocketAddr, peer: SocketAddr) -> io::Error {
    let asked = async {
        let socket = tokio::net::UdpSocket::bind(any).await?;
        socket.connect(peer).await?;
        socket.send(&[0]).await?;
        socket.recv(&mut [0]).await
    };
    match asked.await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => error,
        _ => std::future::pending().await,
    }
}

/// One stream, both ways.
struct QuicStream {
    send: SendStream,
    recv: RecvStream,
    /// The connection outlives its streams by [`LINGER`].
    _held: Option<Arc<DropGuard>>,
}

impl Wire for QuicStream {
    fn carrier(&self) -> Carrier {
        Carrier::Quic
    }

    fn abort(&mut self) {
        // Both fail only on a stream that is over.
        let _ = self.send.reset(VarInt::from_u32(1));
        let _ = self.recv.stop(VarInt::from_u32(1));
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, into)
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
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

/// Drops what strangers send, before anything answers it.
struct Filter {
    inner: Arc<dyn AsyncUdpSocket>,
    judge: Judge,
    ids: Box<dyn quinn::ConnectionIdGenerator>,
}

impl Filter {
    /// Whether a datagram may be from an agent. Short headers name a
    /// connection by an id that the library checks (RFC 9000 §17.3).
    fn lets_in(&self, datagram: &[u8]) -> bool {
        match Beginning::of(datagram) {
            Beginning::Short => true,
            Beginning::Long(id) => match <&[u8; KNOCK_LEN]>::try_from(id) {
                Ok(knock) => (self.judge)(&Knock::parse(knock)),
                Err(_) => self.ids.validate(&ConnectionId::new(id)).is_ok(),
            },
            Beginning::Foreign => false,
        }
    }
}

/// How a QUIC datagram begins (RFC 8999 §5, RFC 9000 §17.2).
enum Beginning<'a> {
    Short,
    /// Version 1, with its destination connection id.
    Long(&'a [u8]),
    /// Another version, or not QUIC.
    Foreign,
}

impl<'a> Beginning<'a> {
    fn of(datagram: &'a [u8]) -> Self {
        match datagram {
            [first, ..] if first & 0x80 == 0 => Self::Short,
            [_, 0, 0, 0, 1, length, rest @ ..] if usize::from(*length) <= KNOCK_LEN => rest
                .get(..usize::from(*length))
                .map_or(Self::Foreign, Self::Long),
            _ => Self::Foreign,
        }
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Filter")
    }
}

impl AsyncUdpSocket for Filter {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        for (buf, meta) in bufs.iter().zip(meta.iter_mut()).take(count) {
            let received = &buf[..meta.len];
            // The system may hand over several of one sender as one.
            let mut each = received.chunks(meta.stride.max(1));
            if !each.all(|datagram| self.lets_in(datagram)) {
                meta.len = 0;
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
