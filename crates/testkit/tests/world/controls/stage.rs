//! An edge with a tunnel at every kind of door, and visitors of each.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use adit_agent::{By, Carries, DataFolder, Peers};
use adit_model::PublicKey;
use adit_testkit::between::Between;
use adit_testkit::datagrams::{Answerer, Speaker, free_udp_ports};
use adit_testkit::raw::{Socket, connect_from, free_ports, nobody, origin};
use adit_testkit::tls::{self, Pair};
use adit_testkit::wait::until;
use adit_testkit::world::{Agent, World, tcp_tunnel, tunnel, udp_tunnel};
use rustix::net::sockopt::set_socket_linger;

use super::bulk;
use crate::private;

/// The addresses that visitors come from.
pub(super) const ONE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
pub(super) const TWO: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Where a visitor comes in. Each has a tunnel of its own, of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Http,
    Https,
    Tcp,
    /// The TLS door.
    Tls,
    /// A TLS tunnel at the HTTPS door.
    TlsBeside,
    Udp,
    Private,
}

impl Door {
    pub(super) const ALL: [Self; 7] = [
        Self::Http,
        Self::Https,
        Self::Tcp,
        Self::Tls,
        Self::TlsBeside,
        Self::Udp,
        Self::Private,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::TlsBeside => "beside",
            Self::Udp => "udp",
            Self::Private => "private",
        }
    }

    /// The kind of its tunnel, as metrics name it.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Https => "http",
            Self::TlsBeside => "tls",
            other => other.name(),
        }
    }

    fn host(self) -> String {
        format!("{}.test", self.name())
    }
}

/// Everything that is open.
pub(super) struct Stage {
    pub(super) world: World,
    pair: Pair,
    tcp: SocketAddr,
    udp: SocketAddr,
    tls: SocketAddr,
    /// The local ports of two forwarding agents, whose links come from
    /// [`ONE`] and [`TWO`].
    locals: Vec<SocketAddr>,
    _agents: Vec<Agent>,
    _between: Between,
    _services: Services,
}

/// The identities of the agents, which a configuration can name before they
/// begin.
pub(super) struct Identities {
    folders: Vec<tempfile::TempDir>,
    /// The one that serves, and the two that forward.
    pub(super) keys: Vec<PublicKey>,
}

impl Identities {
    pub(super) fn new() -> Self {
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let keys = folders.iter().map(|folder| {
            let data = DataFolder::open(folder.path()).unwrap();
            data.identity().unwrap().public()
        });
        let keys = keys.collect();
        Self { folders, keys }
    }
}

/// The services of byte streams: they speak first, then do as they are told,
/// and end with the visitor. `tls`: the first thing that is said is a message
/// of TLS.
fn service(tls: bool) -> SocketAddr {
    origin(move |mut socket: Socket| {
        socket.send("hello\n");
        if tls {
            let head = socket.exactly(5);
            socket.exactly(usize::from(u16::from_be_bytes([head[3], head[4]])));
        }
        bulk::obey(&mut socket);
    })
}

/// The service of requests: its answers last until their visitor goes.
fn web() -> SocketAddr {
    origin(|mut socket: Socket| {
        while let Some(head) = socket.next_head() {
            if head.starts_with("POST ") {
                bulk::answer(&mut socket, &head);
            } else {
                socket.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello\n");
                socket.rest();
            }
        }
    })
}

/// What the tunnels lead to.
struct Services {
    bytes: SocketAddr,
    passed: SocketAddr,
    web: SocketAddr,
    datagrams: SocketAddr,
    _answers: Option<Answerer>,
}

impl Services {
    fn new() -> Self {
        let answers = Answerer::at((Ipv4Addr::LOCALHOST, 0).into(), bulk::answers);
        Self {
            bytes: service(false),
            passed: service(true),
            web: web(),
            datagrams: answers.address,
            _answers: Some(answers),
        }
    }

    fn down() -> Self {
        let datagrams = (Ipv4Addr::LOCALHOST, free_udp_ports(1)[0]).into();
        Self {
            bytes: nobody(),
            passed: nobody(),
            web: nobody(),
            datagrams,
            _answers: None,
        }
    }
}

fn tls_tunnel(name: &str, target: SocketAddr) -> adit_agent::TunnelSettings {
    let mut settings = tcp_tunnel(name, target, None);
    if let Carries::Bytes { by, .. } = &mut settings.carries {
        *by = By::TlsName;
    }
    settings
}

