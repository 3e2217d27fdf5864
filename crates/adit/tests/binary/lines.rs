//! A busy service nearby: its visitors' requests share a trunk.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab, Running};

/// More than the streams from which on a link is busy.
const VISITORS: usize = 24;
/// More than a line may hold that is not read, and than all buffers between.
const LARGE: usize = 24 << 20;

/// Answers `/SIZE/WORD` with the word, filled up to that size.
fn service(mut socket: Socket) {
    while let Some(head) = socket.next_head() {
        let path = head.split(' ').nth(1).unwrap();
        let (size, word) = path[1..].split_once('/').unwrap();
        let size = size.parse().unwrap();
        let mut sent = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        sent.extend(body(size, word));
        if std::io::Write::write_all(&mut socket.stream(), &sent).is_err() {
            return;
        }
    }
}

fn body(size: usize, word: &str) -> Vec<u8> {
    word.bytes().cycle().take(size).collect()
}

fn ask(visitor: &mut Socket, size: usize, word: &str) {
    visitor.send(format!(
        "GET /{size}/{word} HTTP/1.1\r\nHost: app.test\r\n\r\n"
    ));
}

/// One request after the other on each of many connections, every answer
/// looked at.
fn crowd(door: SocketAddr, requests: usize) {
    let together = Arc::new(Barrier::new(VISITORS));
    let visitors: Vec<_> = (0..VISITORS)
        .map(|number| {
            let together = Arc::clone(&together);
            thread::spawn(move || {
                let mut visitor = Socket::dial(door);
                // So many streams are open at the same time.
                ask(&mut visitor, 1, "x");
                together.wait();
                visitor.head();
                visitor.exactly(1);
                for count in 0..requests {
                    let word = format!("v{number}c{count}");
                    let size = 1000 * (1 + count % 90);
                    ask(&mut visitor, size, &word);
                    assert!(visitor.head().starts_with("HTTP/1.1 200 "));
                    assert!(visitor.exactly(size) == body(size, &word), "{word}");
                }
            })
        })
        .collect();
    for visitor in visitors {
        visitor.join().unwrap();
    }
}

struct Busy {
    lab: Lab,
    edge: Edge,
    target: String,
}

impl Busy {
    /// An edge and an agent whose link has trunks.
    fn new() -> (Self, Running) {
        let lab = Lab::new();
        let edge = lab.edge("[limits]\nrequests_per_second = 0");
        let target = origin(service).to_string();
        let agent = lab.agent(&edge, "agent", &[&target, "--name", "app"]);
        agent.live("app");
        let busy = Self { lab, edge, target };
        busy.until_lines();
        (busy, agent)
    }

    fn lines(&self) -> f64 {
        self.edge.metric("adit_lines_total")
    }

    /// Visits until the edge opens lines.
    fn until_lines(&self) {
        let before = self.lines();
        until_true("lines are opened", || {
            crowd(self.edge.http, 4);
            self.lines() > before
        });
    }
}

#[test]
fn requests_of_many_visitors_share_a_trunk() {
    let (busy, agent) = Busy::new();
    let (door, opened) = (busy.edge.http, busy.lines());
    crowd(door, 100);
    // What was opened is used again.
    assert!(busy.lines() - opened <= 4.0 * VISITORS as f64);
    // A visitor that does not read holds up nobody, and misses nothing.
    let mut stubborn = Socket::dial(door);
    ask(&mut stubborn, LARGE, "slow");
    assert!(stubborn.head().starts_with("HTTP/1.1 200 "));
    crowd(door, 20);
    assert!(stubborn.exactly(LARGE) == body(LARGE, "slow"));
    let (code, _) = agent.stop();
    assert_eq!(code, Some(0), "an agent with trunks stops in order");
}

/// Whether the answer ended before it was whole, in time.
fn cut_short(visitor: &Socket, killed: Instant) {
    let (mut count, mut bytes) = (0, vec![0; 1 << 16]);
    while let Ok(got @ 1..) = visitor.stream().read(&mut bytes) {
        count += got;
    }
    assert!(count < LARGE, "{count}");
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    visitor.finish();
}

#[test]
fn a_killed_agent_cuts_its_lines_and_comes_back() {
    let (busy, agent) = Busy::new();
    let mut visitors: Vec<_> = (0..8).map(|_| Socket::dial(busy.edge.http)).collect();
    for visitor in &mut visitors {
        ask(visitor, LARGE, "long");
        assert!(visitor.head().starts_with("HTTP/1.1 200 "));
    }
    let killed = Instant::now();
    drop(agent.process.kill());
    for visitor in visitors {
        cut_short(&visitor, killed);
    }
    until_true("nothing of it is left", || {
        busy.edge.metric("adit_channels_busy") < 1.0 && busy.edge.metric("adit_channels_idle") < 1.0
    });
    let more = [&busy.target, "--name", "app"];
    let agent = busy.lab.agent_with("agent", &more, &[]);
    agent.live("app");
    busy.until_lines();
}
