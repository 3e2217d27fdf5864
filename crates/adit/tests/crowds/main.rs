//! Many visitors of one TCP tunnel at once, and visitors and services, also of
//! private tunnels, that never read: what is held for them, and that all others are served. They run one
//! after the other, and apart from all other tests.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "code for tests alone, where a panic is how a test fails"
)]

#[expect(dead_code, reason = "the part of it that these tests need")]
#[path = "../binary/lab.rs"]
mod lab;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use adit_testkit::counters::{Held, held};
use adit_testkit::raw::{Socket, free_ports, origin};
use adit_testkit::wait::{DEADLINE, until, until_true};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use lab::{Edge, Lab, Running};

/// All at the same time.
const VISITORS: usize = 5000;
/// Idle channels that each of the edge's two workers keeps at most; each is a
/// socket of the edge and one of the agent.
const POOL: usize = 40;
/// Of those that never read.
const STUBBORN: usize = 200;
/// What each of them may hold in edge and agent together, in KiB: what one
/// write takes, in each of them, and the rest of a frame.
const HELD_EACH: u64 = 512;

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// An edge and an agent with tunnels to these services.
struct Busy {
    _lab: Lab,
    edge: Edge,
    agents: Vec<Running>,
    ports: Vec<u16>,
}

impl Busy {
    fn new(services: &[SocketAddr]) -> Self {
        let (lab, ports) = (Lab::new(), free_ports(services.len()));
        let list: Vec<_> = ports.iter().map(ToString::to_string).collect();
        let edge = lab.edge_with(
            &["127.0.0.1:0"; 3].map(str::to_owned),
            "[link]\nchannels_per_agent = 6000\n[limits]\nconnections_per_address = 0\n",
            &[("ADIT_DOORS_TCP_PORTS", &list.join(","))],
        );
        let agents = services.iter().zip(&ports).enumerate();
        let agents = agents.map(|(number, (service, port))| {
            let (service, port) = (service.to_string(), port.to_string());
            let (name, data) = (format!("it{number}"), format!("agent{number}"));
            lab.join(&edge, &data);
            let words = [
                "tcp", &service, "--port", &port, "--name", &name, "--data", &data,
            ];
            let agent = lab.start(&words, &[]);
            agent.live(&name);
            agent
        });
        let agents = agents.collect();
        Self {
            _lab: lab,
            edge,
            agents,
            ports,
        }
    }

    /// Of the edge and of all agents.
    fn held(&self) -> Held {
        let ids = self.agents.iter().map(|agent| agent.process.id());
        let ids = ids.chain([self.edge.running.process.id()]);
        let all = ids.map(|id| held(&id.to_string()));
        all.reduce(|a, b| Held {
            descriptors: a.descriptors + b.descriptors,
            memory: a.memory + b.memory,
            threads: a.threads + b.threads,
        })
        .unwrap()
    }

    fn settled(&self) {
        until_true("no stream is open", || {
            self.edge.metric("adit_tcp_streams_open") < 1.0
                && self.edge.metric("adit_connections_open{door=\"tcp\"}") < 1.0
        });
    }

    /// Others are served at this tunnel.
    fn serves(&self, number: usize) {
        for _ in 0..50 {
            let mut visitor = Socket::dial(local(self.ports[number]));
            visitor.send("here\n");
            assert_eq!(visitor.until("here\n"), b"here\n");
            visitor.finish();
            assert_eq!(visitor.rest(), (Vec::new(), true));
        }
    }
}

/// Held by the one test that runs.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This process holds two sockets for each visitor.
fn raise_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let needed = u64::try_from(2 * VISITORS + 1000).unwrap();
    assert!(
        maximum.is_none_or(|most| most >= needed),
        "a process may open {maximum:?} files here, this test needs {needed}"
    );
}

/// Echoes on few threads what so many connections send.
fn echo_for_many() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let mut served = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                served.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                    drop(tokio::io::AsyncWriteExt::shutdown(&mut write).await);
                });
                while served.try_join_next().is_some() {}
            }
        });
    });
    address
}