impl Stage {
    /// With these tables of the owner's.
    pub(super) fn new(tables: &str, identities: &Identities) -> Self {
        Self::with("", tables, identities)
    }

    /// With more keys of `[udp]`, too.
    pub(super) fn with(udp_keys: &str, tables: &str, identities: &Identities) -> Self {
        Self::before(Services::new(), (udp_keys, tables), identities)
    }

    /// With services that are all down.
    pub(super) fn before_nobody() -> Self {
        Self::before(Services::down(), ("", ""), &Identities::new())
    }

    fn before(services: Services, (udp_keys, tables): (&str, &str), own: &Identities) -> Self {
        let (tcp, udp) = (free_ports(1)[0], free_udp_ports(1)[0]);
        let pair = Pair::new(&["https.test"]);
        let doors = format!(
            "https = \"127.0.0.1:0\"\ntls = \"127.0.0.1:0\"\n\
             tcp_ports = \"{tcp}\"\nudp_ports = \"{udp}\"\n"
        );
        let certificate = pair.table();
        let flows = format!("[udp]\nidle_seconds = 2\nanswered_seconds = 2\n{udp_keys}");
        let world = World::with_doors(&doors, &format!("{flows}{tables}{certificate}"));
        let mut serves = private::offers(&world, "private", services.bytes, Peers::Any);
        serves.settings.data = own.folders[0].path().to_owned();
        serves.settings.tunnels.extend([
            tunnel("http", &services.web.to_string()),
            tunnel("https", &services.web.to_string()),
            tcp_tunnel("tcp", services.bytes, Some(tcp)),
            tls_tunnel("tls", services.passed),
            tls_tunnel("beside", services.passed),
            udp_tunnel("udp", services.datagrams, Some(udp)),
        ]);
        let agent = private::start(&world, serves);
        for door in Door::ALL {
            agent.wait_live(door.name());
        }
        let between = Between::start_from(TWO, world.link());
        let (mut agents, mut locals) = (vec![agent], Vec::new());
        for (number, by) in [(1, world.link()), (2, between.address)] {
            let mut asks = private::wants(&world, "private", own.keys[0]);
            asks.settings.data = own.folders[number].path().to_owned();
            let agent = private::start(&world, asks.by(&world, by));
            locals.push(private::door(&agent, "private"));
            agents.push(agent);
        }
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            tcp: local(tcp),
            udp: local(udp),
            tls: world.facts().tls.unwrap(),
            world,
            pair,
            locals,
            _agents: agents,
            _between: between,
            _services: services,
        }
    }

    /// How often the owner's rules have turned somebody away for this reason.
    pub(super) fn refused(&self, reason: &str) -> u64 {
        let name = format!("adit_tunnel_refusals_total{{reason=\"{reason}\"}}");
        self.world.metric(&name) as u64
    }

    /// The same for a limit of all doors.
    pub(super) fn limited(&self, reason: &str) -> u64 {
        let name = format!("adit_limit_refusals_total{{reason=\"{reason}\"}}");
        self.world.metric(&name) as u64
    }

    /// A counter of a door's tunnel.
    pub(super) fn tunnel(&self, door: Door, metric: &str) -> u64 {
        let (name, kind) = (door.name(), door.kind());
        let labels = format!("tunnel=\"{name}\",kind=\"{kind}\"");
        let found = match metric.split_once('=') {
            Some((metric, way)) => {
                format!("adit_tunnel_{metric}{{{labels},direction=\"{way}\"}}")
            }
            None => format!("adit_tunnel_{metric}{{{labels}}}"),
        };
        self.world.metric(&found) as u64
    }

    /// Lets an address in by the API door.
    pub(super) fn let_in(&self, door: Door, address: IpAddr) {
        let (api, name) = (self.world.api(), door.name());
        let request = format!(
            "POST /_sys/guests HTTP/1.1\r\nHost: {api}\r\nX-Adit-Tunnel: {name}\r\n\
             X-Adit-Address: {address}\r\nX-Adit-Minutes: 5\r\n\r\n"
        );
        let (answer, _) = Socket::send_to(api, request).rest();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{door:?}");
    }

    /// A connection to a door, TLS that ends there included.
    pub(super) fn dial(&self, door: Door, from: IpAddr) -> std::io::Result<Box<dyn Stream>> {
        // Whoever leaves is gone at once.
        let reset = |socket: &TcpStream| set_socket_linger(socket, Some(Duration::ZERO)).unwrap();
        let raw = |from, to| {
            let socket = Socket::try_dial_from(from, to)?;
            reset(socket.stream());
            Ok::<_, std::io::Error>(Box::new(socket))
        };
        let https = self.world.https();
        let named = |to: SocketAddr| {
            let mut socket = raw(from, to)?;
            socket.write_all(&tls::hello(&door.host()))?;
            Ok::<_, std::io::Error>(socket)
        };
        Ok(match door {
            Door::Http => raw(from, self.world.http())?,
            Door::Https => {
                let socket = connect_from(from, https)?;
                reset(&socket);
                Box::new(tls::over(socket, &self.pair.cert, &door.host()))
            }
            Door::Tcp => raw(from, self.tcp)?,
            Door::Tls => named(self.tls)?,
            Door::TlsBeside => named(https)?,
            Door::Private => raw(ONE, self.locals[usize::from(from == TWO)])?,
            Door::Udp => panic!("a flow is no connection"),
        })
    }

    /// One address and port that speaks to the UDP door.
    pub(super) fn speaker(&self, from: IpAddr) -> Speaker {
        Speaker::from(from, self.udp)
    }

    /// A visitor that wants to come in.
    pub(super) fn enter(&self, door: Door, from: IpAddr) -> Visit {
        match door {
            Door::Udp => self.begin_flow(from),
            Door::Http | Door::Https => {
                let asked = self
                    .dial(door, from)
                    .and_then(|stream| ask(stream, &door.host()));
                // Who is refused may be cut without an answer.
                let Ok((mut stream, status)) = asked else {
                    return Visit::Out(None);
                };
                if status == 200 && greeted(&mut stream) {
                    Visit::In(Guest::Stream(stream))
                } else {
                    Visit::Out(Some(status))
                }
            }
            _ => {
                // Who is refused is cut, perhaps before it knows that it is in.
                let Ok(mut stream) = self.dial(door, from) else {
                    return Visit::Out(None);
                };
                if greeted(&mut stream) {
                    Visit::In(Guest::Stream(stream))
                } else {
                    Visit::Out(None)
                }
            }
        }
    }

    /// Dropped datagrams are the only word of a refusal.
    fn begin_flow(&self, from: IpAddr) -> Visit {
        let dropped = || -> f64 {
            let of = |reason| {
                let name = format!("adit_udp_drops_total{{reason=\"{reason}\"}}");
                self.world.metric(&name)
            };
            ["rule", "no_backend", "flows"].map(of).iter().sum()
        };
        let before = dropped();
        let speaker = self.speaker(from);
        let heard = until("a datagram is answered or dropped", || {
            speaker.say(b"x");
            match speaker.heard(Duration::from_millis(100)) {
                Some(_) => Some(true),
                None if dropped() > before => Some(false),
                None => None,
            }
        });
        if heard {
            Visit::In(Guest::Flow(Kept::new(speaker)))
        } else {
            Visit::Out(None)
        }
    }
}

