//! One flow of datagrams, both ways, in one task: a socket of its own towards
//! the target, so that the target tells visitors apart by its port.
//!
//! Datagrams are read straight into the room that the link lends. When too
//! much waits for the link, what the target says is read and dropped, so that
//! it is counted and what comes later is young.
//!
//! Invariants: nothing is sent to an address that the agent's own list does
//! not allow; a datagram goes whole or not at all.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_link::told::is_too_large;
use adit_link::{Channel, Datagrams, Fill, MAX_DATAGRAM, StreamError};
use adit_model::Code;
use adit_wire::{Delivered, ResetReason};
use socket2::SockRef;
use tokio::io::{Interest, ReadBuf};
use tokio::net::UdpSocket;
use tokio::time::{Instant, Sleep, sleep};

use crate::connect::Connector;

/// Datagrams that one poll moves in each direction before other tasks have
/// their turn.
const TURN: usize = 256;
/// The edge ends an idle flow; when it does not, the agent does so much later.
const LONGER: Duration = Duration::from_secs(10);
/// What the system is asked to hold for us; it may give less.
const KERNEL_BUFFER: usize = 1 << 20;

/// The addresses of a target, and the socket to one of them.
pub(crate) struct Addresses {
    all: Vec<SocketAddr>,
    at: usize,
    socket: Arc<UdpSocket>,
    /// Ready when the system tells that nobody listens there: that wakes no
    /// reader.
    refused: Pin<Box<dyn Future<Output = io::Error> + Send>>,
}

impl Addresses {
    /// A socket to the first address that a way leads to.
    ///
    /// # Errors
    /// The system's, about the last one.
    pub(crate) fn new(all: Vec<SocketAddr>) -> io::Result<Self> {
        let (at, socket) = first_from(&all, 0)?;
        Ok(Self {
            all,
            at,
            refused: Box::pin(told(Arc::clone(&socket))),
            socket,
        })
    }

    /// Goes on to the next address, if there is one.
    fn next(&mut self) -> bool {
        let Ok((at, socket)) = first_from(&self.all, self.at + 1) else {
            return false;
        };
        self.refused = Box::pin(told(Arc::clone(&socket)));
        (self.at, self.socket) = (at, socket);
        true
    }

    fn is_last(&self) -> bool {
        self.at + 1 >= self.all.len()
    }
}

async fn told(socket: Arc<UdpSocket>) -> io::Error {
    loop {
        let told = socket.ready(Interest::ERROR).await;
        match told.and_then(|_| socket.take_error()) {
            Ok(Some(error)) | Err(error) => return error,
            // A send has told of it already.
            Ok(None) => {
                let _ = socket.try_io(Interest::ERROR, || {
                    Err::<(), _>(io::ErrorKind::WouldBlock.into())
                });
            }
        }
    }
}

fn first_from(all: &[SocketAddr], from: usize) -> io::Result<(usize, Arc<UdpSocket>)> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for (at, address) in all.iter().enumerate().skip(from) {
        match socket_to(*address) {
            Ok(socket) => return Ok((at, Arc::new(socket))),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Connected, so that only the target is heard and the system tells when
/// nobody listens there.
fn socket_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    let options = SockRef::from(&socket);
    // What is refused here costs datagrams in a burst, nothing else.
    drop(options.set_recv_buffer_size(KERNEL_BUFFER));
    drop(options.set_send_buffer_size(KERNEL_BUFFER));
    socket.connect(address)?;
    UdpSocket::from_std(socket)
}

/// How a flow went.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    /// Bytes from the visitor to the target.
    pub(crate) to_target: u64,
    /// Bytes from the target to the visitor.
    pub(crate) to_visitor: u64,
    /// Datagrams to the target that its network does not take.
    pub(crate) too_large: u64,
    /// Datagrams of the target for which the way to the visitor had no room.
    pub(crate) overrun: u64,
    /// `None` when it ended in order.
    pub(crate) broken: Option<Broken>,
}

/// Why a flow ended before its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The visitor's side gave up, or its channel broke.
    Visitor(StreamError),
    /// The target does not take datagrams.
    Target(io::Error),
}

/// Carries a flow to its end; then gives its channel back if it can be used
/// again. `lost` hears of datagrams that were dropped, in words that follow the
/// target's name; `moved` hears after each turn how many bytes there were until
/// then, to the target and to the visitor.
pub(crate) async fn carry(
    link: Datagrams,
    addresses: Addresses,
    connector: &Connector,
    idle: Duration,
    mut lost: impl FnMut(Code, &str),
    mut moved: impl FnMut(u64, u64),
) -> (Carried, Option<Channel>) {
    let mut flow = Flow::new(link, addresses, idle);
    let mut told = (0, 0);
    let result = poll_fn(|cx| {
        let result = flow.poll(cx, connector);
        moved(flow.carried.to_target, flow.carried.to_visitor);
        let (too_large, overrun) = (flow.carried.too_large, flow.carried.overrun);
        if too_large > told.0 {
            let why = "datagrams of visitors are larger than its network takes, and are dropped";
            lost(Code::DATAGRAM_TOO_LARGE, why);
        }
        if overrun > told.1 {
            let why = "it sends faster than the way to its visitors takes; datagrams are dropped";
            lost(Code::DATAGRAMS_DROPPED, why);
        }
        told = (too_large, overrun);
        result
    })
    .await;
    let mut carried = flow.carried;
    let channel = match result {
        Ok(()) => {
            drop(flow.addresses);
            flow.link.end().await
        }
        Err(broken) => {
            let reason = match &broken {
                Broken::Target(error) => Some(connector.not_reached(error).reason()),
                // The edge does not see what was altered on its way here.
                Broken::Visitor(StreamError::Protocol) => Some(ResetReason::Protocol),
                Broken::Visitor(_) => None,
            };
            if let Some(reason) = reason {
                let delivered = match carried.to_visitor {
                    0 => Delivered::None,
                    _ => Delivered::Some,
                };
                flow.link.reset(reason, delivered);
            }
            carried.broken = Some(broken);
            None
        }
    };
    (carried, channel)
}

