//! From a place where an edge may be to connections with it, by any carrier.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_link_proto::{Knock, PskKeys, SecretId};
use adit_model::Carrier;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::agent::{DialConfig, unix_now};
use crate::carrier::Socket;
use crate::entropy::random;
use crate::eyeballs;
use crate::proxy::Proxy;
use crate::quic;
use crate::socket::prepare;
use crate::tasks::Tasks;
use crate::websocket;

/// How long one address may take to answer.
pub const CONNECT_TIME: Duration = Duration::from_secs(5);
/// The worker that has what goes over QUIC.
const QUIC_WORKER: usize = 0;

/// A place where an edge may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spot {
    /// How.
    pub carrier: Carrier,
    /// `host:port`.
    pub address: String,
    /// The way out of this network, for carriers over TCP.
    pub proxy: Option<Proxy>,
}

impl std::fmt::Display for Spot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.carrier {
            Carrier::Tcp => write!(f, "{}", self.address)?,
            carrier => write!(f, "{} ({carrier})", self.address)?,
        }
        match &self.proxy {
            Some(proxy) => write!(f, " through {proxy}"),
            None => Ok(()),
        }
    }
}

/// The way that a link took; its data channels take the same.
pub(crate) enum Path {
    Stream {
        peer: SocketAddr,
        spot: Spot,
        tls: Arc<rustls::ClientConfig>,
    },
    Quic(quic::Dialled),
}

impl Path {
    /// Connects to `spot`, resolved to `peer` unless a proxy resolves it.
    pub(crate) async fn find(
        config: &DialConfig,
        spot: &Spot,
        peer: SocketAddr,
    ) -> io::Result<Self> {
        if spot.carrier != Carrier::Quic {
            return Ok(Self::Stream {
                peer,
                spot: spot.clone(),
                tls: Arc::clone(&config.tls),
            });
        }
        let keys = PskKeys::new(&config.psk);
        let knock = Knock::make(&keys, &config.edge, unix_now(), random()?);
        let host = spot
            .address
            .rsplit_once(':')
            .map_or("localhost", |(host, _)| host);
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let (name, config) = (name.to_owned(), config.clone());
        let at = config.workers.get(QUIC_WORKER).cloned();
        let tasks = config.tasks.clone();
        let connect = async move {
            let ground = (&config.tasks, Arc::clone(&config.counters));
            quic::Dialled::connect(peer, &name, knock, &config.tls, ground).await
        };
        let connect = in_time(Box::pin(connect));
        let connected = match at {
            None => connect.await,
            Some(worker) => on(&worker, &tasks, connect).await,
        };
        connected.map(Self::Quic)
    }

    /// The worker on which alone its streams are to be served, if there is one:
    /// the bytes of all streams come from one socket, and to wake another
    /// thread for each datagram costs more than to carry it.
    pub(crate) fn worker(&self) -> Option<usize> {
        matches!(self, Self::Quic(_)).then_some(QUIC_WORKER)
    }

    /// One more connection with the edge; `id` is what its first bytes name.
    pub(crate) async fn open(&self, id: SecretId) -> io::Result<Socket> {
        self.open_on(None, id).await
    }

    /// As [`Path::open`], over a TCP connection that is there already.
    pub(crate) async fn open_on(
        &self,
        connected: Option<TcpStream>,
        id: SecretId,
    ) -> io::Result<Socket> {
        let (peer, spot, tls) = match self {
            Self::Quic(dialled) => return dialled.open().await,
            Self::Stream { peer, spot, tls } => (*peer, spot, tls),
        };
        let socket = match (connected, &spot.proxy) {
            (Some(connected), _) => connected,
            (None, None) => in_time(eyeballs::connect(peer)).await?,
            (None, Some(proxy)) => in_time(Box::pin(proxy.connect(&spot.address))).await?,
        };
        prepare(&socket)?;
        if spot.carrier == Carrier::Tcp {
            return Ok(socket.into());
        }
        let tls = TlsConnector::from(Arc::clone(tls));
        // Boxed, so that the common carrier does not pay for it.
        in_time(Box::pin(websocket::ask(socket, &tls, &spot.address, id))).await
    }
}

/// Runs on a worker. What it spawns and the sockets that it opens stay there.
async fn on<T: Send + 'static>(
    worker: &Handle,
    tasks: &Tasks,
    work: impl Future<Output = io::Result<T>> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = oneshot::channel();
    tasks.spawn_on(worker, async move {
        let mut done = done;
        let result = tokio::select! {
            result = work => result,
            () = done.closed() => return,
        };
        // Nobody wants it any more.
        drop(done.send(result));
    });
    result
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(CONNECT_TIME, work)
        .await
        .unwrap_or_else(|_| {
            Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "no answer within 5 s",
            ))
        })
}