/// A connection of whatever kind.
pub(super) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Asks for a page that does not end; the status of the answer.
fn ask(mut stream: Box<dyn Stream>, host: &str) -> std::io::Result<(Box<dyn Stream>, u16)> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok((stream, status))
}

/// Whether the service greets; a visitor who is refused is cut.
fn greeted(stream: &mut dyn Stream) -> bool {
    let mut greeting = [0; 6];
    let read = stream.read_exact(&mut greeting);
    assert!(read.is_err() || greeting == *b"hello\n", "{greeting:?}");
    read.is_ok()
}

/// What became of a visitor.
pub(super) enum Visit {
    In(Guest),
    /// With the status that it was told, if it was told one.
    Out(Option<u16>),
}

impl Visit {
    /// Who came in.
    pub(super) fn inside(self, what: &str) -> Guest {
        match self {
            Self::In(guest) => guest,
            Self::Out(status) => panic!("{what}: was turned away ({status:?})"),
        }
    }

    pub(super) fn is_in(&self) -> bool {
        matches!(self, Self::In(_))
    }
}

/// A visitor that is there until this is dropped.
#[expect(dead_code, reason = "held, not looked at")]
pub(super) enum Guest {
    Stream(Box<dyn Stream>),
    Flow(Kept),
}

/// A flow that says something now and then, so that it does not end.
pub(super) struct Kept {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kept {
    fn new(speaker: Speaker) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                speaker.say(b"y");
                let _ = speaker.heard(Duration::from_millis(200));
                let _ = speaker.heard(Duration::from_millis(200));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
