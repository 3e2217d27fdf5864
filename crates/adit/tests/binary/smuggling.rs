//! The table of hostile requests through the whole way: door, link, agent, and
//! a backend that records what it saw.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use adit_testkit::raw::{Socket, origin};

use crate::lab::Lab;

type Seen = Arc<Mutex<Vec<u8>>>;

/// A backend that reads requests as a simple server would and answers 200 to
/// each: where it sees a second request in a body, so would others.
fn recorder(seen: &Seen) -> SocketAddr {
    let seen = Arc::clone(seen);
    origin(move |mut socket| {
        let mut one = || -> Option<()> {
            let head = until(&mut socket, b"\r\n\r\n")?;
            let lower = String::from_utf8_lossy(&head).to_lowercase();
            seen.lock().unwrap().extend(&head);
            let length = lower
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let body = if lower.contains("\r\ntransfer-encoding: chunked\r\n") {
                chunked(&mut socket)?
            } else {
                socket.exactly(length.unwrap_or(0))
            };
            seen.lock().unwrap().extend(&body);
            socket.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            Some(())
        };
        while one().is_some() {}
    })
}

/// Bytes up to an end; `None` where the connection ends first.
fn until(socket: &mut Socket, end: &[u8]) -> Option<Vec<u8>> {
    use std::io::Read;
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(end) {
        if !matches!(socket.stream().read(&mut byte), Ok(1)) {
            return None;
        }
        all.push(byte[0]);
    }
    Some(all)
}

fn chunked(socket: &mut Socket) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let line = until(socket, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
        all.extend(&line);
        if size == 0 {
            break;
        }
        all.extend(socket.exactly(size + 2));
    }
    loop {
        let line = until(socket, b"\r\n")?;
        all.extend(&line);
        if line == b"\r\n" {
            return Some(all);
        }
    }
}

/// The statuses of several answers, each with a length.
fn statuses(mut text: &str, name: &str) -> Vec<u16> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let (head, rest) = text.split_once("\r\n\r\n").unwrap();
        let lower = head.to_lowercase();
        for word in ["adit", "server:", "tunnel", "agent"] {
            assert!(!lower.contains(word), "{name}: {head}");
        }
        found.push(head.split(' ').nth(1).unwrap().parse().unwrap());
        let (_, length) = lower.split_once("content-length: ").unwrap();
        let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
        text = &rest[length..];
    }
    found
}

#[test]
fn every_hostile_request_ends_as_the_table_says() {
    let lab = Lab::new();
    let edge = lab.edge_under(
        "example.test",
        "[limits]\nrequests_per_second = 0\nrefusals_before_ban = 0",
    );
    let seen = Seen::default();
    let target = recorder(&seen).to_string();
    let agent = lab.agent(&edge, "agent", &[&target, "--name", "app"]);
    agent.live("app");
    let cases = adit_http1::corpus::cases().unwrap();
    assert!(cases.len() >= 60, "{}", cases.len());
    for case in cases {
        seen.lock().unwrap().clear();
        let mut visitor = Socket::dial(edge.http);
        visitor.send(&case.send);
        visitor.finish();
        let (answer, _) = visitor.rest();
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(statuses(&text, &case.name), case.status, "{}", case.name);
        let read = seen.lock().unwrap().clone();
        assert_eq!(case.complaint(&read), None, "{}", case.name);
        let requests = read.windows(11).filter(|w| w == b" HTTP/1.1\r\n").count();
        // One case has the text of a request as its body.
        let in_body = usize::from(case.name == "body-is-a-request");
        assert_eq!(requests, case.forwarded() + in_body, "{}", case.name);
    }
}
