//! A way between agent and edge that a test can spoil: cut it, freeze it, close
//! it for new connections, change a byte on it.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::raw::connect_from;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From whoever dialled: from the agent to the edge.
    In,
    /// Back.
    Out,
}

/// One connection that passed, for a look at what went over the network.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// What the dialling side sent, its first [`KEPT`] bytes.
    pub sent: Vec<u8>,
    /// What came back, its first [`KEPT`] bytes.
    pub received: Vec<u8>,
}

/// How much of each direction is kept.
pub const KEPT: usize = 1 << 16;

/// Bytes of a frame's length (`docs/protocol.md`).
const LENGTH: usize = 4;

/// A running relay; its connections end with it.
pub struct Between {
    /// Where to dial instead of the real address.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    own: IpAddr,
    to: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    closed: bool,
    frozen: bool,
    /// Connections of a number below stay silent for good.
    forgotten: usize,
    over: bool,
    dialled: usize,
    /// Flip a bit in the next bytes of this direction, on a connection of this
    /// number or above that has moved so many bytes this way.
    flip: Option<(Way, usize, usize)>,
    open: Vec<(TcpStream, TcpStream)>,
    passed: Vec<Passed>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Between {
    /// A relay to an address.
    ///
    /// # Panics
    /// When no port of the loopback can be had.
    #[must_use]
    pub fn start(to: SocketAddr) -> Self {
        Self::start_from(Ipv4Addr::LOCALHOST.into(), to)
    }

    /// The same; the other side sees this address of the machine's.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn start_from(own: IpAddr, to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
        let address = listener.local_addr().expect("the address of a listener");
        let shared = Arc::new(Shared {
            own,
            to,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.lock().over {
                    return;
                }
                accepting.carry(stream);
            }
        });
        Self { address, shared }
    }

    /// Ends every connection at once; new ones pass.
    pub fn cut(&self) {
        for (one, two) in self.shared.lock().open.drain(..) {
            // A side that is gone already is what is wanted.
            let _ = one.shutdown(Shutdown::Both);
            let _ = two.shutdown(Shutdown::Both);
        }
    }

    /// Whether new connections are refused.
    pub fn close(&self, closed: bool) {
        self.shared.lock().closed = closed;
    }

    /// Whether bytes stay where they are while every socket stays open, as
    /// where a cable was pulled.
    pub fn freeze(&self, frozen: bool) {
        self.shared.lock().frozen = frozen;
        self.shared.changed.notify_all();
    }

    /// From now on no byte passes on the connections that are open, and every
    /// socket stays open, as behind a router that forgot its table; new ones
    /// pass.
    pub fn forget(&self) {
        let mut state = self.shared.lock();
        state.forgotten = state.passed.len();
    }

    /// How often it was dialled so far, whatever became of it.
    #[must_use]
    pub fn dialled(&self) -> usize {
        self.shared.lock().dialled
    }

    /// Flips one bit of the next bytes that go this way on a connection whose
    /// number, in the order of dialling and from 0, is at least `from`, and
    /// which has moved `after` bytes this way.
    pub fn flip(&self, way: Way, from: usize, after: usize) {
        self.shared.lock().flip = Some((way, from, after));
    }

    /// Whether the bit of [`Between::flip`] was flipped.
    #[must_use]
    pub fn flipped(&self) -> bool {
        self.shared.lock().flip.is_none()
    }

    /// Every connection so far.
    #[must_use]
    pub fn passed(&self) -> Vec<Passed> {
        self.shared.lock().passed.clone()
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.over = true;
            state.forgotten = 0;
        }
        self.freeze(false);
        self.cut();
        // Wakes the accepting thread, which then sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, from: TcpStream) {
        {
            let mut state = self.lock();
            state.dialled += 1;
            if state.closed {
                return;
            }
        }
        let Ok(to) = connect_from(self.own, self.to) else {
            return;
        };
        let _ = from.set_nodelay(true);
        let _ = to.set_nodelay(true);
        let pair = |stream: &TcpStream| stream.try_clone().expect("a second handle of a socket");
        let number = {
            let mut state = self.lock();
            state.open.push((pair(&from), pair(&to)));
            state.passed.push(Passed::default());
            state.passed.len() - 1
        };
        let (back_from, back_to) = (pair(&to), pair(&from));
        let (one, two) = (Arc::clone(self), Arc::clone(self));
        std::thread::spawn(move || one.pump(Way::In, number, from, to));
        std::thread::spawn(move || two.pump(Way::Out, number, back_from, back_to));
    }

    fn pump(&self, way: Way, number: usize, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 * 1024];
        let mut moved = 0;
        loop {
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    drop(self.hold(number));
                    let _ = to.shutdown(Shutdown::Both);
                    return;
                }
            };
            let part = &mut buffer[..length];
            self.pass(way, number, moved, part);
            moved += length;
            if to.write_all(part).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                return;
            }
        }
        // The end of one direction passes as such, and waits as bytes do.
        drop(self.hold(number));
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Waits while nothing passes on this connection.
    fn hold(&self, number: usize) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.frozen || number < state.forgotten {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// What happens to bytes on their way: they wait, are kept, are changed.
    fn pass(&self, way: Way, number: usize, moved: usize, part: &mut [u8]) {
        let mut state = self.hold(number);
        let due = |(which, from, after)| which == way && number >= from && moved >= after;
        if state.flip.is_some_and(due) {
            state.flip = None;
            // Behind the length of the first frame, so that this one breaks.
            let at = LENGTH.min(part.len() - 1);
            part[at] ^= 1;
        }
        let passed = &mut state.passed[number];
        let kept = match way {
            Way::In => &mut passed.sent,
            Way::Out => &mut passed.received,
        };
        let room = KEPT.saturating_sub(kept.len()).min(part.len());
        kept.extend_from_slice(&part[..room]);
    }
}
