//! The API door: `GET /metrics`, `GET /_sys/health` and `POST /_sys/guests`, for
//! this machine only.
//!
//! It has no authentication yet, so that it serves loopback alone, and checks
//! that the `Host` is a loopback name or address: a page that a browser was led
//! to by DNS rebinding still carries the stranger's name there. One request a
//! connection, no bodies. Everything else is a bare 404.
//!
//! Invariant: bounded in every direction: connections at a time, bytes of a
//! head, seconds of a connection.

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_link::owner::linger;
use adit_link::told::not_accepted;
use adit_model::TunnelName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::limits::Limits;
use crate::metrics::{Door, Metrics, Phase, ProcessFacts, tunnels};
use crate::rules::Rules;
use crate::seldom::Seldom;
use crate::traffic::Ledger;

/// Connections at a time; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
/// Most bytes of a request's head.
const MAX_HEAD: usize = 8 * 1024;
/// Most fields of it.
const MAX_FIELDS: usize = 64;
/// A connection is over after this, whatever its peer does.
const DEADLINE: Duration = Duration::from_secs(5);

/// Why the API door cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Bound to an address that others reach.
    #[error(
        "the API door has no authentication yet and cannot stand on {0}: bind it to 127.0.0.1 or ::1"
    )]
    NotLoopback(SocketAddr),
    /// The socket is not usable.
    #[error("the API door's socket does not work: {0}")]
    Io(#[from] io::Error),
}

/// What the door shows.
#[derive(Debug)]
pub struct ApiDoor {
    /// All counters.
    pub metrics: Arc<Metrics>,
    /// Asked how many addresses are banned when a page is written.
    pub limits: Arc<Limits>,
    /// Where guests are let in.
    pub(crate) rules: Arc<Rules>,
    /// What each tunnel has carried.
    pub(crate) ledger: Arc<Ledger>,
}

/// Serves the door until `stop`; open connections then have their deadline.
///
/// # Errors
/// [`ApiError::NotLoopback`] for a listener that others could reach.
pub async fn serve(
    listener: TcpListener,
    door: Arc<ApiDoor>,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let local = listener.local_addr()?;
    if !local.ip().to_canonical().is_loopback() {
        return Err(ApiError::NotLoopback(local));
    }
    let mut connections = JoinSet::new();
    let seldom = Seldom::default();
    loop {
        while connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
        }
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            _ = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                door.metrics.doors.accepted.of(Door::Api).add(1);
                let door = Arc::clone(&door);
                connections.spawn(async move {
                    let _open = door.metrics.doors.open.of(Door::Api).hold();
                    // The peer's business: it went away or was too slow.
                    let _ = timeout(DEADLINE, converse(socket, &door)).await;
                });
            }
            Err(error) => {
                let Some(code) = not_accepted(&error) else {
                    continue;
                };
                door.metrics.doors.accept_errors.of(Door::Api).add(1);
                if let Some(times) = seldom.one_more(Instant::now()) {
                    tracing::warn!(%code, %error, times, "the API door could not accept connections");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn converse(mut socket: TcpStream, door: &ApiDoor) -> io::Result<()> {
    let mut head = Vec::with_capacity(1024);
    let answer = loop {
        if (&mut socket)
            .take((MAX_HEAD - head.len()) as u64)
            .read_buf(&mut head)
            .await?
            == 0
        {
            let is_full = head.len() >= MAX_HEAD;
            break if is_full {
                Answer::bare(431)
            } else {
                return Ok(());
            };
        }
        match read(&head) {
            Read::Partial => {}
            Read::Asked { question, body } => break answer(&question, door).with_body(body),
            Read::Refused(status) => break Answer::bare(status),
        }
    };
    socket.write_all(answer.to_bytes().as_bytes()).await?;
    socket.shutdown().await?;
    linger(&mut socket).await
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Question {
    Metrics,
    Health,
    LetIn(Guest),
    Other,
}

/// Who is to be let in where, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Guest {
    tunnel: TunnelName,
    address: IpAddr,
    time: Duration,
}

/// Longest time for which an address is let in: a day.
const MAX_MINUTES: u64 = 24 * 60;

/// In headers of its own: a page in a browser cannot send these to another
/// origin without asking first, and nobody answers that question.
fn guest(headers: &[httparse::Header<'_>]) -> Option<Guest> {
    let one = |name: &str| {
        let mut named = headers.iter().filter(|f| f.name.eq_ignore_ascii_case(name));
        let only = named.next().filter(|_| named.next().is_none())?;
        std::str::from_utf8(only.value).ok()
    };
    let minutes: u64 = one("x-adit-minutes")?.parse().ok()?;
    if !(1..=MAX_MINUTES).contains(&minutes) {
        return None;
    }
    Some(Guest {
        tunnel: TunnelName::parse(one("x-adit-tunnel")?).ok()?,
        address: one("x-adit-address")?.parse().ok()?,
        time: Duration::from_secs(60 * minutes),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Partial,
    /// `body`: not for HEAD.
    Asked {
        question: Question,
        body: bool,
    },
    Refused(u16),
}

/// Reads a head. Order: grammar, then `Host`, then the path, so that a
/// rebound name learns nothing about paths.
fn read(bytes: &[u8]) -> Read {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Read::Partial,
        Err(httparse::Error::TooManyHeaders) => return Read::Refused(431),
        Err(_) => return Read::Refused(400),
    }
    let named = |name: &'static str| {
        let is_it = move |f: &&httparse::Header<'_>| f.name.eq_ignore_ascii_case(name);
        request.headers.iter().filter(is_it).map(|f| f.value)
    };
    let mut hosts = named("host");
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Read::Refused(400);
    };
    let has_body =
        named("transfer-encoding").next().is_some() || named("content-length").any(|v| v != b"0");
    if has_body {
        return Read::Refused(400);
    }
    if !std::str::from_utf8(host).is_ok_and(is_loopback_host) {
        return Read::Refused(421);
    }
    let method = request.method.unwrap_or_default();
    Read::Asked {
        question: match (method, request.path) {
            ("GET" | "HEAD", Some("/metrics")) => Question::Metrics,
            ("GET" | "HEAD", Some("/_sys/health")) => Question::Health,
            ("POST", Some("/_sys/guests")) => match guest(request.headers) {
                Some(guest) => Question::LetIn(guest),
                None => return Read::Refused(400),
            },
            _ => Question::Other,
        },
        body: method != "HEAD",
    }
}

/// `localhost`, an address of 127.0.0.0/8 or `[::1]`, with or without a port.
fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, port)) => {
            return is_port(port) && v6.parse() == Ok(IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]));
        }
        None => host.find(':').map_or((host, ""), |at| host.split_at(at)),
    };
    let is_address = || {
        let address = name.parse::<std::net::Ipv4Addr>();
        address.is_ok_and(|address| address.is_loopback())
    };
    is_port(port) && (name.eq_ignore_ascii_case("localhost") || is_address())
}

