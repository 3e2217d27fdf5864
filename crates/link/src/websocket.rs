//! Link bytes in binary WebSocket messages (RFC 6455) over TLS.
//!
//! What passes where only web pages do. A request names by its path which
//! secret or session is meant; an edge that does not know it answers as any
//! web server would. TLS is spoken but not trusted: the link's own handshake
//! inside is, so that a middlebox that opens TLS learns nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use adit_link_proto::SecretId;
use adit_model::Carrier;
use futures_util::{Sink, Stream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error as WebError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::carrier::{Socket, Wire};

/// Most bytes of one message, either way.
const MAX_MESSAGE: usize = 256 * 1024;
/// Bytes that go out in one message.
const CHUNK: usize = 64 * 1024;
/// Bytes that may wait to be sent: a message that waits, one behind it, and
/// answers to pings. A peer that pings and reads nothing gets no more of them.
const MAX_WAITING: usize = 3 * CHUNK;

/// What a WebSocket runs over.
pub trait Base: AsyncRead + AsyncWrite + Send + Sync + Unpin {
    /// See [`Wire::abort`].
    fn abort(&mut self);
}

impl Base for tokio_rustls::client::TlsStream<TcpStream> {
    fn abort(&mut self) {
        let _ =
            socket2::SockRef::from(self.get_ref().0).set_linger(Some(std::time::Duration::ZERO));
    }
}

/// The path under which an edge takes a WebSocket for `id`.
#[must_use]
pub fn path_of(id: SecretId) -> String {
    format!("/{:016x}", u64::from_be_bytes(id.0))
}

/// The id that a path names.
#[must_use]
pub fn id_of(path: &str) -> Option<SecretId> {
    let hex = path.strip_prefix('/').filter(|hex| hex.len() == 16)?;
    let is_ours = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let id = u64::from_str_radix(hex, 16).ok()?;
    hex.bytes().all(is_ours).then(|| SecretId(id.to_be_bytes()))
}

fn settings() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(CHUNK)
        .max_write_buffer_size(MAX_WAITING)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// The edge's end of a WebSocket whose upgrade was answered; `read` was
/// received behind the request.
pub async fn taken(base: impl Base + 'static, read: Vec<u8>) -> Socket {
    let config = Some(settings());
    let stream = WebSocketStream::from_partially_read(base, read, Role::Server, config).await;
    Socket::from(Box::new(Web::new(stream)) as Box<dyn Wire>)
}

/// The agent's end: TLS, then the upgrade, over a TCP connection to the door
/// at `host:port` (or to a proxy that leads there).
pub(crate) async fn ask(
    socket: TcpStream,
    tls: &TlsConnector,
    target: &str,
    id: SecretId,
) -> io::Result<Socket> {
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
    let base = tls.connect(name, socket).await?;
    let authority = target.strip_suffix(":443").unwrap_or(target);
    let request = Request::builder()
        .uri(format!("wss://{authority}{}", path_of(id)))
        .header("Host", authority)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header(
            "Sec-WebSocket-Key",
            tokio_tungstenite::tungstenite::handshake::client::generate_key(),
        )
        .body(())
        .map_err(io::Error::other)?;
    match client_async_with_config(request, base, Some(settings())).await {
        Ok((stream, _)) => Ok(Socket::from(Box::new(Web::new(stream)) as Box<dyn Wire>)),
        Err(error) => Err(to_io(error)),
    }
}

struct Web<S> {
    stream: WebSocketStream<S>,
    /// What is left of the last message.
    rest: Bytes,
    ended: bool,
}

impl<S> Web<S> {
    fn new(stream: WebSocketStream<S>) -> Self {
        Self {
            stream,
            rest: Bytes::new(),
            ended: false,
        }
    }
}

impl<S: Base> Wire for Web<S> {
    fn carrier(&self) -> Carrier {
        Carrier::WebSocket
    }

    fn abort(&mut self) {
        self.stream.get_mut().abort();
    }
}

impl<S: Base> AsyncRead for Web<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() && !self.ended {
            match ready!(Pin::new(&mut self.stream).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) | None => self.ended = true,
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Some(Err(WebError::ConnectionClosed | WebError::AlreadyClosed)) => {
                    self.ended = true;
                }
                Some(Err(error)) => return Poll::Ready(Err(to_io(error))),
            }
        }
        let count = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl<S: Base> AsyncWrite for Web<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.stream).poll_ready(cx)).map_err(to_io)?;
        let count = bytes.len().min(CHUNK);
        let message = Message::Binary(Bytes::copy_from_slice(&bytes[..count]));
        Pin::new(&mut self.stream)
            .start_send(message)
            .map_err(to_io)?;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map_err(to_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_close(cx)) {
            Ok(()) | Err(WebError::ConnectionClosed | WebError::AlreadyClosed) => {
                Poll::Ready(Ok(()))
            }
            Err(error) => Poll::Ready(Err(to_io(error))),
        }
    }
}

fn to_io(error: WebError) -> io::Error {
    match error {
        WebError::Io(error) => error,
        WebError::Http(answer) => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("WebSocket refused: {}", answer.status()),
        ),
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    impl Base for DuplexStream {
        fn abort(&mut self) {}
    }

    #[tokio::test]
    async fn pings_of_a_peer_that_reads_nothing_fill_no_memory() {
        const PINGS: usize = 10_000;
        let (mut peer, ours) = duplex(1024);
        let mut socket = taken(ours, Vec::new()).await;
        // Masked with zeros, 125 bytes each; a message ends the flood.
        let mut ping = vec![0x89, 0x80 | 125, 0, 0, 0, 0];
        ping.resize(6 + 125, 7);
        let flood = async {
            for _ in 0..PINGS {
                peer.write_all(&ping).await.unwrap();
            }
            let last = [0x82, 0x81, 0, 0, 0, 0, b'x'];
            peer.write_all(&last).await.unwrap();
        };
        let mut byte = [0];
        let (read, ()) = tokio::join!(socket.read_exact(&mut byte), flood);
        assert_eq!((read.unwrap(), byte), (1, *b"x"));
        let mut answered = Vec::new();
        let flushed = async {
            socket.flush().await.unwrap();
            drop(socket);
        };
        let (heard, ()) = tokio::join!(peer.read_to_end(&mut answered), flushed);
        heard.unwrap();
        assert!(answered.len() <= MAX_WAITING + 2048, "{}", answered.len());
        assert!(answered.starts_with(&[0x8a, 125]));
    }

    #[test]
    fn a_path_names_an_id_and_nothing_else_does() {
        let id = SecretId([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(path_of(id), "/00010203fcfdfeff");
        assert_eq!(id_of(&path_of(id)), Some(id));
        for other in [
            "/",
            "/00010203FCFDFEFF",
            "/00010203fcfdfef",
            "/+0010203fcfdfeff",
            "00010203fcfdfeff0",
        ] {
            assert_eq!(id_of(other), None, "{other}");
        }
    }
}