struct Flow {
    link: Datagrams,
    addresses: Addresses,
    /// The link's datagram has not been sent to the target.
    held: bool,
    /// The first datagram, while the target has not answered and has other
    /// addresses.
    first: Option<Vec<u8>>,
    answered: bool,
    idle: Duration,
    timer: Pin<Box<Sleep>>,
    last: Instant,
    moved: u64,
    carried: Carried,
}

impl Flow {
    fn new(link: Datagrams, addresses: Addresses, idle: Duration) -> Self {
        let idle = idle.saturating_add(LONGER);
        Self {
            link,
            addresses,
            held: false,
            first: None,
            answered: false,
            idle,
            timer: Box::pin(sleep(idle)),
            last: Instant::now(),
            moved: 0,
            carried: Carried::default(),
        }
    }

    /// Ready at the flow's end.
    fn poll(&mut self, cx: &mut Context<'_>, connector: &Connector) -> Poll<Result<(), Broken>> {
        let before = self.moved;
        if self.poll_up(cx)?.is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.poll_down(cx, connector)?;
        while let Poll::Ready(error) = self.addresses.refused.as_mut().poll(cx) {
            self.refused(error)?;
            // The other socket has not been asked yet.
            cx.waker().wake_by_ref();
        }
        if self.moved != before {
            self.last = Instant::now();
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if self.last.elapsed() >= self.idle {
                return Poll::Ready(Ok(()));
            }
            self.timer.as_mut().reset(self.last + self.idle);
        }
    }

    /// Visitor to target; ready when the edge has ended the flow.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Broken> {
        for _ in 0..TURN {
            if !self.held {
                match self.link.poll_next(cx).map_err(Broken::Visitor)? {
                    Poll::Ready(Fill::Data) => self.held = true,
                    Poll::Ready(Fill::End) => return Ok(Poll::Ready(())),
                    Poll::Pending => return Ok(Poll::Pending),
                }
            }
            match self.addresses.socket.poll_send(cx, self.link.datagram()) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(Ok(count)) => {
                    self.held = false;
                    self.moved += 1;
                    self.carried.to_target += count as u64;
                    if !self.answered && self.first.is_none() && !self.addresses.is_last() {
                        self.first = Some(self.link.datagram().to_vec());
                    }
                }
                Poll::Ready(Err(error)) => self.not_sent(error)?,
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn not_sent(&mut self, error: io::Error) -> Result<(), Broken> {
        if is_too_large(&error) {
            self.carried.too_large += 1;
            self.held = false;
            return Ok(());
        }
        // It may tell of an earlier datagram; this one is sent again then.
        self.refused(error)
    }

    /// Nobody listens there: the next address gets what the first one got.
    fn refused(&mut self, error: io::Error) -> Result<(), Broken> {
        if self.answered || !self.addresses.next() {
            return Err(Broken::Target(error));
        }
        if let Some(first) = &self.first {
            // The runtime does not know of the new socket's room yet. When it
            // is lost, the visitor says it again.
            let _ = SockRef::from(&*self.addresses.socket).send(first);
        }
        Ok(())
    }

    /// Target to visitor.
    fn poll_down(&mut self, cx: &mut Context<'_>, connector: &Connector) -> Result<(), Broken> {
        loop {
            // Also sends the answer to the start, and gives buffers back.
            let sent = self.link.poll_flush(cx).map_err(Broken::Visitor)?;
            match self.gather(cx, connector) {
                Ok(Some(0)) => {
                    // A read that found nothing may have taken a buffer.
                    let _ = self.link.poll_flush(cx).map_err(Broken::Visitor)?;
                    return Ok(());
                }
                Ok(Some(_)) if sent.is_pending() => return Ok(()),
                Ok(Some(_)) => {}
                Ok(None) => {
                    let _ = self.link.poll_flush(cx).map_err(Broken::Visitor)?;
                    cx.waker().wake_by_ref();
                    return Ok(());
                }
                Err(error) => self.refused(error)?,
            }
        }
    }

    /// Takes what the target has said, as far as there is room; how many
    /// datagrams that were, `None` when there may be more.
    fn gather(&mut self, cx: &mut Context<'_>, connector: &Connector) -> io::Result<Option<usize>> {
        for gathered in 0..TURN {
            let socket = &self.addresses.socket;
            if socket.poll_recv_ready(cx)?.is_pending() {
                return Ok(Some(gathered));
            }
            let mut nowhere = [0];
            let room = self.link.room(MAX_DATAGRAM);
            let is_full = room.is_empty();
            let mut into = ReadBuf::new(if is_full { &mut nowhere } else { room });
            if socket.poll_recv(cx, &mut into)?.is_pending() {
                return Ok(Some(gathered));
            }
            let count = into.filled().len();
            self.moved += 1;
            if is_full {
                self.carried.overrun += 1;
                continue;
            }
            // Sealing fails when the keys are used up; the next flush tells.
            if self.link.commit(count).is_ok() {
                self.carried.to_visitor += count as u64;
            }
            if !self.answered {
                (self.answered, self.first) = (true, None);
                if self.addresses.at > 0 {
                    let answered = self.addresses.all.get(self.addresses.at);
                    if let Some(answered) = answered {
                        connector.remember(&self.addresses.all, *answered);
                    }
                }
            }
        }
        Ok(None)
    }
}
