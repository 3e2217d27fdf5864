//! Serialises heads from their parsed parts.
//!
//! Order of a forwarded request: request line, Host, the visitor's fields
//! that may pass, framing and connection, and last what the door itself says,
//! so that nothing a visitor lists in Connection can remove it.

use crate::forward::hops;
use crate::{Field, Forwarding, Framing, Name, Request, Response, Rewrite, Trailers, Version};

/// Appends the head of the request as the backend gets it.
pub fn write_request(out: &mut Vec<u8>, request: &Request<'_>, facts: &Forwarding<'_>) {
    out.extend_from_slice(request.method_name());
    out.push(b' ');
    let target = request.target();
    out.extend_from_slice(target.path);
    if let Some(query) = target.query {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(out, b"Host", facts.host.unwrap_or_else(|| request.host()));
    for parsed in request.lines() {
        if passes(*parsed, facts) {
            line(out, parsed, request.bytes());
        }
    }
    write_framing(out, request.framing());
    if request.expects_continue() {
        out.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    write_connection(out, request, facts);
    write_forwarded(out, request, facts);
    out.extend_from_slice(b"\r\n");
}

fn passes(field: Field, facts: &Forwarding<'_>) -> bool {
    if field.listed || field.id.is_hop_by_hop() {
        return false;
    }
    match field.id {
        Name::Host | Name::Expect => false,
        Name::Authorization => !facts.drop_authorization,
        // Kept from a trusted proxy as they are.
        Name::XForwarded | Name::ClientAddress => facts.trusted,
        id => !id.is_forwarded(),
    }
}

fn write_framing(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::UntilClose => {}
    }
}

fn write_connection(out: &mut Vec<u8>, request: &Request<'_>, facts: &Forwarding<'_>) {
    if facts.upgrade {
        field(out, b"Upgrade", request.upgrade_value());
        out.extend_from_slice(b"Connection: Upgrade\r\n");
    } else if request.wants_trailers() {
        out.extend_from_slice(b"TE: trailers\r\nConnection: TE\r\n");
    }
}

fn write_forwarded(out: &mut Vec<u8>, request: &Request<'_>, facts: &Forwarding<'_>) {
    out.extend_from_slice(b"X-Forwarded-For: ");
    let before = hops(request).count().saturating_sub(facts.hops);
    for hop in hops(request).skip(before) {
        out.extend_from_slice(hop);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(facts.peer.as_bytes());
    out.extend_from_slice(b"\r\n");
    field(
        out,
        b"X-Forwarded-Proto",
        facts.visitor_scheme(request).as_bytes(),
    );
    field(out, b"X-Forwarded-Host", facts.visitor_host(request));
    field(out, b"X-Real-IP", facts.client.as_bytes());
    if facts.trusted && request.value(Name::Forwarded).is_some() {
        out.extend_from_slice(b"Forwarded: ");
        join(out, request, Name::Forwarded);
        let v6 = facts.peer.contains(':');
        out.extend_from_slice(if v6 { b"for=\"[" } else { b"for=" });
        out.extend_from_slice(facts.peer.as_bytes());
        out.extend_from_slice(if v6 { b"]\"\r\n" } else { b"\r\n" });
    }
    field(out, b"X-Request-Id", facts.request_id);
}

/// Appends all values of a list field, each followed by a comma.
fn join(out: &mut Vec<u8>, request: &Request<'_>, id: Name) {
    for (field, _, value) in request.fields() {
        if field.id == id && !field.listed && !value.is_empty() {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
}

/// How the answer is to be written.
#[derive(Clone, Copy, Debug)]
pub struct ResponseOptions<'a> {
    /// The visitor's version.
    pub visitor: Version,
    /// Whether the visitor's request was HEAD.
    pub to_head: bool,
    /// Whether the connection could go on after this response.
    pub keep_alive: bool,
    /// Exchange the backend's address; `None` leaves the fields alone.
    pub rewrite: Option<Rewrite<'a>>,
    /// Drop Server and X-Powered-By.
    pub hide_server: bool,
    /// The Date for an answer that has none (RFC 9110 §6.6.1).
    pub date: Option<&'a [u8]>,
}

/// What [`write_response`] decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The body goes out in the chunked coding.
    pub chunked: bool,
    /// The connection goes on after the body.
    pub keep_alive: bool,
}

/// Appends the head of the answer as the visitor gets it.
pub fn write_response(
    out: &mut Vec<u8>,
    response: &Response<'_>,
    options: &ResponseOptions<'_>,
) -> Outcome {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(response.status()));
    out.push(b' ');
    out.extend_from_slice(response.reason());
    out.extend_from_slice(b"\r\n");
    let mut dated = response.status() < 200;
    for parsed in &response.head.fields {
        let hidden = matches!(parsed.id, Name::Server | Name::XPoweredBy) && options.hide_server;
        if parsed.listed || parsed.id.is_hop_by_hop() || hidden {
            continue;
        }
        dated |= parsed.id == Name::Date;
        answer_field(out, parsed, response.bytes, options.rewrite.as_ref());
    }
    if let Some(date) = options.date.filter(|_| !dated) {
        field(out, b"Date", date);
    }
    let outcome = write_answer_framing(out, response, options);
    out.extend_from_slice(b"\r\n");
    outcome
}

fn answer_field(out: &mut Vec<u8>, field: &Field, head: &[u8], rewrite: Option<&Rewrite<'_>>) {
    let changes = matches!(
        field.id,
        Name::Location | Name::ContentLocation | Name::Refresh | Name::SetCookie
    );
    let Some(rewrite) = rewrite.filter(|_| changes) else {
        return line(out, field, head);
    };
    out.extend_from_slice(field.name.get(head));
    out.extend_from_slice(b": ");
    let value = field.value.get(head);
    match field.id {
        Name::Refresh => rewrite.refresh(out, value),
        Name::SetCookie => rewrite.cookie(out, value),
        _ => rewrite.location(out, value),
    }
    out.extend_from_slice(b"\r\n");
}

fn write_answer_framing(
    out: &mut Vec<u8>,
    response: &Response<'_>,
    options: &ResponseOptions<'_>,
) -> Outcome {
    let framing = response.framing(options.to_head);
    let modern = options.visitor == Version::Http11;
    let mut outcome = Outcome {
        chunked: false,
        keep_alive: options.keep_alive,
    };
    match framing {
        Framing::Length(_) => write_framing(out, framing),
        Framing::Chunked | Framing::UntilClose if modern => {
            outcome.chunked = true;
            write_framing(out, Framing::Chunked);
        }
        Framing::Chunked | Framing::UntilClose => outcome.keep_alive = false,
        // What a GET would have had; never in 1xx and 204 (RFC 9110 §8.6).
        Framing::None if matches!(response.status(), 100..=199 | 204) => {}
        Framing::None => match response.head.content_length {
            Some(length) => write_framing(out, Framing::Length(length)),
            None if response.is_chunked() && modern && options.to_head => {
                write_framing(out, Framing::Chunked);
            }
            None => {}
        },
    }
    match response.upgrade_value() {
        Some(protocol) if response.status() == 101 => {
            field(out, b"Upgrade", protocol);
            out.extend_from_slice(b"Connection: Upgrade\r\n");
        }
        _ if response.status() < 200 => {}
        _ if !outcome.keep_alive => out.extend_from_slice(b"Connection: close\r\n"),
        _ if !modern => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        _ => {}
    }
    outcome
}

/// Appends the last chunk with the trailers that may pass.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &Trailers, section: &[u8]) {
    out.extend_from_slice(b"0\r\n");
    for parsed in &trailers.fields {
        let passes = !parsed.id.is_hop_by_hop() && !parsed.id.is_forwarded();
        if passes && !matches!(parsed.id, Name::Authorization | Name::SetCookie) {
            field(out, parsed.name.get(section), parsed.value.get(section));
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a field as it is to be written. A line that stands so in its head
/// is taken over in one piece.
fn line(out: &mut Vec<u8>, field: &Field, head: &[u8]) {
    let (name, value) = (field.name.range(), field.value.range());
    let whole = head.get(name.start..value.end + 2).unwrap_or_default();
    let colon = name.end - name.start;
    let canonical = value.start == name.end + 2
        && whole.get(colon..colon + 2) == Some(b": ")
        && whole.ends_with(b"\r\n");
    if canonical {
        out.extend_from_slice(whole);
    } else {
        self::field(out, field.name.get(head), field.value.get(head));
    }
}

fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a number in decimal.
fn number(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, Origin, RequestHead, ResponseHead};

    const FACTS: Forwarding<'static> = Forwarding {
        host: None,
        peer: "192.0.2.7",
        client: "192.0.2.7",
        hops: 0,
        trusted: false,
        scheme: "http",
        request_id: b"id1",
        upgrade: false,
        drop_authorization: false,
    };

    fn forwarded(text: &str, facts: &Forwarding<'_>) -> String {
        let mut head = RequestHead::default();
        assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(true));
        let mut out = Vec::new();
        write_request(&mut out, &head.view(text.as_bytes()), facts);
        let mut again = RequestHead::default();
        assert_eq!(again.parse(&out, &Limits::default()), Ok(true));
        String::from_utf8(out).unwrap()
    }

    fn answered(text: &str, options: &ResponseOptions<'_>) -> (String, Outcome) {
        let mut head = ResponseHead::default();
        assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(true));
        let mut out = Vec::new();
        let outcome = write_response(&mut out, &head.view(text.as_bytes()), options);
        (String::from_utf8(out).unwrap(), outcome)
    }

    const PLAIN: ResponseOptions<'static> = ResponseOptions {
        visitor: Version::Http11,
        to_head: false,
        keep_alive: true,
        rewrite: None,
        hide_server: true,
        date: None,
    };

    #[test]
    fn a_strangers_word_about_itself_is_dropped() {
        let text = "GET http://a.test/p?q HTTP/1.1\r\nHost: a.test\r\nAccept: x\r\n\
            X-Forwarded-For: 1.1.1.1\r\nX_Forwarded_For: 1.1.1.1\r\nForwarded: for=1\r\n\
            X-Real-IP: 1\r\nX-Forwarded-Prefix: /x\r\nProxy: evil\r\nX-Request-Id: no\r\n\
            Cookie: a\r\nX-Kept: 1\r\nX-Secret: 1\r\nTrue-Client-IP: 1\r\nKeep-Alive: 5\r\n\
            Connection: close, X-Secret, x-real-ip, X-Request-Id\r\nTE: trailers, gzip\r\n\
            Authorization: Basic x\r\n\r\n";
        assert_eq!(
            forwarded(text, &FACTS),
            "GET /p?q HTTP/1.1\r\nHost: a.test\r\nAccept: x\r\nCookie: a\r\nX-Kept: 1\r\n\
             Authorization: Basic x\r\nTE: trailers\r\nConnection: TE\r\n\
             X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Host: a.test\r\nX-Real-IP: 192.0.2.7\r\nX-Request-Id: id1\r\n\r\n"
        );
    }

    #[test]
    fn a_trusted_proxys_word_is_kept_and_extended() {
        let text = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\
            X-Forwarded-For: <b>, 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nForwarded: for=1.1.1.1\r\n\
            X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\nX-Forwarded-Port: 443\r\n\
            X-Forwarded_For: 6.6.6.6\r\nExpect: 100-Continue\r\nAuthorization: x\r\n\r\n";
        let facts = Forwarding {
            host: Some(b"inner:3000"),
            client: "1.1.1.1",
            hops: 2,
            peer: "2001:db8::1",
            trusted: true,
            drop_authorization: true,
            ..FACTS
        };
        assert_eq!(
            forwarded(text, &facts),
            "POST / HTTP/1.1\r\nHost: inner:3000\r\nX-Forwarded-Port: 443\r\n\
             Content-Length: 3\r\nExpect: 100-continue\r\n\
             X-Forwarded-For: 1.1.1.1, 2.2.2.2, 2001:db8::1\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: shop.test\r\nX-Real-IP: 1.1.1.1\r\n\
             Forwarded: for=1.1.1.1, for=\"[2001:db8::1]\"\r\nX-Request-Id: id1\r\n\r\n"
        );
    }

    #[test]
    fn upgrades_pass_only_when_told() {
        let text = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
            Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\nSec-WebSocket-Key: k\r\n\r\n";
        let upgrade = Forwarding {
            upgrade: true,
            ..FACTS
        };
        let with = forwarded(text, &upgrade);
        assert!(with.contains("\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"));
        assert!(with.contains("Sec-WebSocket-Key: k"));
        let without = forwarded(text, &FACTS);
        for gone in ["Upgrade", "Connection", "HTTP2"] {
            assert!(!without.contains(gone), "{without}");
        }
    }

    #[test]
    fn answers_are_framed_for_the_visitor() {
        let until_close =
            "HTTP/1.1 200 OK\r\nServer: x\r\nX-Powered-By: y\r\nKeep-Alive: 1\r\n\r\n";
        let (text, outcome) = answered(until_close, &PLAIN);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert!(outcome.chunked && outcome.keep_alive);
        let old = ResponseOptions {
            visitor: Version::Http10,
            ..PLAIN
        };
        let (text, outcome) = answered(until_close, &old);
        assert_eq!(text, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        assert!(!outcome.chunked && !outcome.keep_alive);
        let (text, _) = answered("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", &old);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\n"
        );
        let head = ResponseOptions {
            to_head: true,
            date: Some(b"now"),
            ..PLAIN
        };
        let (text, outcome) = answered("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", &head);
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 3\r\n\r\n"
        );
        assert!(!outcome.chunked);
        let (text, _) = answered("HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\n", &PLAIN);
        assert_eq!(text, "HTTP/1.1 204 No\r\n\r\n");
    }

    #[test]
    fn answers_lose_the_backends_address() {
        let origins = [Origin::parse("http://127.0.0.1:3000").unwrap()];
        let options = ResponseOptions {
            rewrite: Some(Rewrite {
                backend: &origins,
                scheme: "http",
                host: b"a.test",
            }),
            ..PLAIN
        };
        let text = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:3000/x\r\n\
            Set-Cookie: a=b; Domain=127.0.0.1\r\nContent-Length: 0\r\nConnection: X-Drop\r\n\
            X-Drop: 1\r\nX-Keep: 1\r\n\r\n";
        assert_eq!(
            answered(text, &options).0,
            "HTTP/1.1 302 Found\r\nLocation: http://a.test/x\r\nSet-Cookie: a=b\r\n\
             X-Keep: 1\r\nContent-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn trailers_are_written_anew() {
        let section = b"X-Sum: 1\r\nX-Forwarded-For: 1\r\nKeep-Alive: 1\r\n\r\n";
        let mut trailers = Trailers::default();
        trailers.parse(section).unwrap();
        let mut out = Vec::new();
        write_trailers(&mut out, &trailers, section);
        assert_eq!(out, b"0\r\nX-Sum: 1\r\n\r\n");
    }
}
