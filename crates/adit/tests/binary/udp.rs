//! UDP tunnels between processes: real DNS, a bad network, `kill -9`, a flood.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use adit_testkit::counters::{held, metric};
use adit_testkit::datagrams::{Answerer, Speaker, free_udp_ports};
use adit_testkit::dns::{self, Dnsmasq, dig, dig_inside};
use adit_testkit::network::{Condition, End, Network};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab, Running, get};
use crate::networks::inside;

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn edge(lab: &Lab, ports: &[u16], tables: &str) -> Edge {
    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
    let variables = [("ADIT_DOORS_UDP_PORTS", ports.join(","))];
    let variables = variables
        .each_ref()
        .map(|(name, ports)| (*name, ports.as_str()));
    lab.edge_with(&["127.0.0.1:0"; 3].map(str::to_owned), tables, &variables)
}

#[test]
fn dns_is_published_with_one_command() {
    let (lab, ports) = (Lab::new(), free_udp_ports(2));
    let edge = edge(&lab, &ports, "");
    let (join, pin) = (edge.join(&lab), edge.pin(&lab));
    let variables = [("ADIT_EDGE", join.as_str()), ("ADIT_PIN", pin.as_str())];
    let server = Dnsmasq::start();
    let (target, port) = (server.address.to_string(), ports[1].to_string());
    let agent = lab.start(
        &[
            "udp", "--target", &target, "--port", &port, "--name", "dns", "--data", "agent",
        ],
        &variables,
    );
    assert_eq!(agent.live("dns"), format!("udp://test:{port}"));
    assert_eq!(dig(local(ports[1]), &[dns::NAME.0]), dns::NAME.1);
    let status = edge.ask(&lab, &["status"]).done();
    assert!(
        status.contains(&format!("udp://test:{port} -> {target}")),
        "{status}"
    );
    assert_eq!(agent.stop().0, Some(0));
    // What is no place for datagrams is refused before anything is dialled.
    lab.run(&["udp", "unix:/run/dns.sock"])
        .refused(2, "ADIT-1002", &["UDP", "unix:/run/dns.sock"]);
    let said = lab.run(&["udp", "http://nas.lan:53"]);
    said.refused(2, "ADIT-1002", &["UDP"]);
    assert!(said.err.contains("write nas.lan:53"), "{said:?}");
    lab.run(&["udp", "53", "--compression", "auto"]).refused(
        2,
        "ADIT-1001",
        &["--compression", "datagram"],
    );
}

#[test]
fn a_killed_agents_flows_move_and_its_port_waits_for_it() {
    let (lab, ports) = (Lab::new(), free_udp_ports(1));
    let edge = edge(&lab, &ports, "");
    for who in ["one", "two"] {
        lab.join(&edge, who);
    }
    let services = [Answerer::echo("one "), Answerer::echo("two ")];
    let start = |who: &str, service: &Answerer| {
        let target = service.address.to_string();
        let agent = lab.start(&["udp", &target, "--name", "echo", "--data", who], &[]);
        agent.live("echo");
        agent
    };
    let one = start("one", &services[0]);
    let two = start("two", &services[1]);
    let visitors: Vec<_> = (0..10).map(|_| Speaker::to(local(ports[0]))).collect();
    for visitor in &visitors {
        assert!(visitor.ask(b"x").ends_with(b" x"));
    }
    drop(one.process.kill());
    for visitor in &visitors {
        until_true("the other agent answers", || visitor.ask(b"x") == b"two x");
    }
    // The last one goes: questions wait for it, and then are answered.
    drop(two.process.kill());
    until_true("both links are gone", || {
        edge.metric("adit_links_open") < 1.0
    });
    let early = Speaker::to(local(ports[0]));
    early.say(b"early");
    until_true("it waits", || edge.metric("adit_udp_flows_open") > 0.0);
    let again = start("two", &services[1]);
    assert_eq!(early.ask(b"early"), b"two early");
    assert_eq!(visitors[1].ask(b"x"), b"two x");
    drop(again);
}

#[test]
fn a_flood_costs_bounded_memory_and_nobody_else_anything() {
    let (lab, ports) = (Lab::new(), free_udp_ports(2));
    let edge = edge(&lab, &ports, "[udp]\nflows_per_address = 64\n");
    lab.join(&edge, "agent");
    let service = Answerer::echo("");
    let target = service.address.to_string();
    let start = |name: &str, data: &str| {
        let agent = lab.start(&["udp", &target, "--name", name, "--data", data], &[]);
        agent.live(name);
        agent
    };
    let agent = start("echo", "agent");
    let port = port_of(&agent.process.lines().join("\n"));
    assert_eq!(Speaker::to(local(port)).ask(b"x"), b"x");
    let process = edge.running.process.id().to_string();
    let before = held(&process).memory;
    // An agent that stands still: what its flows are sent has nowhere to go.
    agent.process.signal(rustix::process::Signal::STOP);
    let crowd: Vec<_> = (0..200).map(|_| Speaker::to(local(port))).collect();
    for _ in 0..300 {
        for visitor in &crowd {
            visitor.say(&[7; 1400]);
        }
    }
    until_true("what is too much was dropped", || {
        edge.metric("adit_udp_drops_total{reason=\"flows\"}") > 1000.0
            && edge.metric("adit_udp_drops_total{reason=\"queue\"}") > 1000.0
    });
    let grown = held(&process).memory.saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB");
    // An address of another visitor still has its flows.
    agent.process.signal(rustix::process::Signal::CONT);
    let other = Speaker::from(IpAddr::from([127, 0, 0, 9]), local(port));
    assert_eq!(other.ask(b"y"), b"y");
}

