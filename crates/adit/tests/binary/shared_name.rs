//! Agents that share a name, where the owner's rule for one takes no more: that
//! is an answer of the edge, and no fault of the agent.

use std::net::{SocketAddr, TcpListener};

use adit_testkit::raw::{Socket, free_ports, origin};

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

/// Where nobody listens.
fn closed() -> SocketAddr {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    nobody.local_addr().unwrap()
}

fn publish(lab: &Lab, edge: &Edge, who: &str, target: SocketAddr) -> Running {
    let agent = lab.agent(edge, who, &[&target.to_string(), "--name", "app"]);
    agent.live("app");
    agent
}

/// An edge whose rules let each of these agents have one visitor at a time.
fn edge(lab: &Lab, agents: &[&str]) -> Edge {
    lab.edge(&rules(lab, agents))
}

fn rules(lab: &Lab, agents: &[&str]) -> String {
    let rule = |who: &&str| {
        let key = lab.run(&["key", "new", "--data", &lab.text_of(who)]);
        let key = key.done();
        format!("[[agent]]\nkey = \"{}\"\nconnections = 1\n", key.trim())
    };
    agents.iter().map(rule).collect()
}

/// A visitor that takes an agent's one place.
fn hold(edge: &Edge) -> Socket {
    let mut held = Socket::send_to(edge.http, "GET /hold HTTP/1.1\r\nHost: app.test\r\n\r\n");
    held.until("\r\n\r\n");
    held
}

/// How many visitors rules have turned away.
fn turned_away(edge: &Edge) -> f64 {
    edge.metric("adit_tunnel_refusals_total{reason=\"full\"}")
}

/// A visitor is told to come again, and counts as one turned away.
fn is_told_to_wait(edge: &Edge) {
    let before = turned_away(edge);
    let (status, answer) = edge.get("app.test", "/");
    assert_eq!(status, 503, "{answer}");
    assert!(
        answer.to_lowercase().contains("\r\nretry-after: "),
        "{answer}"
    );
    assert!((turned_away(edge) - before - 1.0).abs() < 1e-9, "{before}");
}

#[test]
fn a_request_goes_to_the_agent_that_may_have_it() {
    let lab = Lab::new();
    let edge = edge(&lab, &["one"]);
    let _one = publish(&lab, &edge, "one", service("one"));
    let _held = hold(&edge);
    is_told_to_wait(&edge);
    let _two = publish(&lab, &edge, "two", service("two"));
    for _ in 0..8 {
        let (status, answer) = edge.get("app.test", "/");
        assert!(status == 200 && answer.ends_with("two"), "{answer}");
    }
}

/// However many are full: that is no try that has failed.
#[test]
fn a_free_agent_is_found_behind_many_that_are_full() {
    let lab = Lab::new();
    let full = ["a", "b", "c", "d", "e"];
    let edge = edge(&lab, &full);
    let _full = full.map(|who| publish(&lab, &edge, who, service("full")));
    let _held = full.map(|_| hold(&edge));
    is_told_to_wait(&edge);
    let _free = publish(&lab, &edge, "free", service("free"));
    for _ in 0..8 {
        let (status, answer) = edge.get("app.test", "/");
        assert!(status == 200 && answer.ends_with("free"), "{answer}");
    }
}

/// Whichever was asked first.
#[test]
fn a_full_agent_beside_a_broken_one_asks_for_patience() {
    let lab = Lab::new();
    let edge = edge(&lab, &["one"]);
    let _one = publish(&lab, &edge, "one", service("one"));
    let _held = hold(&edge);
    let _broken = publish(&lab, &edge, "broken", closed());
    for _ in 0..8 {
        is_told_to_wait(&edge);
    }
}

/// A first try that came to nothing leaves its place to the second.
#[test]
fn a_second_try_needs_no_second_place() {
    let lab = Lab::new();
    let edge = edge(&lab, &["one"]);
    let _broken = publish(&lab, &edge, "one", closed());
    let _one = publish(&lab, &edge, "one", service("one"));
    for _ in 0..8 {
        let (status, answer) = edge.get("app.test", "/");
        assert!(status == 200 && answer.ends_with("one"), "{answer}");
    }
    assert!(edge.metric("adit_http_retries_total") > 0.0);
}

#[test]
fn a_visitor_of_a_port_whom_no_agent_takes_counts_once() {
    let (lab, port) = (Lab::new(), free_ports(1)[0]);
    let rules = rules(&lab, &["a", "b"]);
    let doors = ["127.0.0.1:0"; 3].map(str::to_owned);
    let ports = [("ADIT_DOORS_TCP_PORTS", &*port.to_string())];
    let edge = lab.edge_with(&doors, &rules, &ports);
    let target = origin(|mut socket: Socket| {
        socket.send("hello\n");
        socket.rest();
    });
    let _agents = ["a", "b"].map(|who| {
        lab.join(&edge, who);
        let (target, data) = (target.to_string(), lab.text_of(who));
        let agent = lab.start(&["tcp", &target, "--name", "app", "--data", &data], &[]);
        agent.live("app");
        agent
    });
    let visitor = || Socket::dial(SocketAddr::from(([127, 0, 0, 1], port)));
    let _held = [(); 2].map(|()| {
        let mut held = visitor();
        held.until("hello\n");
        held
    });
    assert!(turned_away(&edge) < 0.5);
    assert!(visitor().rest().0.is_empty());
    assert!((turned_away(&edge) - 1.0).abs() < 1e-9);
}
