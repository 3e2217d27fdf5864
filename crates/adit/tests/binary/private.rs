//! Private tunnels between processes: a real database, `kill -9`, revocation,
//! and what the edge in between holds of what was said.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use adit_model::JoinString;
use adit_testkit::between::Between;
use adit_testkit::postgres::{Postgres, client, conversation};
use adit_testkit::process::Process;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab, Running};

/// What both ends of a stream wait for at most, when what is between is gone.
const SOON: Duration = Duration::from_secs(1);

/// Data folders of the agent that has the service, and of the one that asks.
const SERVING: &str = "serving";
const ASKING: &str = "asking";

fn key(lab: &Lab, who: &str) -> String {
    let data = lab.text_of(who);
    let said = lab.run(&["key", "show", "--data", &data]).done();
    said.trim().to_owned()
}

fn serve(lab: &Lab, target: SocketAddr) -> Running {
    let (target, peer) = (target.to_string(), key(lab, ASKING));
    let agent = lab.start(
        &[
            "private", &target, "--name", "db", "--peer", &peer, "--data", SERVING,
        ],
        &[("ADIT_LOG_LEVEL", "trace")],
    );
    assert_eq!(agent.live("db"), "private:db");
    agent
}

/// The agent that asks, and its local door.
fn ask(lab: &Lab) -> (Running, SocketAddr) {
    let peer = key(lab, SERVING);
    let words = ["forward", "db", "--listen", "127.0.0.1:0", "--peer", &peer];
    let agent = lab.start(&[&words[..], &["--data", ASKING]].concat(), &[]);
    let url = agent.live("db");
    let at = url.strip_prefix("tcp://").unwrap().parse().unwrap();
    (agent, at)
}

/// A service that sends without end, and tells whether a visitor ended in
/// order rather than by a reset.
fn endless() -> (SocketAddr, Receiver<bool>) {
    let (told, ends) = channel();
    let at = origin(move |mut socket: Socket| {
        let mut sending = socket.stream().try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            loop {
                if let Err(error) = sending.write_all(&[b'x'; 4096]) {
                    return error.kind();
                }
            }
        });
        let (_, clean) = socket.rest();
        // The system tells a reset once, to whichever of both looks first.
        let reset = sender.join().unwrap() == ErrorKind::ConnectionReset;
        // The receiver may be gone with its test.
        let _ = told.send(clean && !reset);
    });
    (at, ends)
}

/// A pair of agents with a stream on which bytes move.
struct Pair {
    edge: Edge,
    serving: Running,
    asking: Running,
    at: SocketAddr,
    service: SocketAddr,
    visitor: Socket,
    ends: Receiver<bool>,
}

impl Pair {
    fn start(lab: &Lab) -> Self {
        let edge = lab.edge("");
        for who in [SERVING, ASKING] {
            lab.join(&edge, who);
        }
        let (service, ends) = endless();
        let serving = serve(lab, service);
        let (asking, at) = ask(lab);
        let mut visitor = Socket::dial(at);
        visitor.exactly(1_000_000);
        Self {
            edge,
            serving,
            asking,
            at,
            service,
            visitor,
            ends,
        }
    }
}

/// Whether the service answers behind the local door.
fn answers(at: SocketAddr) -> bool {
    let mut some = [0; 1000];
    let mut socket = TcpStream::connect(at).unwrap();
    socket.read_exact(&mut some).is_ok() && some == [b'x'; 1000]
}

#[test]
fn a_killed_serving_agent_resets_who_is_connected_within_a_second() {
    let lab = Lab::new();
    let mut pair = Pair::start(&lab);
    let killed = Instant::now();
    drop(pair.serving.process.kill());
    let (_, clean) = pair.visitor.rest();
    let took = killed.elapsed();
    assert!(!clean && took < SOON, "{clean} {took:?}");
    until_true("the counters are true", || {
        pair.edge.metric("adit_private_streams_open") < 1.0
    });
    // It comes back, and who came too early has waited.
    let at = pair.at;
    let early = std::thread::spawn(move || answers(at));
    let _again = serve(&lab, pair.service);
    assert!(early.join().unwrap());
}

#[test]
fn a_killed_forwarder_resets_the_service_within_a_second() {
    let lab = Lab::new();
    let pair = Pair::start(&lab);
    let killed = Instant::now();
    drop(pair.asking.process.kill());
    let clean = pair.ends.recv().unwrap();
    let took = killed.elapsed();
    assert!(!clean && took < SOON, "{clean} {took:?}");
}

#[test]
fn a_killed_edge_resets_both_ends_and_leads_there_again_when_it_is_back() {
    let lab = Lab::new();
    let mut pair = Pair::start(&lab);
    let (doors, killed) = (pair.edge.doors(), Instant::now());
    drop(pair.edge.running.process.kill());
    let (_, clean) = pair.visitor.rest();
    let service_clean = pair.ends.recv().unwrap();
    let took = killed.elapsed();
    assert!(!clean && !service_clean && took < SOON, "{took:?}");
    let _again = lab.edge_at(&doors, "");
    until_true("it leads there again", || answers(pair.at));
}