/// Visitors that come together, each with words of its own, and stay until the
/// last has been answered.
fn crowd(to: SocketAddr, count: usize) {
    const THREADS: usize = 8;
    let together = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let together = Arc::clone(&together);
            thread::spawn(move || {
                let mut visitors: Vec<_> = (0..count / THREADS)
                    .map(|number| (Socket::dial(to), format!("{thread} {number}\n").repeat(20)))
                    .collect();
                for (socket, words) in &mut visitors {
                    socket.send(words.as_bytes());
                }
                for (socket, words) in &mut visitors {
                    assert_eq!(socket.exactly(words.len()), words.as_bytes());
                }
                together.wait();
                for (socket, _) in &mut visitors {
                    socket.finish();
                }
                for (socket, _) in &mut visitors {
                    assert_eq!(socket.rest(), (Vec::new(), true));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn five_thousand_visitors_at_once_are_all_answered() {
    let _alone = alone();
    raise_descriptors();
    let busy = Busy::new(&[echo_for_many()]);
    let (before, mut peaks) = (busy.held(), Vec::new());
    for round in 1..=2 {
        crowd(local(busy.ports[0]), VISITORS);
        busy.settled();
        let all = (round * VISITORS) as f64;
        let count = |name| busy.edge.metric(name);
        assert_eq!(count("adit_tcp_streams_total"), all);
        assert_eq!(count("adit_connections_total{door=\"tcp\"}"), all);
        let kept = until("no more channels are kept than a pool has", || {
            let now = busy.held();
            (now.descriptors < before.descriptors + 4 * POOL + 50).then_some(now)
        });
        peaks.push(kept.memory);
    }
    let first = peaks[0] - before.memory;
    assert!(
        first < 32 * VISITORS as u64,
        "{first} KiB for the first crowd"
    );
    // What the first one had is used again.
    let more = peaks[1].saturating_sub(peaks[0]);
    assert!(more < first / 4, "{more} KiB more after the second crowd");
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..size).map(|_| next()).collect()
}

/// Writes this over and over until nothing more is taken for a while; how much
/// was.
fn fill(stream: &mut TcpStream, part: &[u8]) -> usize {
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut taken = 0;
    loop {
        match stream.write(part.get(taken % part.len()..).unwrap_or_default()) {
            Ok(length) => taken += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return taken,
            Err(error) => panic!("after {taken} bytes: {error}"),
        }
    }
}

/// Sends the same MiB of noise without end.
fn endless() -> SocketAddr {
    origin(|mut socket: Socket| {
        let part = noise(1 << 20);
        while socket.stream().write_all(&part).is_ok() {}
        socket.finish();
        socket.rest();
    })
}

/// Until no byte goes to visitors any more, by this counter.
fn nothing_moves(edge: &Edge, counter: &str) {
    let counter = format!("{counter}{{direction=\"out\"}}");
    let mut last = -1.0;
    until_true("nothing moves any more", || {
        let now = edge.metric(&counter);
        std::mem::replace(&mut last, now) >= now
    });
}

/// Whoever reads after all has missed nothing.
fn reads_after_all(late: &Socket) {
    let mut some = vec![0; 4 << 20];
    late.stream().read_exact(&mut some).unwrap();
    assert!(some.chunks(1 << 20).all(|part| part == noise(1 << 20)));
}

#[test]
fn visitors_that_never_read_hold_little_and_slow_nobody() {
    let _alone = alone();
    let busy = Busy::new(&[endless(), origin(|socket: Socket| socket.echo())]);
    busy.serves(1);
    let before = busy.held();
    let stubborn: Vec<_> = (0..STUBBORN)
        .map(|_| Socket::dial(local(busy.ports[0])))
        .collect();
    until_true("they are all inside", || {
        busy.edge.metric("adit_tcp_streams_open") >= STUBBORN as f64
    });
    nothing_moves(&busy.edge, "adit_tcp_bytes_total");
    busy.serves(1);
    let grown = busy.held().memory.saturating_sub(before.memory);
    assert!(grown < HELD_EACH * STUBBORN as u64, "{grown} KiB");
    reads_after_all(&stubborn[0]);
    drop(stubborn);
    busy.settled();
}

/// Two private tunnels, and where another agent reaches them.
fn private(services: [SocketAddr; 2]) -> Busy {
    let lab = Lab::new();
    let edge = lab.edge("[link]\nchannels_per_agent = 6000\n");
    let [serving, asking] = ["serving", "asking"].map(|who| {
        lab.join(&edge, who);
        let data = lab.text_of(who);
        let said = lab.run(&["key", "show", "--data", &data]);
        said.done().trim().to_owned()
    });
    let (mut agents, mut ports) = (Vec::new(), Vec::new());
    for (service, name) in services.iter().zip(["all", "echo"]) {
        let target = service.to_string();
        let words = ["private", &target, "--name", name, "--peer", &asking];
        let agent = lab.start(&[&words[..], &["--data", "serving"]].concat(), &[]);
        agent.live(name);
        let words = [
            "forward",
            name,
            "--listen",
            "127.0.0.1:0",
            "--peer",
            &serving,
        ];
        let asks = lab.start(&[&words[..], &["--data", "asking"]].concat(), &[]);
        let at = asks.live(name);
        let (_, port) = at.rsplit_once(':').unwrap();
        ports.push(port.parse().unwrap());
        agents.extend([agent, asks]);
    }
    Busy {
        _lab: lab,
        edge,
        agents,
        ports,
    }
}

/// Three processes carry its bytes, and seal them twice.
#[test]
fn who_reads_nothing_of_a_private_tunnel_holds_little_and_slows_nobody() {
    let _alone = alone();
    let busy = private([endless(), origin(|socket: Socket| socket.echo())]);
    busy.serves(1);
    let before = busy.held();
    let count = STUBBORN / 2;
    let stubborn: Vec<_> = (0..count)
        .map(|_| Socket::dial(local(busy.ports[0])))
        .collect();
    until_true("they are all inside", || {
        busy.edge.metric("adit_private_streams_open") >= count as f64
    });
    nothing_moves(&busy.edge, "adit_private_bytes_total");
    busy.serves(1);
    let grown = busy.held().memory.saturating_sub(before.memory);
    assert!(grown < 2 * HELD_EACH * count as u64, "{grown} KiB");
    reads_after_all(&stubborn[0]);
    drop(stubborn);
    until_true("no stream is open", || {
        busy.edge.metric("adit_private_streams_open") < 1.0
    });
}

/// Reads to the end: how many bytes, which must be these over and over.
fn drain(stream: &mut TcpStream, part: &[u8]) -> usize {
    let (mut count, mut bytes) = (0, vec![0; 1 << 16]);
    loop {
        let got = stream.read(&mut bytes).unwrap();
        if got == 0 {
            return count;
        }
        let at = count % part.len();
        let (first, second) = bytes[..got].split_at(got.min(part.len() - at));
        assert!(part[at..].starts_with(first) && part.starts_with(second));
        count += got;
    }
}

/// Visitors that send this without end to a service that reads only after they
/// have been stopped.
fn never_read(visitors: usize, part: &[u8]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = Busy::new(&[
        listener.local_addr().unwrap(),
        origin(|socket: Socket| socket.echo()),
    ]);
    busy.serves(1);
    let before = busy.held();
    let to = local(busy.ports[0]);
    let (sent, stopped) = thread::scope(|scope| {
        let fills: Vec<_> = (0..visitors)
            .map(|_| {
                scope.spawn(|| {
                    let mut stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
                    (fill(&mut stream, part), stream)
                })
            })
            .collect();
        let kept: Vec<_> = fills.iter().map(|_| listener.accept().unwrap().0).collect();
        let filled = fills.into_iter().map(|fill| fill.join().unwrap());
        let (sent, streams): (Vec<_>, Vec<_>) = filled.unzip();
        (sent.iter().sum::<usize>(), (streams, kept))
    });
    busy.serves(1);
    let grown = busy.held().memory.saturating_sub(before.memory);
    assert!(grown < HELD_EACH * visitors as u64, "{grown} KiB");
    let (streams, mut kept) = stopped;
    for stream in &streams {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let read: usize = thread::scope(|scope| {
        let drains: Vec<_> = kept
            .iter_mut()
            .map(|stream| scope.spawn(|| drain(stream, part)))
            .collect();
        drains.into_iter().map(|drain| drain.join().unwrap()).sum()
    });
    assert_eq!(read, sent);
    drop((kept, streams));
    busy.settled();
}

#[test]
fn services_that_never_read_hold_little_and_slow_nobody() {
    let _alone = alone();
    never_read(STUBBORN / 2, &noise(1 << 16));
}

#[test]
fn what_packs_well_holds_no_more_when_it_is_not_read() {
    let _alone = alone();
    // The kernel's buffers hold 200 times as much of it: fewer visitors.
    never_read(STUBBORN / 40, &[7; 1 << 16]);
}
