//! One socket with its buffers and, on a link, its sealing state.
//!
//! Plain and sealed sockets share this type, so that a door reads and writes
//! every backend in the same way. Received frames are opened where they were
//! read and lent out from there; sent bytes are sealed where they were
//! written. Nothing is copied besides a head that arrived in two frames.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use adit_link_proto::{DatagramFlow, DatagramKeys, Opener, Packer, Sealer};
use adit_wire::{FLAG_LZ4, FrameKind, HEAD, MAX_PAYLOAD, TAG};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::{Buffer, ReadSize};
use crate::carrier::Socket;
use crate::counters::Counters;
use crate::lane::Lane;
use crate::stream::StreamError;

/// Bytes that may wait to be sent before a writer has to flush.
pub(crate) const HIGH_WATER: usize = 256 * 1024;

/// Lets a link's owner end a channel that another task is using.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    done: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    pub(crate) fn cut(&self) {
        self.done.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// What sealing adds to a socket.
pub(crate) struct Sealed {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) counters: Arc<Counters>,
    pub(crate) cut: Arc<Cut>,
    /// Where the carrier has datagrams.
    pub(crate) datagrams: Option<Box<DatagramKeys>>,
    /// The stream that the channel carries now; counts up from 1.
    pub(crate) stream: u32,
    /// Set while the stream may carry compressed frames.
    pub(crate) packer: Option<Packer>,
    /// Where opened bytes end; they begin at the read buffer's start.
    pub(crate) data_end: usize,
    /// Where bytes that are not opened yet begin.
    pub(crate) raw: usize,
}

impl Sealed {
    pub(crate) fn new(sealer: Sealer, opener: Opener, counters: Arc<Counters>) -> Self {
        let cut = Arc::default();
        Self {
            sealer,
            opener,
            counters,
            cut,
            datagrams: None,
            stream: 0,
            packer: None,
            data_end: 0,
            raw: 0,
        }
    }
}

/// One opened frame; its payload was attached to the readable part when it is
/// stream data, else it is the range given here.
pub(crate) struct Frame {
    pub(crate) kind: FrameKind,
    pub(crate) stream: u32,
    pub(crate) payload: std::ops::Range<usize>,
}

pub(crate) struct Inner {
    pub(crate) socket: Socket,
    pub(crate) rx: Buffer,
    /// Unpacked plaintext that was not consumed. While there is some, the
    /// read buffer has none.
    pub(crate) unpacked: Buffer,
    read_size: ReadSize,
    pub(crate) tx: Buffer,
    pub(crate) sealed: Option<Sealed>,
}

impl Inner {
    pub(crate) fn new(socket: Socket, sealed: Option<Sealed>) -> Self {
        let (rx, tx) = (Buffer::default(), Buffer::default());
        let unpacked = Buffer::default();
        Self {
            socket,
            rx,
            unpacked,
            read_size: ReadSize::default(),
            tx,
            sealed,
        }
    }

    /// Received plaintext that was not consumed.
    pub(crate) fn readable(&self) -> &[u8] {
        match &self.sealed {
            None => self.rx.filled(),
            Some(_) if !self.unpacked.is_empty() => self.unpacked.filled(),
            Some(sealed) => &self.rx.all()[self.rx.start..sealed.data_end],
        }
    }

    /// The same, to be opened where it stands.
    pub(crate) fn readable_mut(&mut self) -> &mut [u8] {
        if !self.unpacked.is_empty() {
            return self.unpacked.filled_mut();
        }
        let end = match &self.sealed {
            None => self.rx.end,
            Some(sealed) => sealed.data_end,
        };
        let start = self.rx.start;
        self.rx.all_mut().get_mut(start..end).unwrap_or_default()
    }

    pub(crate) fn consume(&mut self, count: usize) {
        let count = count.min(self.readable().len());
        if self.unpacked.is_empty() {
            self.rx.start += count;
        } else {
            self.unpacked.start += count;
            self.unpacked.release_if_empty();
        }
        if let Some(sealed) = &mut self.sealed
            && self.rx.start == sealed.data_end
        {
            self.rx.start = sealed.raw;
            sealed.data_end = sealed.raw;
        }
    }

    /// Bytes of an opened frame's payload.
    pub(crate) fn payload(&self, frame: &Frame) -> &[u8] {
        &self.rx.all()[frame.payload.clone()]
    }

