//! What scripts wait for, and how commands end.

use adit_testkit::curl;
use adit_testkit::nginx::Nginx;
use adit_testkit::raw::{Socket, origin};

use crate::lab::{Lab, get};

fn hello(mut socket: Socket) {
    socket.head();
    socket.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
}

#[test]
fn an_edge_says_its_doors_then_that_it_is_ready_and_no_secret() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let lines = edge.running.process.lines();
    let begins = [
        "listening http ",
        "listening link ",
        "listening quic ",
        "listening api ",
        "fingerprint ed25519:",
        "ready",
    ];
    assert_eq!(lines.len(), begins.len(), "{lines:?}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{lines:?}");
    }
    assert_ne!(edge.http.port(), 0);
    let (join, pin) = (edge.join(&lab), edge.pin(&lab));
    assert!(
        lines
            .iter()
            .all(|line| !line.contains(&join) && !line.contains(&pin))
    );
    assert_eq!(edge.running.stop().0, Some(0));
}

#[test]
fn join_string_and_pin_are_printed_alone() {
    let lab = Lab::new();
    let edge = lab.edge("public = \"edge.test:7400\"");
    let join = edge.ask(&lab, &["server", "--print-join"]);
    assert_eq!((join.code, join.err.as_str()), (0, ""));
    let text = join.out.trim_end_matches('\n');
    assert!(
        text.starts_with("adit1") && !text.contains(char::is_whitespace),
        "{text}"
    );
    let parsed: adit_model::JoinString = text.parse().unwrap();
    assert_eq!(parsed.addresses, ["edge.test:7400"]);
    let other = ["server", "--public", "other.test:1", "--print-join"];
    let other: adit_model::JoinString = edge.ask(&lab, &other).done().trim().parse().unwrap();
    assert_eq!(other.addresses, ["other.test:1"]);
    assert_eq!(other.edge, parsed.edge);
    let pin = edge.ask(&lab, &["server", "--print-pin"]);
    assert_eq!((pin.code, pin.err.as_str()), (0, ""));
    assert!(adit_model::Pin::parse(pin.out.trim()).is_ok() && pin.out.trim().len() == 6);
    assert_eq!(edge.running.stop().0, Some(0));
    // The string stands in files; a PIN lives as long as its edge.
    let offline = lab.run(&["server", "--config", "server.toml", "--print-join"]);
    assert_eq!(offline.done().trim(), text);
    let pin = lab.run(&["server", "--config", "server.toml", "--print-pin"]);
    pin.refused(1, "ADIT-2201", &["no edge runs"]);
}

#[test]
fn one_command_publishes_without_joining_first() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let nginx = Nginx::files();
    nginx.put("page.txt", "private");
    let target = nginx.address.to_string();
    let publish = [target.as_str(), "--name", "app"];
    let join = edge.join(&lab);
    let without_pin = lab.agent_with("agent", &publish, &[("ADIT_EDGE", &join)]);
    without_pin.ended().refused(2, "ADIT-1205", &["PIN"]);
    let agent = lab.agent(&edge, "agent", &publish);
    let url = agent.live("app");
    assert_eq!(url, format!("http://app.test:{}", edge.http.port()));
    let first = agent.process.lines();
    assert!(
        first[0].starts_with(&format!("connected {} ed25519:", edge.link)),
        "{first:?}"
    );
    let reply = curl::get(edge.http, &format!("{url}/page.txt"));
    assert_eq!((reply.status, reply.body.as_str()), (200, "private"));
    let listed = edge.ask(&lab, &["agents", "list"]).done();
    assert!(listed.contains(" live "), "{listed}");
    for running in [agent, edge.running] {
        let (code, lines) = running.stop();
        assert_eq!(code, Some(0), "{lines:?}");
    }
}

#[test]
fn joining_first_leaves_one_word_to_say() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (join, pin) = (edge.join(&lab), edge.pin(&lab));
    let (file, data) = (lab.file("join", &format!("{join}\n")), lab.text_of("agent"));
    let joined = lab.run_with(
        &["join", &format!("file:{file}"), "--data", &data],
        &[("ADIT_PIN", &pin)],
    );
    let out = joined.done();
    assert!(
        out.starts_with("joined ed25519:") && out.trim().ends_with(&edge.link.to_string()),
        "{out}"
    );
    let target = origin(hello).to_string();
    let agent = lab.agent_with("agent", &[&target, "--name", "app"], &[]);
    agent.live("app");
    assert_eq!(edge.get("app.test", "/").0, 200);
}

/// A request under way when the signal comes is answered whole, by an edge
/// and by an agent that go away.
#[test]
fn an_open_request_ends_before_the_process_does() {
    for edge_goes in [false, true] {
        let lab = Lab::new();
        let edge = lab.edge("drain_seconds = 20");
        let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
        let (inside, wait) = std::sync::mpsc::channel();
        let opens = std::sync::Arc::clone(&gate);
        let target = origin(move |mut socket: Socket| {
            socket.head();
            inside.send(()).unwrap();
            opens.wait();
            socket.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
        });
        let agent = lab.agent(&edge, "agent", &[&target.to_string(), "--name", "app"]);
        agent.live("app");
        let door = edge.http;
        let visitor = std::thread::spawn(move || get(door, "app.test", "/"));
        wait.recv().unwrap();
        let goes = if edge_goes { &edge.running } else { &agent };
        goes.process.terminate();
        goes.logged("stopping");
        gate.wait();
        let (status, answer) = visitor.join().unwrap();
        assert_eq!((status, answer.ends_with("late")), (200, true), "{answer}");
        let goes = if edge_goes { edge.running } else { agent };
        let said = goes.ended();
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!said.err.contains("ADIT-5006"), "{said:?}");
    }
}

#[test]
fn each_kind_of_failure_has_its_exit_status() {
    let lab = Lab::new();
    assert_eq!(lab.run(&["--version"]).code, 0);
    // 1: the machine; 2: wrong use; 4: not reached.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let said = lab.run(&[
        "server",
        "--http",
        &taken,
        "--link",
        "127.0.0.1:0",
        "--api",
        "off",
    ]);
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(lab.run(&["http"]).code, 2);
    assert_eq!(lab.run(&["no-such-command"]).code, 2);
    let edge = lab.edge("");
    let (join, pin) = (edge.join(&lab), edge.pin(&lab));
    // 3: the other side says no.
    let wrong = if pin == "22X3Y4" { "55Z6A7" } else { "22X3Y4" };
    let said = lab.run_with(
        &["join", "env:JOIN"],
        &[("JOIN", &join), ("ADIT_PIN", wrong)],
    );
    said.refused(3, "ADIT-3006", &["refused"]);
    edge.running.stop();
    let said = lab.run_with(
        &["join", "env:JOIN"],
        &[("JOIN", &join), ("ADIT_PIN", &pin)],
    );
    said.refused(4, "ADIT-3001", &["127.0.0.1"]);
}
