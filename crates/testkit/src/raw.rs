//! Sockets without a protocol: origins and visitors whose every byte a test
//! decides itself.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use crate::wait::DEADLINE;

/// Starts an origin that hands each connection to `serve`, on a thread of its
/// own. It listens as long as the process lives.
///
/// # Panics
/// When no port of the loopback can be had.
pub fn origin(serve: impl Fn(Socket) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
    let address = listener.local_addr().expect("the address of a listener");
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(Socket::new(stream)));
        }
    });
    address
}

/// A port on which nobody listens: bound and let go.
///
/// # Panics
/// When no port of the loopback can be had.
#[must_use]
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the loopback");
    listener.local_addr().expect("the address of a listener")
}

/// Ports that were free a moment ago, below those that the system gives out
/// itself; each call has a range of its own in this process.
///
/// # Panics
/// When there are not so many.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    let of_process = u16::try_from(std::process::id() % 100).unwrap_or(0) * 100;
    let first = 20_000 + of_process + 10 * CALLS.fetch_add(1, Ordering::Relaxed);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found: Vec<_> = (first..32_000).filter(is_free).take(count).collect();
    assert_eq!(found.len(), count, "no free ports");
    found
}

/// A connection that comes from an address of this machine.
///
/// # Errors
/// The system's.
pub fn connect_from(own: IpAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(own, 0))?;
    connect(&socket, &address)?;
    Ok(socket.into())
}

/// A connection whose reads end at the deadline of a test.
pub struct Socket(TcpStream);

impl Socket {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a socket without delay");
        let deadline = Some(DEADLINE);
        stream.set_read_timeout(deadline).expect("a read deadline");
        stream
            .set_write_timeout(deadline)
            .expect("a write deadline");
        Self(stream)
    }

    /// Dials.
    ///
    /// # Panics
    /// When nobody listens.
    #[must_use]
    pub fn dial(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).expect("somebody listens"))
    }

    /// Dials from an address of this machine.
    ///
    /// # Errors
    /// The system's; whoever listens may end it at once.
    pub fn try_dial_from(own: IpAddr, address: SocketAddr) -> std::io::Result<Self> {
        connect_from(own, address).map(Self::new)
    }

    /// Dials and sends.
    ///
    /// # Panics
    /// When nobody listens or takes the bytes.
    #[must_use]
    pub fn send_to(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Self {
        let mut socket = Self::dial(address);
        socket.send(bytes);
        socket
    }

    /// Sends.
    ///
    /// # Panics
    /// When the other side is gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0
            .write_all(bytes.as_ref())
            .expect("the other side takes bytes");
    }

    /// Reads until what was read ends in `end`; all of it.
    ///
    /// # Panics
    /// When the connection ends before.
    pub fn until(&mut self, end: impl AsRef<[u8]>) -> Vec<u8> {
        let end = end.as_ref();
        let (mut all, mut byte) = (Vec::new(), [0]);
        while !all.ends_with(end) {
            let read = self.0.read(&mut byte).expect("more bytes");
            assert!(
                read == 1,
                "the connection ended before {:?}, after {:?}",
                end.escape_ascii().to_string(),
                all.escape_ascii().to_string()
            );
            all.extend_from_slice(&byte);
        }
        all
    }

    /// Reads a head up to its empty line, as text.
    ///
    /// # Panics
    /// When there is none.
    pub fn head(&mut self) -> String {
        String::from_utf8_lossy(&self.until(b"\r\n\r\n")).into_owned()
    }

    /// The next head on a kept connection; `None` where the other side has
    /// ended it.
    ///
    /// # Panics
    /// When it ends inside a head.
    pub fn next_head(&mut self) -> Option<String> {
        let mut first = [0];
        match self.0.read(&mut first) {
            Ok(1) => {}
            _ => return None,
        }
        let rest = self.head();
        Some(format!("{}{rest}", char::from(first[0])))
    }

    /// Reads exactly this many bytes.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("that many bytes");
        bytes
    }

    /// Reads to the end of the other side's direction; what came, and whether
    /// it ended in order rather than by a reset.
    ///
    /// # Panics
    /// When it does not end before the deadline.
    pub fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => (bytes, true),
            Err(error) if is_timeout(&error) => panic!("the connection does not end"),
            Err(_) => (bytes, false),
        }
    }

    /// Ends our direction and keeps reading.
    pub fn finish(&self) {
        // The other side may be gone, which the next read tells.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Gives everything back, to the other side's end; how that comes is its
    /// affair.
    pub fn echo(&self) {
        drop(std::io::copy(&mut self.stream(), &mut self.stream()));
    }

    /// The socket itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.0
    }
}

impl Read for Socket {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(room)
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}
