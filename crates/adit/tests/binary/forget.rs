//! `adit edge forget` while agents run.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab, Running};

/// A visitor in the middle of an answer without end, and the agent that
/// carries it.
struct Streaming {
    agent: Running,
    visitor: Socket,
}

/// `start` gets the target's address.
fn streaming(edge: &Edge, start: impl FnOnce(&str) -> Running) -> Streaming {
    let (started, begun) = channel();
    let endless = origin(move |mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        started.send(()).unwrap();
        socket.rest();
    });
    let agent = start(&endless.to_string());
    agent.live("app");
    let mut visitor = Socket::send_to(edge.http, "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n");
    visitor.until("hello\r\n");
    begun.recv().unwrap();
    Streaming { agent, visitor }
}

/// The owner's command; then link and streams end within a second, and the
/// agent says who ended them.
fn forgets(lab: &Lab, edge: &Edge, data: &str, streaming: Streaming) {
    let Streaming { agent, mut visitor } = streaming;
    let forgot = lab.run(&["edge", "forget", "--data", data]).done();
    let done = Instant::now();
    assert!(forgot.starts_with("forgot ed25519:"), "{forgot}");
    let (rest, _) = visitor.rest();
    let took = done.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it was cut, not completed");
    let said = agent.ended();
    assert!(done.elapsed() < Duration::from_secs(2), "the agent ended");
    let last = said.err.find("error ADIT-5007: ").unwrap();
    assert!(
        said.code == 1 && said.err[last..].contains("adit edge forget was run on this machine"),
        "{said:?}"
    );
    until_true("nothing leads to it", || edge.get("app.test", "/").0 != 200);
}

#[test]
fn a_forgotten_edge_loses_what_a_joined_agent_carries() {
    let lab = Lab::new();
    let edge = lab.edge("");
    lab.join(&edge, "agent");
    let agent = streaming(&edge, |target| {
        lab.agent_with("agent", &[target, "--name", "app"], &[])
    });
    forgets(&lab, &edge, &lab.text_of("agent"), agent);
    let again = lab.agent_with("agent", &["9", "--name", "app"], &[]);
    again.ended().refused(2, "ADIT-1203", &["not joined"]);
}

#[test]
fn a_forgotten_edge_loses_what_came_by_a_join_string_or_a_file() {
    let lab = Lab::new();
    let edge = lab.edge("[admission]\npin = \"off\"");
    let agent = streaming(&edge, |target| {
        let target = [target, "--name", "app", "--edge", "env:JOIN"];
        lab.agent_with("agent", &target, &[("JOIN", &edge.join(&lab))])
    });
    forgets(&lab, &edge, &lab.text_of("agent"), agent);

    let agent = streaming(&edge, |target| {
        let text = format!(
            "[agent]\nedge = \"env:JOIN\"\ndata = \"client\"\n[[tunnel]]\nname = \"app\"\ntarget = \"{target}\"\n"
        );
        let file = lab.file("client.toml", &text);
        lab.start(
            &["client", "--config", &file],
            &[("JOIN", &edge.join(&lab))],
        )
    });
    forgets(&lab, &edge, &lab.text_of("client"), agent);
}