    /// Reads more bytes from the socket: at least one, `Ok(0)` at its end.
    /// Makes room for `least` bytes behind what is there.
    fn poll_read(&mut self, cx: &mut Context<'_>, least: usize) -> Poll<io::Result<usize>> {
        if self.rx.is_empty() {
            // No buffer is held while nothing arrives.
            if self.socket.poll_read_ready(cx)?.is_pending() {
                self.release_rx();
                return Poll::Pending;
            }
        }
        let fresh = if self.rx.is_empty() {
            self.read_size.bytes()
        } else {
            1
        };
        let moved = self.rx.reserve(least.max(fresh));
        if let Some(sealed) = &mut self.sealed {
            sealed.data_end -= moved;
            sealed.raw -= moved;
        }
        let room = self.rx.room();
        let room_len = room.len();
        let mut into = ReadBuf::new(room);
        if Pin::new(&mut self.socket)
            .poll_read(cx, &mut into)?
            .is_pending()
        {
            self.release_rx();
            return Poll::Pending;
        }
        let got = into.filled().len();
        self.rx.end += got;
        if let Some(sealed) = &self.sealed {
            sealed
                .counters
                .bytes_in
                .fetch_add(got as u64, Ordering::Relaxed);
        }
        self.read_size.learn(got, room_len);
        Poll::Ready(Ok(got))
    }

    fn release_rx(&mut self) {
        if self.rx.is_empty() {
            self.rx.release_if_empty();
            if let Some(sealed) = &mut self.sealed {
                (sealed.data_end, sealed.raw) = (0, 0);
            }
        }
    }

