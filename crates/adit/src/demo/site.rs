//! The sample site: one page over HTTP/1.1, so small that nothing else needs
//! to be installed. It stands for somebody's service, so it knows nothing of
//! Adit; what it shows is what reached it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_link::entropy;
use adit_link::tasks::Tasks;
use adit_model::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::failure::Failure;

const PAGE: &str = include_str!("page.html");
/// Most bytes of a request's head.
const HEAD: usize = 16 * 1024;
/// How long a kept-alive connection may be silent.
const IDLE: Duration = Duration::from_secs(60);

/// A running site.
pub(crate) struct Site {
    address: SocketAddr,
    mark: Arc<str>,
}

impl Site {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// The system gives none.
    pub(crate) async fn open(tasks: &Tasks) -> Result<Self, Failure> {
        let failed = |error| {
            Failure::new(
                Code::DOOR_FAILED,
                format!("the sample site cannot listen: {error}"),
            )
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let bytes: [u8; 8] = entropy::random().map_err(failed)?;
        let mark: Arc<str> = format!("{:016x}", u64::from_be_bytes(bytes)).into();
        let (own, marked) = (tasks.clone(), Arc::clone(&mark));
        tasks.spawn_until_stopped(async move {
            loop {
                if let Ok((socket, _)) = listener.accept().await {
                    let mark = Arc::clone(&marked);
                    own.spawn_until_stopped(async move { drop(serve(socket, &mark).await) });
                }
            }
        });
        Ok(Self { address, mark })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What only this site puts into its page.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }
}

/// Serves one connection, request after request.
async fn serve(mut socket: TcpStream, mark: &str) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer: Vec<u8> = Vec::with_capacity(2048);
    loop {
        let length = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            let read = timeout(IDLE, socket.read_buf(&mut buffer)).await;
            if buffer.len() > HEAD || !matches!(read, Ok(Ok(1..))) {
                return Ok(());
            }
        };
        let (answer, keep) = answer(&buffer[..length], mark);
        socket.write_all(&answer).await?;
        if !keep {
            return socket.shutdown().await;
        }
        buffer.drain(..length);
    }
}

/// The answer to a head, and whether the connection goes on.
fn answer(head: &[u8], mark: &str) -> (Vec<u8>, bool) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    let whole = matches!(request.parse(head), Ok(httparse::Status::Complete(_)));
    let (Some(method), Some(path), true) = (request.method, request.path, whole) else {
        return (
            respond(
                "400 Bad Request",
                "not understood\n",
                "text/plain",
                true,
                false,
            ),
            false,
        );
    };
    let field = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|f| f.name.eq_ignore_ascii_case(name));
        found.map(|f| String::from_utf8_lossy(f.value).into_owned())
    };
    // The site takes no bodies; one that comes ends the connection.
    let body = field("transfer-encoding").is_some()
        || field("content-length").is_some_and(|length| length.trim() != "0");
    let keep = !body && !field("connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
    let text = match (method, path.split('?').next()) {
        ("GET" | "HEAD", Some("/")) => {
            let page = page(&field, mark);
            respond(
                "200 OK",
                &page,
                "text/html; charset=utf-8",
                method == "GET",
                keep,
            )
        }
        ("GET" | "HEAD", _) => respond(
            "404 Not Found",
            "there is one page only: /\n",
            "text/plain",
            method == "GET",
            keep,
        ),
        _ => respond(
            "405 Method Not Allowed",
            "look at / with GET\n",
            "text/plain",
            true,
            keep,
        ),
    };
    (text, keep)
}

fn page(field: &dyn Fn(&str) -> Option<String>, mark: &str) -> String {
    let shown = |name: &str| field(name).map_or_else(|| "none".to_owned(), |value| escape(&value));
    PAGE.replace("{{host}}", &shown("host"))
        .replace("{{visitor}}", &shown("x-forwarded-for"))
        .replace("{{request}}", &shown("x-request-id"))
        .replace("{{mark}}", mark)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn respond(status: &str, body: &str, kind: &str, with_body: bool, keep: bool) -> Vec<u8> {
    let connection = if keep { "" } else { "Connection: close\r\n" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{connection}\r\n",
        body.len()
    );
    let mut bytes = head.into_bytes();
    if with_body {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(head: &str) -> (String, bool) {
        let (bytes, keep) = answer(head.as_bytes(), "0123");
        (String::from_utf8(bytes).unwrap(), keep)
    }

    #[test]
    fn the_page_shows_what_reached_the_site() {
        let (text, keep) =
            ask("GET /?x HTTP/1.1\r\nHost: demo.localhost\r\nX-Forwarded-For: <b>\r\n\r\n");
        assert!(keep && text.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(text.contains("demo.localhost") && text.contains("0123"));
        assert!(text.contains("&lt;b&gt;") && !text.contains("<b>") && !text.contains("{{"));
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(&format!("Content-Length: {}\r\n", body.len())));
    }

    #[test]
    fn other_requests_are_answered_in_order() {
        assert!(ask("HEAD / HTTP/1.1\r\n\r\n").0.ends_with("\r\n\r\n"));
        assert!(ask("GET /x HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 404"));
        assert!(
            ask("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n")
                .0
                .starts_with("HTTP/1.1 405")
        );
        assert!(!ask("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n").1);
        assert!(!ask("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").1);
        assert!(ask("nonsense\r\n\r\n").0.starts_with("HTTP/1.1 400"));
    }
}