/// Nothing, or `:` and a number that may be absent (RFC 3986 §3.2.3).
fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        None => text.is_empty(),
        Some("") => true,
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok(),
    }
}

struct Answer {
    status: u16,
    kind: &'static str,
    body: String,
    with_body: bool,
}

impl Answer {
    fn bare(status: u16) -> Self {
        Self {
            status,
            kind: "text/plain",
            body: String::new(),
            with_body: true,
        }
    }

    fn with_body(self, with_body: bool) -> Self {
        Self { with_body, ..self }
    }

    fn to_bytes(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            409 => "Conflict",
            400 => "Bad Request",
            404 => "Not Found",
            421 => "Misdirected Request",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let mut out = String::with_capacity(self.body.len() + 256);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n{}",
            self.status,
            self.kind,
            self.body.len(),
            if self.with_body { &self.body } else { "" },
        );
        out
    }
}

fn answer(question: &Question, door: &ApiDoor) -> Answer {
    match question {
        Question::Metrics => {
            let census = door.limits.census(Instant::now());
            door.metrics.limits.addresses.set(census.addresses);
            door.metrics.limits.banned.set(census.banned);
            let mut body = door.metrics.render(&ProcessFacts::read());
            body.push_str(&tunnels::page(&door.ledger.sums()));
            Answer {
                status: 200,
                kind: "text/plain; version=0.0.4; charset=utf-8",
                body,
                with_body: true,
            }
        }
        Question::Health => health(&door.metrics),
        Question::LetIn(guest) => let_in(guest, &door.rules),
        Question::Other => Answer::bare(404),
    }
}

fn let_in(guest: &Guest, rules: &Rules) -> Answer {
    let Guest {
        tunnel,
        address,
        time,
    } = guest;
    match rules.let_in(tunnel, *address, *time, Instant::now()) {
        Ok(()) => Answer {
            body: "let in\n".to_owned(),
            ..Answer::bare(200)
        },
        Err(error) => Answer {
            body: format!("{error}\n"),
            ..Answer::bare(409)
        },
    }
}

/// 200 only while new work is taken, so that a load balancer or an init system
/// needs no more than the status.
fn health(metrics: &Metrics) -> Answer {
    let (status, word) = match metrics.phase() {
        Phase::Starting => (503, "starting"),
        Phase::Ready => (200, "ok"),
        Phase::Draining => (503, "draining"),
    };
    let body = serde_json::json!({
        "status": word,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": metrics.uptime().as_secs(),
        "links": metrics.link.links.get(),
        "tunnels": metrics.link.tunnels.get(),
    });
    Answer {
        status,
        kind: "application/json",
        body: format!("{body}\n"),
        with_body: true,
    }
}

#[cfg(test)]
mod tests;
