use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::http::{Door, Seen, head, keepalive};
use crate::origin::LARGE;

/// A visitor reads in pieces of this size.
const BUFFER: usize = 256 << 10;
/// How long past its end the last download may take.
const GRACE: Duration = Duration::from_secs(30);

/// `streams` visitors that download one large answer after the other, each on
/// its one connection, and finish the one they are at when the time is up.
pub(crate) async fn download(
    door: &Door,
    path: &'static str,
    streams: usize,
    length: Duration,
) -> Seen {
    let begun = Instant::now();
    let until = begun + length;
    let mut set = JoinSet::new();
    for _ in 0..streams {
        let door = door.clone();
        set.spawn(async move {
            let mut seen = Seen::default();
            let life = one(&door, path, until, &mut seen);
            let fine = matches!(timeout_at(until + GRACE, life).await, Ok(Ok(())));
            seen.errors += u64::from(!fine);
            seen
        });
    }
    Seen::of(set, begun).await
}

/// How long a flow has to find its speed before it counts.
const RISE: Duration = Duration::from_secs(3);
/// Visitors that ask for little beside a flow.
const ASKING: usize = 8;

/// One visitor whose download goes on without an end; what came within
/// `length` after it has found its speed.
pub(crate) async fn flow(door: &Door, length: Duration) -> Seen {
    let mut seen = Seen::default();
    let begun = Instant::now() + RISE;
    let fine = timeout_at(begun + length, endless(door, begun, &mut seen)).await;
    // It is over when its time is up and not before.
    seen.errors += u64::from(fine.is_ok());
    seen.seconds = length.as_secs_f64();
    seen
}

/// A flow, and visitors that ask for little beside it: the bytes are the
/// flow's, all else is theirs.
pub(crate) async fn beside(door: &Door, length: Duration) -> Seen {
    let asking = async {
        sleep(RISE).await;
        keepalive(door, ASKING, length).await
    };
    let (flow, asked) = tokio::join!(flow(door, length), asking);
    Seen {
        bytes: flow.bytes,
        errors: flow.errors + asked.errors,
        seconds: flow.seconds,
        ..asked
    }
}

async fn endless(door: &Door, from: Instant, seen: &mut Seen) -> io::Result<()> {
    let mut stream = TcpStream::connect(door.address).await?;
    let request = format!("GET /large HTTP/1.1\r\nHost: {}\r\n\r\n", door.host);
    let mut buffer = vec![0; BUFFER];
    loop {
        stream.write_all(request.as_bytes()).await?;
        let (have, body) = head(&mut stream, &mut buffer).await?;
        let mut rest = LARGE + body.begins - have;
        while rest > 0 {
            let most = rest.min(buffer.len());
            match stream.read(&mut buffer[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    rest -= n;
                    if Instant::now() >= from {
                        seen.bytes += n as u64;
                    }
                }
            }
        }
    }
}

async fn one(door: &Door, path: &str, until: Instant, seen: &mut Seen) -> io::Result<()> {
    let mut stream = TcpStream::connect(door.address).await?;
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", door.host);
    let mut buffer = vec![0; BUFFER];
    while Instant::now() < until {
        stream.write_all(request.as_bytes()).await?;
        let (have, body) = head(&mut stream, &mut buffer).await?;
        if body.length != LARGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the length of the answer",
            ));
        }
        let mut rest = LARGE + body.begins - have;
        while rest > 0 {
            let most = rest.min(buffer.len());
            match stream.read(&mut buffer[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => rest -= n,
            }
        }
        seen.answers += 1;
        seen.bytes += LARGE as u64;
    }
    Ok(())
}