    /// Plain sockets: appends what the socket has. False at its end.
    pub(crate) fn poll_plain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let got = ready!(self.poll_read(cx, 1))?;
        Poll::Ready(Ok(got > 0))
    }

    /// Sealed sockets: the next whole frame, opened; `None` when the socket
    /// ended between frames.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame>, StreamError>> {
        loop {
            let missing = match self.open_next()? {
                Next::Frame(frame) => return Poll::Ready(Ok(Some(frame))),
                Next::Missing(bytes) => bytes,
            };
            let got = ready!(self.poll_read(cx, missing)).map_err(StreamError::Io)?;
            if got == 0 {
                let clean = self.raw_len() == 0;
                return Poll::Ready(if clean {
                    Ok(None)
                } else {
                    Err(StreamError::Truncated)
                });
            }
        }
    }

    fn raw_len(&self) -> usize {
        self.sealed
            .as_ref()
            .map_or(0, |sealed| self.rx.end - sealed.raw)
    }

    fn open_next(&mut self) -> Result<Next, StreamError> {
        let Some(sealed) = &mut self.sealed else {
            return Err(StreamError::Protocol);
        };
        if sealed.cut.is_cut() {
            return Err(StreamError::Truncated);
        }
        let have = self.rx.end - sealed.raw;
        let bytes = self.rx.all_mut();
        let Some(head) = bytes
            .get(sealed.raw..)
            .and_then(|raw| raw.first_chunk::<4>())
        else {
            return Ok(Next::Missing(HEAD));
        };
        if have < head.len() {
            return Ok(Next::Missing(HEAD - have));
        }
        let whole = Opener::frame_len(head).map_err(|_| sealed.bad_frame())?;
        if have < whole {
            return Ok(Next::Missing(whole - have));
        }
        let frame = &mut bytes[sealed.raw..sealed.raw + whole];
        let opened = sealed.opener.open(frame);
        let opened = opened.map_err(|_| sealed.bad_frame())?;
        let packed = match opened.flags {
            0 => false,
            FLAG_LZ4 if opened.kind == FrameKind::DATA && sealed.packer.is_some() => true,
            _ => return Err(sealed.bad_frame()),
        };
        let payload = sealed.raw + opened.payload.start..sealed.raw + opened.payload.end;
        sealed.raw += whole;
        let frame = Frame {
            kind: opened.kind,
            stream: opened.stream,
            payload,
        };
        if packed {
            self.attach_packed(frame.payload.clone())?;
        } else if matches!(frame.kind, FrameKind::DATA | FrameKind::DATAGRAM) {
            self.attach(frame.payload.clone());
        } else if self.readable().is_empty() {
            self.consume(0);
        }
        Ok(Next::Frame(frame))
    }

    /// Makes a payload readable; bytes that still wait are moved up to it.
    fn attach(&mut self, payload: std::ops::Range<usize>) {
        if !self.unpacked.is_empty() {
            return self.attach_behind(payload);
        }
        let Some(sealed) = &mut self.sealed else {
            return;
        };
        let waiting = sealed.data_end - self.rx.start;
        let (start, was) = (payload.start - waiting, self.rx.start);
        if waiting > 0 {
            self.rx.all_mut().copy_within(was..was + waiting, start);
        }
        self.rx.start = start;
        if let Some(sealed) = &mut self.sealed {
            sealed.data_end = payload.end;
        }
        self.consume(0);
    }

    /// Room for `want` bytes of plaintext, empty over the high water.
    pub(crate) fn spare(&mut self, want: usize) -> &mut [u8] {
        if self.tx.len() >= HIGH_WATER {
            return &mut [];
        }
        let want = want.clamp(1, MAX_PAYLOAD);
        let (head, tail) = if self.sealed.is_some() {
            (HEAD, TAG)
        } else {
            (0, 0)
        };
        self.tx.reserve(head + want + tail);
        &mut self.tx.room()[head..head + want]
    }

    /// Sends the first `count` bytes of the last [`Inner::spare`].
    pub(crate) fn commit(&mut self, count: usize) -> Result<(), StreamError> {
        match &self.sealed {
            None => {
                self.tx.end += count;
                Ok(())
            }
            Some(_) if count == 0 => Ok(()),
            Some(_) => match self.pack(count) {
                Some(packed) => self.seal(FrameKind::DATA, FLAG_LZ4, packed),
                None => self.seal(FrameKind::DATA, 0, count),
            },
        }
    }

    /// Sends the first `count` bytes of the last [`Inner::spare`] as one
    /// datagram, which may be empty.
    pub(crate) fn commit_datagram(&mut self, count: usize) -> Result<(), StreamError> {
        self.seal(FrameKind::DATAGRAM, 0, count)
    }

    /// The way for datagrams beside the stream that the channel carries now.
    pub(crate) fn lane(&self) -> Option<(Lane, DatagramFlow)> {
        let sealed = self.sealed.as_ref()?;
        sealed.datagrams.as_ref()?;
        let lane = self.socket.lane()?;
        let flow = DatagramFlow::new(lane.index(), sealed.stream);
        Some((lane, flow))
    }

    pub(crate) fn datagram_keys(&self) -> Option<&DatagramKeys> {
        self.sealed.as_ref()?.datagrams.as_deref()
    }

    /// Seals the first `count` bytes of the last [`Inner::spare`] for the way
    /// beside the stream; `None` when only the stream can take them.
    pub(crate) fn seal_beside(&mut self, count: usize, flow: &mut DatagramFlow) -> Option<Vec<u8>> {
        let keys = self.sealed.as_ref()?.datagrams.as_deref()?;
        let sealed = flow.seal(keys, self.tx.room().get(HEAD..HEAD + count)?);
        self.tx.release_if_empty();
        sealed
    }

    /// Queues a frame of another kind; `payload` is small.
    pub(crate) fn queue(&mut self, kind: FrameKind, payload: &[u8]) -> Result<(), StreamError> {
        self.tx.reserve(HEAD + payload.len() + TAG);
        self.tx.room()[HEAD..HEAD + payload.len()].copy_from_slice(payload);
        self.seal(kind, 0, payload.len())
    }

    fn seal(&mut self, kind: FrameKind, flags: u8, count: usize) -> Result<(), StreamError> {
        let Some(sealed) = &mut self.sealed else {
            return Err(StreamError::Protocol);
        };
        let frame = &mut self.tx.room()[..HEAD + count + TAG];
        sealed
            .sealer
            .seal(kind, flags, sealed.stream, frame)
            .map_err(|_| StreamError::Protocol)?;
        self.tx.end += HEAD + count + TAG;
        Ok(())
    }

    /// Hands everything queued to the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while !self.tx.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, self.tx.filled()));
            match sent.map_err(StreamError::Io)? {
                0 => return Poll::Ready(Err(StreamError::Io(io::ErrorKind::WriteZero.into()))),
                count => {
                    self.tx.start += count;
                    if let Some(sealed) = &self.sealed {
                        let sent = &sealed.counters.bytes_out;
                        sent.fetch_add(count as u64, Ordering::Relaxed);
                    }
                }
            }
        }
        self.tx.release_if_empty();
        Pin::new(&mut self.socket)
            .poll_flush(cx)
            .map_err(StreamError::Io)
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.tx.is_empty() || self.socket.has_unflushed()
    }

    /// Bytes that wait for the kernel.
    pub(crate) fn unsent(&self) -> usize {
        self.tx.len()
    }

    /// Asks to be woken when the channel is cut by its link.
    pub(crate) fn watch(&self, cx: &Context<'_>) -> Result<(), StreamError> {
        let Some(sealed) = &self.sealed else {
            return Ok(());
        };
        sealed.cut.waker.register(cx.waker());
        if sealed.cut.is_cut() {
            Err(StreamError::Truncated)
        } else {
            Ok(())
        }
    }
}

enum Next {
    Frame(Frame),
    Missing(usize),
}

impl Sealed {
    /// A frame that does not open ends its channel and is counted.
    pub(crate) fn bad_frame(&self) -> StreamError {
        self.counters.bad_frames.fetch_add(1, Ordering::Relaxed);
        self.cut.cut();
        StreamError::Protocol
    }
}

impl Inner {
    /// The same socket with its state, registered with the calling runtime.
    pub(crate) fn move_here(self) -> io::Result<Self> {
        let socket = self.socket.move_here()?;
        Ok(Self { socket, ..self })
    }
}