/// The port of the first tunnel that is told to be live.
fn port_of(said: &str) -> u16 {
    let (_, rest) = said.split_once("udp://test:").unwrap();
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

const PORT: u16 = 5353;

/// An edge at one end of a network, with one UDP port on all its addresses.
fn edge_inside(lab: &Lab, end: &End) -> Running {
    lab.file(
        "server.toml",
        &format!(
            "[doors]\nhttp = \"{at}:80\"\nlink = \"{at}:7400\"\napi = \"127.0.0.1:9090\"\n\
             udp_ports = \"{PORT}\"\nudp_bind = \"0.0.0.0\"\n\
             [server]\ndomain = \"test\"\ndata = \"edge\"\nworkers = 2\n",
            at = end.address(),
        ),
    );
    let running = inside(lab, end, &["server", "--config", "server.toml"], &[]);
    running.line("ready");
    running
}

/// From the same port over and over; what comes first waits for the agent.
fn asks_on(resolver: &Speaker) {
    for id in 0..12 {
        let answer = resolver.ask(&question(id));
        assert!(answer.ends_with(&[192, 0, 2, 53]), "{answer:?}");
    }
}

/// Asks for the address of [`dns::NAME`] (RFC 1035 §4.1).
fn question(id: u8) -> Vec<u8> {
    let mut question = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in dns::NAME.0.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    question
}

/// Its datagrams cross as such on QUIC, in frames on a stream.
#[test]
fn dns_over_a_network_that_loses_packets() {
    for carrier in ["quic", "tcp"] {
        dns_over_a_bad_network(carrier);
    }
}

fn dns_over_a_bad_network(carrier: &str) {
    let (lab, network) = (Lab::new(), Network::new(&["home", "edge", "visitor"]));
    let (home, edge, visitor) = (
        network.end("home"),
        network.end("edge"),
        network.end("visitor"),
    );
    let second = edge.more_address(2);
    edge.take(second.into());
    let _edge = edge_inside(&lab, edge);
    let said = |flag| {
        let said = lab.run(&["server", flag, "--config", "server.toml"]);
        said.done().trim().to_owned()
    };
    let (join, pin) = (said("--print-join"), said("--print-pin"));
    let server = Dnsmasq::inside(home, 53);
    let words = ["udp", "53", "--name", "dns", "--data", "agent"];
    // Left to itself an agent with datagrams takes QUIC.
    let way = if carrier == "quic" { "auto" } else { carrier };
    let variables = [
        ("ADIT_EDGE", join.as_str()),
        ("ADIT_PIN", &pin),
        ("ADIT_AGENT_CARRIER", way),
    ];
    let agent = inside(&lab, home, &words, &variables);
    let link = agent.line("connected ");
    assert!(link.ends_with(&format!(" {carrier}")), "{link}");
    assert_eq!(agent.live("dns"), format!("udp://test:{PORT}"));
    // Where several addresses lead to the port, each answers for itself; what
    // is larger than a packet comes in fragments.
    for address in [edge.address(), second] {
        let door = (address, PORT).into();
        assert_eq!(dig_inside(visitor, door, &[dns::NAME.0]), dns::NAME.1);
        let words = [dns::LONG, "TXT", "+notcp", "+ignore", "+bufsize=4096"];
        let long = dig_inside(visitor, door, &words);
        assert_eq!(long.matches('x').count(), 2500, "{long}");
    }
    network.set(&[
        Condition::Delay(Duration::from_millis(20)),
        Condition::Loss(0.1),
        Condition::Seed(7),
    ]);
    // DNS asks again what was lost; nobody else has to.
    let door = (edge.address(), PORT).into();
    for _ in 0..5 {
        let words = [dns::NAME.0, "+tries=10", "+time=1"];
        assert_eq!(dig_inside(visitor, door, &words), dns::NAME.1);
    }
    let resolver = visitor.inside(|| Speaker::to(door));
    asks_on(&resolver);
    let api = local(9090);
    let metric = |name: &str| {
        let (_, page) = edge.inside(|| get(api, &api.to_string(), "/metrics"));
        metric(&page, name)
    };
    assert!(metric("adit_udp_datagrams_total{direction=\"out\"}") >= 21.0);
    assert!(metric("adit_links_open") > 0.0, "the link has borne it");
    let beside = || metric("adit_link_datagrams_total");
    if carrier == "quic" {
        until_true("they crossed as datagrams", || beside() >= 8.0);
    } else {
        assert!(beside() < 1.0);
    }
    drop((server, agent));
}