#[test]
fn a_revoked_agent_of_either_side_loses_its_private_streams_within_a_second() {
    for who in [SERVING, ASKING] {
        let lab = Lab::new();
        let mut pair = Pair::start(&lab);
        let said = pair.edge.ask(&lab, &["agents", "revoke", &key(&lab, who)]);
        let done = Instant::now();
        let (_, clean) = pair.visitor.rest();
        let service_clean = pair.ends.recv().unwrap();
        let took = done.elapsed();
        assert!(
            !clean && !service_clean && took < SOON,
            "{who}: {clean} {service_clean} {took:?}"
        );
        assert!(said.done().contains("1 live link ended"));
        let revoked = match who {
            SERVING => pair.serving,
            _ => pair.asking,
        };
        assert_eq!(revoked.ended().code, 3, "{who}");
    }
}

/// On SIGTERM of the agent that asks nobody comes in any more, and who is
/// there goes on to the end.
#[test]
fn a_forwarder_that_stops_lets_its_connections_end() {
    let lab = Lab::new();
    let edge = lab.edge("");
    for who in [SERVING, ASKING] {
        lab.join(&edge, who);
    }
    let service = origin(|mut socket: Socket| {
        socket.send("hello\n");
        let (said, _) = socket.rest();
        socket.send(said);
    });
    let _serving = serve(&lab, service);
    let (asking, at) = ask(&lab);
    let mut visitor = Socket::dial(at);
    visitor.until("hello\n");
    asking.process.terminate();
    until_true("it takes no more", || TcpStream::connect(at).is_err());
    visitor.send(vec![b'y'; 1_000_000]);
    visitor.finish();
    let (rest, clean) = visitor.rest();
    assert!(clean && rest == vec![b'y'; 1_000_000], "{}", rest.len());
    assert_eq!(asking.ended().code, 0);
}

/// Whether a process has these bytes anywhere in its memory now.
fn remembers(process: u32, bytes: &[u8]) -> bool {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{process}/mem")).unwrap();
    let ranges = maps.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (begin, end) = words.next()?.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let readable = words.next()?.starts_with("rw");
        readable.then_some(number(begin)?..number(end)?)
    });
    let mut looked = 0;
    let found = ranges.into_iter().any(|range| {
        let mut held = vec![0; usize::try_from(range.end - range.start).unwrap()];
        // A range may be gone since, as stacks of threads are.
        if memory.read_exact_at(&mut held, range.start).is_err() {
            return false;
        }
        looked += held.len();
        held.windows(bytes.len()).any(|part| part == bytes)
    });
    assert!(found || looked > 1 << 20, "its memory could not be read");
    found
}

#[test]
fn postgresql_is_reached_from_another_agent_and_the_edge_reads_none_of_it() {
    const QUESTION: &str = "pK7wq3LrZx9vNc2k";
    const ROW: &str = "Xa5tGv0oRi2lWn9h";
    let (lab, server) = (Lab::new(), Postgres::start());
    let stored = format!("create table kept (word text); insert into kept values ('{ROW}')");
    let stored = Process::run(client(server.address, &stored));
    assert!(stored.status.success(), "{}", stored.text());
    let doors = ["127.0.0.1:0"; 3].map(str::to_owned);
    let edge = lab.edge_with(&doors, "", &[("ADIT_LOG_LEVEL", "trace")]);
    let between = Between::start(edge.link);
    for who in [SERVING, ASKING] {
        let mut join: JoinString = edge.join(&lab).parse().unwrap();
        join.addresses = vec![between.address.to_string()];
        let (join, pin, data) = (join.expose(), edge.pin(&lab), lab.text_of(who));
        let variables = [("ADIT_EDGE", join.as_str()), ("ADIT_PIN", pin.as_str())];
        lab.run_with(&["join", "--data", &data], &variables).done();
    }
    let serving = serve(&lab, server.address);
    let (_asking, at) = ask(&lab);
    // The command for the other side, which is printed, is the one that works.
    let printed = format!(
        "adit forward db --listen 127.0.0.1:{} --peer {}",
        server.address.port(),
        key(&lab, SERVING)
    );
    assert!(serving.log().contains(&printed), "{}", serving.log());
    let mut psql = conversation(at);
    psql.say(&format!(
        "select word || ' of {QUESTION}' from kept;\n\\echo asked\n"
    ));
    psql.line("the row", |line| {
        (line == format!("{ROW} of {QUESTION}")).then_some(())
    });
    psql.line("the end of the answer", |line| {
        (line == "asked").then_some(())
    });
    // What the edge has of it, while the stream is open.
    edge.running.logged("tunnel is open");
    let (id, log) = (edge.running.process.id(), edge.running.log());
    let passed = between.passed();
    let sent: usize = passed.iter().map(|one| one.sent.len()).sum();
    assert!(sent > 1000 && passed.len() >= 6, "{sent} {}", passed.len());
    for secret in [QUESTION, ROW] {
        assert!(!log.contains(secret), "{secret} is in the edge's log");
        let heard = |bytes: &[u8]| {
            bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes())
        };
        let crossed = passed
            .iter()
            .any(|one| heard(&one.sent) || heard(&one.received));
        assert!(!crossed, "{secret} crossed the network");
        assert!(!remembers(id, secret.as_bytes()), "the edge holds {secret}");
    }
    // The same look finds what it was told.
    let told = server.address.to_string();
    assert!(remembers(id, told.as_bytes()), "it knows the target");
    drop(psql);
    let again = Process::run(client(at, "select count(*) from kept"));
    assert_eq!(again.lines, ["1"]);
}
