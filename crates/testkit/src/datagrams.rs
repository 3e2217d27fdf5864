//! UDP sockets that wait no longer than a test does, and services on them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait::{DEADLINE, until};

/// How long an answer may take before the question is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// Larger than any datagram.
const ROOM: usize = 65_536;

/// A visitor: one address and port.
pub struct Speaker(UdpSocket);

impl Speaker {
    /// A socket of the loopback's that speaks to one address.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn to(address: SocketAddr) -> Self {
        let own: IpAddr = match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::from(own, address)
    }

    /// The same with an address of its own.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn from(own: IpAddr, address: SocketAddr) -> Self {
        let socket = UdpSocket::bind((own, 0)).expect("a UDP socket");
        socket.connect(address).expect("a way there");
        Self(socket)
    }

    /// Sends one datagram; the system may know that nobody is there.
    pub fn say(&self, datagram: &[u8]) -> bool {
        self.0.send(datagram).is_ok()
    }

    /// The next datagram within this time.
    ///
    /// # Panics
    /// When the socket fails in another way than by an absent other side.
    #[must_use]
    pub fn heard(&self, within: Duration) -> Option<Vec<u8>> {
        let mut room = vec![0; ROOM];
        let limit = Some(within.max(Duration::from_millis(1)));
        self.0.set_read_timeout(limit).expect("a read deadline");
        match self.0.recv(&mut room) {
            Ok(count) => {
                room.truncate(count);
                Some(room)
            }
            Err(error) if is_nothing(&error) => None,
            Err(error) => panic!("a visitor's socket: {error}"),
        }
    }

    /// Asks until there is an answer, as UDP's programs do.
    ///
    /// # Panics
    /// When none comes before the deadline of a test.
    #[must_use]
    pub fn ask(&self, question: &[u8]) -> Vec<u8> {
        until("an answer comes", || {
            self.say(question);
            self.heard(AGAIN)
        })
    }

    /// Where it speaks from.
    ///
    /// # Panics
    /// When the socket is gone.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("its address")
    }
}

fn is_nothing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | ConnectionRefused)
}

/// A service that answers each datagram; ends when dropped.
pub struct Answerer {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Answerer {
    /// A service at an address of this machine. `answers` is given the
    /// datagram and its sender's port, and names what is sent back.
    ///
    /// # Panics
    /// When the address cannot be had.
    #[must_use]
    pub fn at(
        address: SocketAddr,
        mut answers: impl FnMut(&[u8], u16) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind(address).expect("a UDP socket");
        let address = socket.local_addr().expect("its address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut room = vec![0; ROOM];
            loop {
                let Ok((count, from)) = socket.recv_from(&mut room) else {
                    continue;
                };
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                for answer in answers(&room[..count], from.port()) {
                    // What the system does not send is what a test looks for.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// A service on a free port of the loopback that says everything back,
    /// behind its name.
    #[must_use]
    pub fn echo(name: &'static str) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), move |said, _| {
            vec![[name.as_bytes(), said].concat()]
        })
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let waker = UdpSocket::bind((self.address.ip(), 0));
        // Without one the thread ends with its process.
        if waker.is_ok_and(|waker| waker.send_to(b"", self.address).is_ok()) {
            drop(self.thread.take().map(JoinHandle::join));
        }
    }
}

/// Ports that were free for UDP a moment ago.
///
/// # Panics
/// When there are not so many.
#[must_use]
pub fn free_udp_ports(count: usize) -> Vec<u16> {
    let is_free = |port: &u16| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let found = crate::raw::free_ports(count.max(10));
    let found: Vec<_> = found.into_iter().filter(is_free).take(count).collect();
    assert_eq!(found.len(), count, "no free UDP ports within {DEADLINE:?}");
    found
}
