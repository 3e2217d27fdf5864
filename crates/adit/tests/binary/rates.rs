//! Bytes a second of a tunnel, at the HTTP door.

use std::time::{Duration, Instant};

use adit_testkit::raw::{Socket, origin};

use crate::lab::Lab;

/// Bytes a second of the tunnel that has a rule.
const RATE: usize = 400_000;
/// Bytes of one body.
const BODY: usize = 200_000;
/// Requests of one connection.
const TIMES: usize = 3;

/// Sends as many bytes as it gets, or [`BODY`] when it gets none.
fn service(mut socket: Socket) {
    while let Some(head) = socket.next_head() {
        let head = head.to_ascii_lowercase();
        let length = head.split_once("content-length: ").map_or(0, |(_, rest)| {
            rest.split("\r\n").next().unwrap().parse().unwrap()
        });
        let chunked = head.contains("chunked");
        let answer = if chunked {
            socket.until("\r\n0\r\n\r\n");
            0
        } else if length > 0 {
            socket.exactly(length);
            0
        } else {
            BODY
        };
        socket.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {answer}\r\n\r\n"
        ));
        socket.send("b".repeat(answer));
    }
}

/// How long [`TIMES`] of this request take on one connection.
fn time(door: std::net::SocketAddr, request: &str, answer: usize) -> Duration {
    let mut visitor = Socket::dial(door);
    let begun = Instant::now();
    for _ in 0..TIMES {
        visitor.send(request);
        assert!(visitor.head().starts_with("HTTP/1.1 200 "));
        visitor.exactly(answer);
    }
    begun.elapsed()
}

#[test]
fn bodies_go_no_faster_than_the_owner_says() {
    let lab = Lab::new();
    let edge = lab.edge(&format!(
        "[[tunnel]]\nname = \"paced\"\nbytes_per_second = {RATE}\n"
    ));
    let target = origin(service).to_string();
    let agents = ["paced", "free"].map(|name| {
        let agent = lab.agent(&edge, name, &[&target, "--name", name]);
        agent.live(name);
        agent
    });
    let body = "a".repeat(BODY);
    let chunk = format!("{:x}\r\n{}\r\n", BODY / 4, "a".repeat(BODY / 4)).repeat(4);
    // All but the burst, a quarter of a second's worth, has to wait.
    let least = Duration::from_secs_f64((BODY * TIMES) as f64 / RATE as f64 - 0.4);
    for (more, answer) in [
        (format!("Content-Length: {BODY}\r\n\r\n{body}"), 0),
        (
            format!("Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"),
            0,
        ),
        ("\r\n".to_owned(), BODY),
    ] {
        let of = |name: &str| {
            let request = format!("POST / HTTP/1.1\r\nHost: {name}.test\r\n{more}");
            time(edge.http, &request, answer)
        };
        let (paced, free) = (of("paced"), of("free"));
        assert!(paced >= least && paced < 20 * least, "{paced:?} {least:?}");
        assert!(free < paced, "{free:?} {paced:?}");
    }
    drop(agents);
}
