//! Agents that share a name, where the owner's rule for one takes no more: that
//! is an answer of the edge, and no fault of the agent.

use std::net::{SocketAddr, TcpListener};

use adit_testkit::raw::{Socket, origin};

use crate::lab::{Edge, Lab, Running};

/// A service that says its name; who asks for `/hold` waits in the middle of
/// the answer.
fn service(name: &'static str) -> SocketAddr {
    origin(move |mut socket: Socket| {
        while let Some(head) = socket.next_head() {
            let length = name.len();
            socket.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ));
            if head.starts_with("GET /hold ") {
                socket.rest();
                return;
            }
            socket.send(name);
        }
    })
}

fn publish(lab: &Lab, edge: &Edge, who: &str, target: SocketAddr) -> Running {
    let agent = lab.agent(edge, who, &[&target.to_string(), "--name", "app"]);
    agent.live("app");
    agent
}

/// An edge whose rule lets `one` have one visitor at a time.
fn edge(lab: &Lab) -> Edge {
    let key = lab.run(&["key", "new", "--data", &lab.text_of("one")]);
    let key = key.done();
    let key = key
        .split_whitespace()
        .find(|word| word.starts_with("ed25519:"));
    lab.edge(&format!(
        "[[agent]]\nkey = \"{}\"\nconnections = 1\n",
        key.unwrap()
    ))
}

#[test]
fn a_request_goes_to_the_agent_that_may_have_it() {
    let lab = Lab::new();
    let edge = edge(&lab);
    let _one = publish(&lab, &edge, "one", service("one"));
    let mut held = Socket::send_to(edge.http, "GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n");
    held.until("\r\n\r\n");
    let (status, answer) = edge.get("app.test", "/");
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer.to_lowercase().contains("\r\nretry-after: "),
        "{answer}"
    );
    let _two = publish(&lab, &edge, "two", service("two"));
    for _ in 0..8 {
        let (status, answer) = edge.get("app.test", "/");
        assert!(status == 200 && answer.ends_with("two"), "{answer}");
    }
}

/// A first try that came to nothing leaves its place to the second.
#[test]
fn a_second_try_needs_no_second_place() {
    let lab = Lab::new();
    let edge = edge(&lab);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    let _broken = publish(&lab, &edge, "one", closed);
    let _one = publish(&lab, &edge, "one", service("one"));
    for _ in 0..8 {
        let (status, answer) = edge.get("app.test", "/");
        assert!(status == 200 && answer.ends_with("one"), "{answer}");
    }
    assert!(edge.metric("adit_http_retries_total") > 0.0);
}
