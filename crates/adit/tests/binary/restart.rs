//! What outlives a process: names and URLs, an edge's agents.

use std::time::{Duration, Instant};

use adit_testkit::datagrams::{Answerer, Speaker, free_udp_ports};
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Lab, Running};

fn target() -> String {
    let served = origin(|mut socket: Socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
    });
    served.to_string()
}

/// Of a tunnel without a name: the URL and the host in it.
fn random(agent: &Running) -> (String, String) {
    let rest = agent.line("live ");
    let url = rest.split(' ').nth(1).unwrap().to_owned();
    let host = url.trim_start_matches("http://").split(':').next();
    (url.clone(), host.unwrap().to_owned())
}

#[test]
fn the_url_of_a_tunnel_without_a_name_outlives_every_restart() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (one, two) = (target(), target());
    lab.join(&edge, "agent");
    let agent = lab.agent_with("agent", &[&one], &[]);
    let (url, host) = random(&agent);
    // 64 bits take 13 characters of 32.
    assert!(host.split('.').next().unwrap().len() >= 13, "{host}");
    assert_eq!(edge.get(&host, "/").0, 200);
    // A second process for another target, at the same time.
    let other = lab.agent_with("agent", &[&two], &[]);
    let (other_url, other_host) = random(&other);
    assert_ne!(url, other_url);
    drop(agent.process.kill());
    other.stop();
    let again = lab.agent_with("agent", &[&one], &[]);
    assert_eq!(random(&again).0, url);
    let other = lab.agent_with("agent", &[&two], &[]);
    assert_eq!(random(&other).0, other_url);
    // The edge, too.
    let doors = edge.doors();
    drop(edge.running.process.kill());
    let edge = lab.edge_at(&doors, "");
    for host in [&host, &other_host] {
        until_true("the URL leads there again", || edge.get(host, "/").0 == 200);
    }
}

#[test]
fn a_killed_edge_has_its_agents_back_within_two_seconds() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let agents: Vec<_> = ["one", "two", "three"]
        .map(|name| {
            let agent = lab.agent(&edge, name, &[&target(), "--name", name]);
            agent.live(name);
            agent
        })
        .into();
    let doors = edge.doors();
    drop(edge.running.process.kill());
    for agent in &agents {
        agent.logged("ADIT-3004");
    }
    let edge = lab.edge_at(&doors, "");
    let open = Instant::now();
    for name in ["one", "two", "three"] {
        let host = format!("{name}.test");
        until_true("the name leads there again", || {
            edge.get(&host, "/").0 == 200
        });
    }
    let took = open.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// Nothing tells an agent on QUIC that its edge was killed; the edge's next
/// process does.
#[test]
fn a_killed_edge_has_its_agents_on_quic_back_soon() {
    let (lab, ports) = (Lab::new(), free_udp_ports(2));
    let quic = format!("127.0.0.1:{}", ports[0]);
    let public = ports[1].to_string();
    let variables = [
        ("ADIT_DOORS_QUIC", quic.as_str()),
        ("ADIT_DOORS_UDP_PORTS", public.as_str()),
    ];
    let mut doors = ["127.0.0.1:0"; 3].map(str::to_owned);
    let mut edge = lab.edge_with(&doors, "", &variables);
    lab.join(&edge, "agent");
    let service = Answerer::echo("here ");
    let target = service.address.to_string();
    let agent = lab.start(&["udp", &target, "--name", "echo", "--data", "agent"], &[]);
    agent.live("echo");
    let visitor = Speaker::to(([127, 0, 0, 1], ports[1]).into());
    assert_eq!(visitor.ask(b"x"), b"here x");
    let status = edge.ask(&lab, &["status"]).done();
    let agents = status.split("CARRIER").nth(1);
    assert!(agents.is_some_and(|rows| rows.contains("quic")), "{status}");
    doors = edge.doors();
    for _ in 0..2 {
        drop(edge.running.process.kill());
        edge = lab.edge_with(&doors, "", &variables);
        let open = Instant::now();
        assert_eq!(visitor.ask(b"x"), b"here x");
        let took = open.elapsed();
        assert!(took < Duration::from_secs(6), "{took:?}");
    }
}

/// The last line of a connection is not lost with its agent: another agent of
/// the name serves the next request, and the one that died comes back.
#[test]
fn of_two_agents_the_killed_one_is_not_missed() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let target = target();
    let arguments = [target.as_str(), "--name", "app"];
    for who in ["one", "two"] {
        lab.join(&edge, who);
    }
    let one = lab.agent_with("one", &arguments, &[]);
    let two = lab.agent_with("two", &arguments, &[]);
    for agent in [&one, &two] {
        agent.live("app");
    }
    drop(one.process.kill());
    for _ in 0..20 {
        assert_eq!(edge.get("app.test", "/").0, 200);
    }
    let one = lab.agent_with("one", &arguments, &[]);
    one.live("app");
    drop(two.process.kill());
    for _ in 0..20 {
        assert_eq!(edge.get("app.test", "/").0, 200);
    }
}
