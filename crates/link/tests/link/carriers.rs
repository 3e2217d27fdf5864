//! A door of an edge for each carrier, and how an agent finds it.

use std::future::pending;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use adit_link::agent::Spot;
use adit_link::quic;
use adit_link::tasks::Tasks;
use adit_link::websocket::{Base, id_of, taken};
use adit_link::{Counters, Socket};
use adit_link_proto::PskKeys;
use adit_model::{Carrier, Identity};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub(crate) enum Door {
    Tcp(TcpListener),
    Quic(quic::Door, SocketAddr),
    WebSocket(TcpListener),
}

impl Door {
    pub(crate) async fn open(carrier: Carrier, tasks: &Tasks, counters: Arc<Counters>) -> Self {
        if carrier == Carrier::Quic {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            let keys = PskKeys::new(&super::psk());
            let edge = Identity::from_seed([1; 32]).unwrap();
            let key = edge.public();
            let judge = Arc::new(move |knock: &adit_link_proto::Knock| knock.fits(&keys, &key));
            let door = quic::Door::open(socket, 4096, (&edge, judge), (tasks, counters)).unwrap();
            return Self::Quic(door, address);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        match carrier {
            Carrier::Tcp => Self::Tcp(listener),
            _ => Self::WebSocket(listener),
        }
    }

    pub(crate) fn spot(&self) -> Spot {
        let (carrier, address) = match self {
            Self::Tcp(listener) => (Carrier::Tcp, listener.local_addr().unwrap()),
            Self::Quic(_, address) => (Carrier::Quic, *address),
            Self::WebSocket(listener) => (Carrier::WebSocket, listener.local_addr().unwrap()),
        };
        Spot {
            carrier,
            address: address.to_string(),
            proxy: None,
        }
    }

    pub(crate) fn serve(
        self,
        tasks: &Tasks,
        serve: impl Fn(Socket, SocketAddr) + Clone + Send + 'static,
    ) {
        match self {
            Self::Quic(door, _) => {
                let stop = tasks.stopping().clone();
                tasks.spawn(door.serve(tasks.clone(), stop, pending, serve));
            }
            Self::Tcp(listener) => tasks.spawn_until_stopped(async move {
                loop {
                    let (socket, peer) = listener.accept().await.unwrap();
                    serve(socket.into(), peer);
                }
            }),
            Self::WebSocket(listener) => {
                let each = tasks.clone();
                let tls = TlsAcceptor::from(Arc::new(certified()));
                tasks.spawn_until_stopped(async move {
                    loop {
                        let (socket, peer) = listener.accept().await.unwrap();
                        let (tls, serve) = (tls.clone(), serve.clone());
                        each.spawn_until_stopped(async move {
                            // The agent may have given up.
                            if let Ok(socket) = upgraded(socket, &tls).await {
                                serve(socket, peer);
                            }
                        });
                    }
                });
            }
        }
    }
}

async fn upgraded(socket: TcpStream, tls: &TlsAcceptor) -> io::Result<Socket> {
    let mut socket = tls.accept(socket).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    assert!(id_of(path).is_some(), "{path}");
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let (_, key) = fields
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .unwrap();
    let accept = derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(answer.as_bytes()).await?;
    socket.flush().await?;
    Ok(taken(Served(socket), Vec::new()).await)
}

struct Served(TlsStream<TcpStream>);

impl Base for Served {
    fn abort(&mut self) {
        let socket = socket2::SockRef::from(self.0.get_ref().0);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Served {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn certified() -> ServerConfig {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .unwrap()
}
