//! Much, both ways, at each door.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{Read, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_testkit::raw::Socket;
use adit_testkit::tls;

use super::stage::{Door, ONE, Stage, TWO};

/// Bytes a second that the owner allows.
pub(super) const RATE: u64 = 300_000;
/// Bytes of one visitor.
const BYTES: usize = 120_000;
/// Bytes of two visitors.
pub(super) const ALL: u64 = 2 * BYTES as u64;
/// What two visitors need together, but for the burst of a quarter of a second.
pub(super) const LEAST: Duration = Duration::from_millis(540);
/// How long datagrams are sent.
const FLOOD: Duration = Duration::from_millis(1200);

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

impl Way {
    pub(super) const BOTH: [Self; 2] = [Self::Up, Self::Down];

    fn direction(self) -> &'static str {
        match self {
            Self::Up => "in",
            Self::Down => "out",
        }
    }
}

/// A service of bytes: takes `up N` and so many bytes, and says `k`, or gives
/// as many as `down N` asks for; says back other lines.
pub(super) fn obey(socket: &mut Socket) {
    let (mut line, mut byte) = (Vec::new(), [0]);
    // The visitor may go at any time.
    while let Ok(1) = socket.read(&mut byte) {
        line.push(byte[0]);
        if byte[0] != b'\n' {
            continue;
        }
        let said = String::from_utf8(std::mem::take(&mut line)).unwrap();
        match said.trim().split_once(' ') {
            Some(("up", count)) => {
                socket.exactly(count.parse().unwrap());
                socket.send("k");
            }
            Some(("down", count)) => socket.send(vec![b'd'; count.parse().unwrap()]),
            _ => socket.send(said),
        }
    }
}

/// The same of a request: `POST /up` with a body, or `POST /down`.
pub(super) fn answer(socket: &mut Socket, head: &str) {
    let head = head.to_ascii_lowercase();
    let length = head.split_once("content-length: ").unwrap().1;
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    socket.exactly(length);
    let count = if head.starts_with("post /down") {
        BYTES
    } else {
        1
    };
    socket.send(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n"
    ));
    socket.send(vec![b'd'; count]);
}

/// A service of datagrams: answers each with itself, one that begins with a
/// plus with many.
pub(super) fn answers(said: &[u8], _: u16) -> Vec<Vec<u8>> {
    if said.starts_with(b"+") {
        vec![vec![b'd'; 1000]; 20]
    } else {
        vec![said.to_vec()]
    }
}

fn one(stage: &Stage, door: Door, way: Way, from: IpAddr) {
    let mut stream = stage.dial(door, from).unwrap();
    let much = vec![b'u'; BYTES];
    let (body, answered) = match way {
        Way::Up => (&much[..], 1),
        Way::Down => (&[][..], BYTES),
    };
    let word = format!("{way:?}").to_ascii_lowercase();
    if matches!(door, Door::Http | Door::Https) {
        let head = format!(
            "POST /{word} HTTP/1.1\r\nHost: {}.test\r\nContent-Length: {}\r\n\r\n",
            door.name(),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        stream.flush().unwrap();
        let head = tls::head(&mut stream);
        assert!(head.starts_with("HTTP/1.1 200 "), "{door:?}: {head}");
    } else {
        stream.read_exact(&mut [0; 6]).unwrap();
        stream
            .write_all(format!("{word} {BYTES}\n").as_bytes())
            .unwrap();
        stream.write_all(body).unwrap();
    }
    stream.read_exact(&mut vec![0; answered]).unwrap();
}

/// How long two visitors take together.
pub(super) fn time(stage: &Stage, door: Door, way: Way) -> Duration {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| one(stage, door, way, ONE));
        one(stage, door, way, TWO);
    });
    begun.elapsed()
}

/// How long one takes for what two have.
pub(super) fn time_alone(stage: &Stage, door: Door, way: Way) -> Duration {
    let begun = Instant::now();
    one(stage, door, way, ONE);
    one(stage, door, way, ONE);
    begun.elapsed()
}

/// Sends datagrams far above the rate; that no more than it was carried, and
/// not much less.
pub(super) fn flood(stage: &Stage, way: Way) {
    let carried = || stage.tunnel(Door::Udp, &format!("bytes_total={}", way.direction()));
    let speakers = [stage.speaker(ONE), stage.speaker(TWO)];
    let datagram = match way {
        Way::Up => vec![b'u'; 1000],
        Way::Down => b"+".to_vec(),
    };
    let (before, begun) = (carried(), Instant::now());
    while begun.elapsed() < FLOOD {
        for speaker in &speakers {
            for _ in 0..5 {
                speaker.say(&datagram);
            }
            let _ = speaker.heard(Duration::from_millis(1));
        }
    }
    let moved = (carried() - before) as f64;
    let allowed = RATE as f64 * (0.25 + begun.elapsed().as_secs_f64());
    assert!(
        moved < allowed + 20_000.0 && moved > allowed / 3.0,
        "{way:?}: {moved} of {allowed}"
    );
}
