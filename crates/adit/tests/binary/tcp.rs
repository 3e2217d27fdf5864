//! TCP tunnels between processes: what a person types, and `kill -9`.

use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use adit_testkit::raw::{Socket, free_ports, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab};

/// What a visitor of a killed side waits for at most.
const SOON: Duration = Duration::from_secs(1);

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn edge(lab: &Lab, doors: &[String; 3], ports: &[u16], tables: &str) -> Edge {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let ports = ports.join(",");
    lab.edge_with(doors, tables, &[("ADIT_DOORS_TCP_PORTS", &ports)])
}

fn any() -> [String; 3] {
    ["127.0.0.1:0"; 3].map(str::to_owned)
}

/// Greets, and echoes a line.
fn greeter() -> SocketAddr {
    origin(|mut socket: Socket| {
        socket.send("hello\n");
        let line = socket.until("\n");
        socket.send(line);
    })
}

fn talk(port: u16) {
    let mut visitor = Socket::dial(local(port));
    visitor.until("hello\n");
    visitor.send("some words\n");
    assert_eq!(visitor.rest(), (b"some words\n".to_vec(), true));
}

#[test]
fn a_port_is_published_with_one_command() {
    let (lab, ports) = (Lab::new(), free_ports(2));
    let edge = edge(&lab, &any(), &ports, "");
    let (join, pin) = (edge.join(&lab), edge.pin(&lab));
    let variables = [("ADIT_EDGE", join.as_str()), ("ADIT_PIN", pin.as_str())];
    let (target, port) = (greeter().to_string(), ports[1].to_string());
    let agent = lab.start(
        &[
            "tcp", &target, "--port", &port, "--name", "greet", "--data", "agent",
        ],
        &variables,
    );
    assert_eq!(agent.live("greet"), format!("tcp://test:{port}"));
    talk(ports[1]);
    assert_eq!(agent.stop().0, Some(0));
    until_true("its port is closed", || {
        TcpStream::connect(local(ports[1])).is_err()
    });
}

#[test]
fn a_killed_agent_resets_its_visitors_within_a_second() {
    let (lab, ports) = (Lab::new(), free_ports(1));
    let edge = edge(&lab, &any(), &ports, "");
    lab.join(&edge, "agent");
    let target = greeter().to_string();
    let words = ["tcp", &target, "--name", "greet", "--data", "agent"];
    let agent = lab.start(&words, &[]);
    agent.live("greet");
    let mut visitors: Vec<_> = (0..20)
        .map(|_| {
            let mut visitor = Socket::dial(local(ports[0]));
            visitor.until("hello\n");
            visitor
        })
        .collect();
    let killed = Instant::now();
    drop(agent.process.kill());
    for visitor in &mut visitors {
        assert_eq!(visitor.rest(), (Vec::new(), false));
    }
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
    until_true("the counters are true", || {
        edge.metric("adit_tcp_streams_open") < 1.0
            && edge.metric("adit_connections_open{door=\"tcp\"}") < 1.0
            && edge.metric("adit_tcp_backend_failures_total{reason=\"cut\"}") > 19.0
    });
    // It comes back under its name and port; a visitor that came too early
    // has waited.
    let visitor = std::thread::spawn({
        let port = ports[0];
        move || talk(port)
    });
    let again = lab.start(&words, &[]);
    again.live("greet");
    visitor.join().unwrap();
}

#[test]
fn a_killed_edge_resets_both_sides_and_opens_the_port_again() {
    let (lab, ports) = (Lab::new(), free_ports(1));
    let first = edge(&lab, &any(), &ports, "");
    lab.join(&first, "agent");
    let (told, ends) = channel();
    let target = origin(move |mut socket: Socket| {
        socket.send("hello\n");
        told.send(socket.rest()).unwrap();
    });
    let target = target.to_string();
    let agent = lab.start(&["tcp", &target, "--name", "greet", "--data", "agent"], &[]);
    agent.live("greet");
    let mut visitor = Socket::dial(local(ports[0]));
    visitor.until("hello\n");
    let (doors, killed) = (first.doors(), Instant::now());
    drop(first.running.process.kill());
    assert_eq!(visitor.rest(), (Vec::new(), false));
    assert_eq!(ends.recv().unwrap(), (Vec::new(), false));
    assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
    let _again = edge(&lab, &doors, &ports, "");
    until_true("the port is open again", || {
        TcpStream::connect(local(ports[0])).is_ok()
    });
    let mut visitor = Socket::dial(local(ports[0]));
    visitor.until("hello\n");
}

#[test]
fn guests_are_let_in_by_a_command() {
    let (lab, ports) = (Lab::new(), free_ports(1));
    let rule = "[[tunnel]]\nname = \"greet\"\nguests_only = true\n";
    let edge = edge(&lab, &any(), &ports, rule);
    lab.join(&edge, "agent");
    let target = greeter().to_string();
    let agent = lab.start(&["tcp", &target, "--name", "greet", "--data", "agent"], &[]);
    agent.live("greet");
    assert_eq!(Socket::dial(local(ports[0])).rest().0, b"");
    let said = edge.ask(
        &lab,
        &["guests", "add", "greet", "127.0.0.1", "--minutes", "5"],
    );
    assert_eq!(said.done().trim(), "127.0.0.1 may visit greet for 5 min");
    talk(ports[0]);
    let said = edge.ask(&lab, &["guests", "remove", "greet", "127.0.0.1"]);
    assert_eq!(said.done().trim(), "127.0.0.1 may no longer visit greet");
    assert_eq!(Socket::dial(local(ports[0])).rest().0, b"");
    let said = edge.ask(&lab, &["guests", "add", "other", "127.0.0.1"]);
    said.refused(2, "ADIT-1001", &["other", "open to everybody"]);
}
