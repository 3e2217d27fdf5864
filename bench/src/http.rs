//! The visitors: keep-alive connections, and one connection a request.
//!
//! Each answer is checked (status, length) before the next request goes out,
//! so a subject cannot be fast by being wrong. A visitor that meets an error
//! counts it and starts again on a new connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::origin::SMALL;

/// A response's head and small body fit, with room to spare.
const BUFFER: usize = 8192;
/// How long past its end a load may hang before it counts as an error.
const GRACE: Duration = Duration::from_secs(5);
/// A visitor gives up after so many errors.
const MOST_ERRORS: u64 = 100;

/// Where visitors go.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    /// The address that they connect to.
    pub(crate) address: SocketAddr,
    /// The `Host` that they ask for.
    pub(crate) host: String,
}

/// What visitors saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Correct answers.
    pub(crate) answers: u64,
    /// Everything else.
    pub(crate) errors: u64,
    /// Body bytes received.
    pub(crate) bytes: u64,
    /// From the first byte sent (or the first SYN) to the last received, in µs.
    pub(crate) micros: Vec<u32>,
    /// Seconds from the start of the load to its last answer.
    pub(crate) seconds: f64,
}

impl Seen {
    /// The time below which `share` (0 to 1) of the answers came, in ms.
    pub(crate) fn percentile(&mut self, share: f64) -> f64 {
        if self.micros.is_empty() {
            return f64::NAN;
        }
        let last = self.micros.len() - 1;
        let rank = (last as f64 * share).round() as usize;
        let (_, value, _) = self.micros.select_nth_unstable(rank.min(last));
        f64::from(*value) / 1000.0
    }

    /// What all visitors of a load saw that began at `begun`, once the last has
    /// ended.
    pub(crate) async fn of(mut visitors: JoinSet<Self>, begun: Instant) -> Self {
        let mut seen = Self::default();
        while let Some(done) = visitors.join_next().await {
            match done {
                Ok(one) => seen.add(one),
                Err(_) => seen.errors += 1,
            }
        }
        seen.seconds = begun.elapsed().as_secs_f64();
        seen
    }

    /// Adds another visitor's.
    fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.errors += other.errors;
        self.bytes += other.bytes;
        self.micros.extend(other.micros);
    }
}

/// `connections` visitors that each send one request after the other.
pub(crate) async fn keepalive(door: &Door, connections: usize, length: Duration) -> Seen {
    visitors(door, connections, length, Manner::Keep).await
}

/// `visitors` at a time, each request on a new connection.
pub(crate) async fn fresh(door: &Door, visitors_at_a_time: usize, length: Duration) -> Seen {
    visitors(door, visitors_at_a_time, length, Manner::Close).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Keep,
    Close,
}

async fn visitors(door: &Door, count: usize, length: Duration, manner: Manner) -> Seen {
    let begun = Instant::now();
    let until = begun + length;
    let mut set = JoinSet::new();
    for _ in 0..count {
        let door = door.clone();
        set.spawn(visitor(door, until, manner));
    }
    Seen::of(set, begun).await
}

async fn visitor(door: Door, until: Instant, manner: Manner) -> Seen {
    let mut seen = Seen::default();
    while Instant::now() < until && seen.errors < MOST_ERRORS {
        let life = async {
            match manner {
                Manner::Keep => keep(&door, until, &mut seen).await,
                Manner::Close => once(&door, &mut seen).await,
            }
        };
        if !matches!(timeout_at(until + GRACE, life).await, Ok(Ok(()))) {
            seen.errors += 1;
        }
    }
    seen
}

async fn keep(door: &Door, until: Instant, seen: &mut Seen) -> io::Result<()> {
    let mut stream = TcpStream::connect(door.address).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET /small HTTP/1.1\r\nHost: {}\r\n\r\n", door.host);
    let mut buffer = vec![0; BUFFER];
    while Instant::now() < until {
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        answer(&mut stream, &mut buffer).await?;
        note(seen, begun);
    }
    Ok(())
}

/// Waits for the server to close first, so that `TIME_WAIT` is its, and the
/// visitors' ports do not run out.
async fn once(door: &Door, seen: &mut Seen) -> io::Result<()> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(door.address).await?;
    let request = format!(
        "GET /small HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        door.host
    );
    stream.write_all(request.as_bytes()).await?;
    let mut buffer = [0; BUFFER];
    answer(&mut stream, &mut buffer).await?;
    if stream.read(&mut buffer).await? != 0 {
        return Err(wrong("bytes after the answer"));
    }
    note(seen, begun);
    Ok(())
}

fn note(seen: &mut Seen, begun: Instant) {
    seen.answers += 1;
    seen.bytes += SMALL as u64;
    seen.micros
        .push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
}

/// Reads one small answer and nothing more.
async fn answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    let (mut have, body) = head(stream, buffer).await?;
    if body.length != SMALL {
        return Err(wrong("the length of the answer"));
    }
    let all = body.begins + body.length;
    while have < all {
        let rest = buffer
            .get_mut(have..all)
            .ok_or_else(|| wrong("an endless head"))?;
        match stream.read(rest).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
    }
    if have == all {
        Ok(())
    } else {
        Err(wrong("bytes after the answer"))
    }
}

/// Where the body of an answer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Body {
    /// Offset of its first byte.
    pub(crate) begins: usize,
    /// Its length.
    pub(crate) length: usize,
}

/// Reads until the head of a 200 is whole; says how much was read.
pub(crate) async fn head(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Body)> {
    let mut have = 0;
    loop {
        let rest = buffer.get_mut(have..).filter(|rest| !rest.is_empty());
        let rest = rest.ok_or_else(|| wrong("an endless head"))?;
        match stream.read(rest).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => have += n,
        }
        if let Some(body) = parse(buffer.get(..have).unwrap_or_default())? {
            return Ok((have, body));
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Option<Body>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let status = response
        .parse(bytes)
        .map_err(|_| wrong("the head of the answer"))?;
    let httparse::Status::Complete(begins) = status else {
        return Ok(None);
    };
    if response.code != Some(200) {
        return Err(wrong("the status of the answer"));
    }
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok())
        .ok_or_else(|| wrong("an answer without its length"))?;
    Ok(Some(Body { begins, length }))
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_heads() {
        let head = b"HTTP/1.1 200 OK\r\nContent-length: 7\r\n\r\nab";
        assert_eq!(
            parse(head).expect("good"),
            Some(Body {
                begins: 38,
                length: 7
            })
        );
        assert_eq!(parse(&head[..30]).expect("good"), None);
        assert!(parse(b"HTTP/1.1 502 Bad\r\nContent-Length: 7\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let micros = (0..=100_u32).rev().map(|n| n * 1000).collect();
        let mut seen = Seen {
            micros,
            ..Seen::default()
        };
        assert_eq!((seen.percentile(0.5), seen.percentile(0.99)), (50.0, 99.0));
    }
}
