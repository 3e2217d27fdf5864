//! One TLS connection: `rustls` between a socket and its reader.
//!
//! A silent connection holds no buffer but the small one that `rustls` keeps.
//! What comes is read into a buffer of the thread, as much as the reader has
//! room for, and opened from there; what goes is sealed as records of full
//! size and written to the socket in one call.

use std::cell::RefCell;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::ServerConnection;
use rustls::server::Accepted;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Served;

/// Most bytes that are read of a socket at once.
const READ: usize = 64 * 1024;
/// What TLS adds to a full room: headers and tags of its records.
const ADDED: usize = 512;
/// Most bytes of a visitor that has not finished its handshake, its first
/// message included: far above what any needs.
const HANDSHAKE: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a handshake failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    /// The visitor went away.
    #[error("the visitor went away: {0}")]
    Gone(io::Error),
    /// It said why it does not want to go on: it does not trust the
    /// certificate, say.
    #[error("the visitor ended the handshake: {0:?}")]
    Refused(rustls::AlertDescription),
    /// Nothing that both sides speak, or no TLS.
    #[error("{0}")]
    Failed(rustls::Error),
    /// It sends more than any handshake needs.
    #[error("the handshake is longer than any should be")]
    TooLong,
}

/// A connection whose TLS is ended here.
pub struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    /// Read of the socket, and not opened for want of room.
    held: Vec<u8>,
    /// Bytes that the session has opened.
    plain: usize,
    /// The visitor has said that it sends no more.
    closed: bool,
    /// The socket has ended.
    ended: bool,
    /// We have said that we send no more.
    finished: bool,
    served: Served,
}

impl TlsStream {
    /// Goes through the handshake that a first message has begun; `rest` was
    /// read behind it.
    pub(crate) async fn accept(
        socket: TcpStream,
        first: Accepted,
        rest: Vec<u8>,
        config: std::sync::Arc<rustls::ServerConfig>,
        served: Served,
    ) -> Result<Self, HandshakeError> {
        let mut taken = rest.len();
        let session = match first.into_connection(config) {
            Ok(session) => session,
            Err((error, mut alert)) => {
                // What a new socket does not take at once is not worth waiting for.
                let _ = alert.write_all(&mut Sink(&socket));
                return Err(HandshakeError::Failed(error));
            }
        };
        let mut stream = Self {
            socket,
            session,
            held: rest,
            plain: 0,
            closed: false,
            ended: false,
            finished: false,
            served,
        };
        std::future::poll_fn(|cx| stream.poll_handshake(cx, &mut taken)).await?;
        Ok(stream)
    }

    fn poll_handshake(
        &mut self,
        cx: &mut Context<'_>,
        taken: &mut usize,
    ) -> Poll<Result<(), HandshakeError>> {
        loop {
            ready!(self.poll_flush(cx)).map_err(HandshakeError::Gone)?;
            if !self.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            if self.held.is_empty() {
                let count = ready!(self.poll_hold(cx)).map_err(HandshakeError::Gone)?;
                *taken += count;
                if count == 0 {
                    let gone = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Err(HandshakeError::Gone(gone)));
                }
            }
            if *taken > HANDSHAKE {
                return Poll::Ready(Err(HandshakeError::TooLong));
            }
            let held = std::mem::take(&mut self.held);
            let mut left = &held[..];
            while !left.is_empty() && self.session.is_handshaking() {
                if let Err(error) = self.digest(&mut left) {
                    // The alert, as far as the socket takes it.
                    let _ = self.poll_flush(cx);
                    return Poll::Ready(Err(match error {
                        Digest::Io(error) => HandshakeError::Gone(error),
                        Digest::Tls(rustls::Error::AlertReceived(alert)) => {
                            HandshakeError::Refused(alert)
                        }
                        Digest::Tls(error) => HandshakeError::Failed(error),
                    }));
                }
            }
            self.held = left.to_vec();
        }
    }

    /// Whether the session goes on one that the visitor has had before.
    pub(crate) fn is_resumed(&self) -> bool {
        self.session.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// Which name it asked for, and which names it got.
    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.plain > 0 || self.closed || self.ended || !self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_read_ready(cx)
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if room.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let held = std::mem::take(&mut self.held);
            let mut left = &held[..];
            let count = self.open(&mut left, room);
            if !left.is_empty() {
                self.held = left.to_vec();
            }
            match count {
                Ok(0) => {}
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => {
                    // The alert that says why, as far as the socket takes it.
                    let _ = self.poll_flush(cx);
                    return Poll::Ready(Err(error));
                }
            }
            if self.closed {
                return Poll::Ready(Ok(0));
            }
            if self.ended {
                // Without its word that this is the end it may have been cut.
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            // An answer of the session itself: a new key, an alert.
            if self.has_unsent() {
                let _ = self.poll_flush(cx);
            }
            match ready!(self.poll_records(cx, room)) {
                Ok(0) => {}
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(error) => {
                    // The alert that says why, as far as the socket takes it.
                    let _ = self.poll_flush(cx);
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Reads records of the socket, and opens what there is room for.
    fn poll_records(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let most = room.len().saturating_add(ADDED).min(READ);
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(READ, 0);
            let mut buffer = ReadBuf::new(scratch.get_mut(..most).unwrap_or_default());
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            let mut left = buffer.filled();
            self.ended = left.is_empty();
            let opened = self.open(&mut left, room);
            self.held.extend_from_slice(left);
            Poll::Ready(opened)
        })
    }

    /// Opens records of `from` into `room`, until one of both is used up.
    fn open(&mut self, from: &mut &[u8], room: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        loop {
            if self.plain > 0 {
                let rest = room.get_mut(count..).unwrap_or_default();
                let read = self.session.reader().read(rest)?;
                self.plain -= read.min(self.plain);
                count += read;
                if count == room.len() {
                    return Ok(count);
                }
            }
            if from.is_empty() || self.closed {
                return Ok(count);
            }
            if let Err(error) = self.digest(from) {
                // What came before it was right.
                return if count > 0 {
                    *from = &[];
                    self.ended = true;
                    Ok(count)
                } else {
                    Err(error.into())
                };
            }
        }
    }

    /// Gives the session some bytes.
    fn digest(&mut self, from: &mut &[u8]) -> Result<(), Digest> {
        self.session.read_tls(from).map_err(Digest::Io)?;
        let state = self.session.process_new_packets().map_err(Digest::Tls)?;
        self.plain = state.plaintext_bytes_to_read();
        self.closed = state.peer_has_closed();
        Ok(())
    }

    /// Reads what has come and holds it; 0 at the end.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.resize(READ, 0);
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer))?;
            self.held.extend_from_slice(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let count = self.session.writer().write_vectored(pieces)?;
        // What the socket does not take now is sealed, and goes with a flush.
        if let Poll::Ready(sent) = self.poll_flush(cx) {
            sent?;
        }
        Poll::Ready(Ok(count))
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.session.wants_write()
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Sink(&self.socket)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if is_wait(&error) => ready!(self.socket.poll_write_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.finished, true) {
            self.session.send_close_notify();
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream").finish_non_exhaustive()
    }
}

fn is_wait(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Why bytes could not be digested.
enum Digest {
    Io(io::Error),
    Tls(rustls::Error),
}

impl From<Digest> for io::Error {
    fn from(error: Digest) -> Self {
        match error {
            Digest::Io(error) => error,
            Digest::Tls(error) => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// A socket that takes what it can take now.
struct Sink<'s>(&'s TcpStream);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
