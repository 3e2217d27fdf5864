//! A visitor: one kept-alive connection to the HTTP door.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MOST: usize = 1 << 20;

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// A visitor's connection.
pub(super) struct Visitor {
    socket: TcpStream,
    host: String,
    buffer: Vec<u8>,
}

impl Visitor {
    /// Connects to a door, to ask for pages of `host`.
    pub(super) async fn connect(door: SocketAddr, host: &str) -> io::Result<Self> {
        let socket = in_time(TcpStream::connect(door)).await?;
        socket.set_nodelay(true)?;
        Ok(Self {
            socket,
            host: host.to_owned(),
            buffer: Vec::new(),
        })
    }

    /// Asks for a path.
    pub(super) async fn get(&mut self, path: &str) -> io::Result<Answer> {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        in_time(self.socket.write_all(head.as_bytes())).await?;
        loop {
            if let Some((answer, used)) = parse(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(answer);
            }
            if in_time(self.socket.read_buf(&mut self.buffer)).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the answer was cut off",
                ));
            }
            if self.buffer.len() > MOST {
                return Err(io::Error::other("the answer is too long"));
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in 10 s")))
}

/// An answer with a length, and how many bytes it took; `None`: not all there.
fn parse(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes).map_err(io::Error::other)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let length = response
        .headers
        .iter()
        .find(|f| f.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|f| {
        std::str::from_utf8(f.value)
            .ok()?
            .trim()
            .parse::<usize>()
            .ok()
    });
    let length = length.filter(|length| *length <= MOST);
    let length = length.ok_or_else(|| io::Error::other("the answer has no length"))?;
    let body = bytes.get(head..head + length);
    Ok(body.map(|body| {
        let answer = Answer {
            status: response.code.unwrap_or(0),
            body: body.to_vec(),
        };
        (answer, head + length)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_waited_for() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabX";
        let (answer, used) = parse(bytes).unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.body.as_slice(), used),
            (200, &b"ab"[..], bytes.len() - 1)
        );
        for cut in 0..bytes.len() - 2 {
            assert!(parse(&bytes[..cut]).unwrap().is_none(), "{cut}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
