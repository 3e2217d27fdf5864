//! What a running agent tells its owner, on a machine with an edge or without.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::time::Duration;

use adit_testkit::datagrams::{Answerer, Speaker, free_udp_ports};
use adit_testkit::raw::{Socket, free_ports, origin};
use adit_testkit::wait::until;
use rustix::process::Signal;
use serde_json::Value;

use crate::lab::{Edge, Lab, Running};

/// What an answer of a service takes at most.
const SOON: Duration = Duration::from_secs(20);

/// An agent whose service answers `hello`, and where that is.
fn publish(lab: &Lab, edge: &Edge, name: &str) -> (Running, String) {
    let service = origin(|mut socket: Socket| {
        while socket.next_head().is_some() {
            socket.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let target = service.to_string();
    let agent = lab.agent(edge, "agent", &[&target, "--name", name]);
    agent.live(name);
    (agent, target)
}

/// What the agents of the folder say.
fn agents(lab: &Lab) -> Vec<Value> {
    let said = lab.run(&["status", "--json", "--data", &lab.text_of("agent")]);
    let all: Value = serde_json::from_str(&said.done()).unwrap();
    assert!(all.get("version").is_none(), "no edge is there: {all}");
    all["local_agents"].as_array().unwrap().clone()
}

#[test]
fn an_agents_status_is_one_object_with_everything() {
    let lab = Lab::new();
    let edge = lab.edge("[link]\nheartbeat_seconds = 1\n");
    let (agent, target) = publish(&lab, &edge, "app");
    for _ in 0..3 {
        assert_eq!(edge.get("app.test", "/").0, 200);
    }
    let said = until("a heartbeat has measured the link", || {
        let [said] = <[Value; 1]>::try_from(agents(&lab)).unwrap();
        let counted = said["tunnels"][0]["bytes_out"].as_u64() >= Some(3 * 5);
        (said["link"]["rtt_us"].is_u64() && counted).then_some(said)
    });
    let key = lab.run(&["key", "show", "--data", &lab.text_of("agent")]);
    assert_eq!(said["agent"], key.done().trim());
    assert_eq!(said["process"], agent.process.id());
    let link = &said["link"];
    assert_eq!(link["address"], edge.link.to_string());
    assert_eq!(link["carrier"], "tcp");
    assert!(link["edge"].as_str().unwrap().starts_with("ed25519:"));
    assert!(link["since"].as_u64() <= said["time"].as_u64(), "{said}");
    let tunnel = &said["tunnels"][0];
    let (name, kind, state) = (&tunnel["name"], &tunnel["kind"], &tunnel["state"]);
    assert_eq!(
        (name, kind, state),
        (&"app".into(), &"http".into(), &"live".into())
    );
    let url = format!("http://app.test:{}", edge.http.port());
    assert_eq!(tunnel["url"], url);
    assert_eq!(tunnel["target"], format!("http://{target}"));
    // One stream serves one request after another.
    assert!(tunnel["streams_ever"].as_u64() >= Some(1), "{said}");
    let socket = fs::metadata(lab.path("agent/running/1.sock")).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    // Without a link it says so, and why.
    edge.running.stop();
    let alone = until("the link is gone", || {
        let said = agents(&lab).remove(0);
        said["trouble"]["code"].is_string().then_some(said)
    });
    assert_eq!(
        (&alone["link"], &alone["tunnels"][0]["state"]),
        (&Value::Null, &"waiting".into())
    );
    assert_eq!(agent.stop().0, Some(0));
    assert!(!lab.path("agent/running/1.sock").exists());
}

/// Waits until the agents' tunnels have so many bytes in and out, of a stream
/// that is open.
fn counts_while_open(lab: &Lab, bytes_in: u64, bytes_out: u64) {
    let seen = until("the bytes of an open stream are counted", || {
        let tunnel = &agents(lab)[0]["tunnels"][0];
        let number = |key: &str| tunnel[key].as_u64().unwrap();
        let (seen_in, seen_out) = (number("bytes_in"), number("bytes_out"));
        let all = seen_in >= bytes_in && seen_out >= bytes_out;
        all.then(|| (seen_in, seen_out, number("streams")))
    });
    assert_eq!(seen, (bytes_in, bytes_out, 1));
}

#[test]
fn bytes_are_counted_while_their_stream_is_open() {
    let (lab, port) = (Lab::new(), free_ports(1)[0]);
    let doors = ["127.0.0.1:0"; 3].map(str::to_owned);
    let ports = [("ADIT_DOORS_TCP_PORTS", &*port.to_string())];
    let edge = lab.edge_with(&doors, "", &ports);
    lab.join(&edge, "agent");
    let target = origin(|mut socket: Socket| {
        socket.send("hello\n");
        loop {
            let line = socket.until("\n");
            socket.send([&line[..], b"and more\n"].concat());
            if line == b"bye\n" {
                return;
            }
        }
    });
    let target = target.to_string();
    let words = ["tcp", &target, "--name", "shell", "--data", "agent"];
    let agent = lab.start(&words, &[]);
    agent.live("shell");
    let mut visitor = Socket::dial(SocketAddr::from(([127, 0, 0, 1], port)));
    visitor.until("hello\n");
    counts_while_open(&lab, 0, 6);
    for round in 1..=2 {
        visitor.send("words\n");
        visitor.until("and more\n");
        counts_while_open(&lab, 6 * round, 6 + 15 * round);
    }
    let page = lab.run(&["status", "--data", &lab.text_of("agent")]).done();
    assert!(page.contains(" 12 B  36 B\n"), "{page}");
    // Its end adds what came last, and nothing twice.
    visitor.send("bye\n");
    assert_eq!(visitor.rest().0, b"bye\nand more\n");
    drop(visitor);
    let ended = until("the stream has ended", || {
        let tunnel = agents(&lab).remove(0)["tunnels"][0].clone();
        (tunnel["streams"] == 0).then_some(tunnel)
    });
    assert_eq!(
        (&ended["bytes_in"], &ended["bytes_out"]),
        (&16.into(), &49.into())
    );
}

#[test]
fn bytes_are_counted_while_their_flow_is_open() {
    let (lab, port) = (Lab::new(), free_udp_ports(1)[0]);
    let doors = ["127.0.0.1:0"; 3].map(str::to_owned);
    let ports = [("ADIT_DOORS_UDP_PORTS", &*port.to_string())];
    let edge = lab.edge_with(&doors, "", &ports);
    lab.join(&edge, "agent");
    let service = Answerer::echo("echo ");
    let target = service.address.to_string();
    let words = ["udp", &target, "--name", "echo", "--data", "agent"];
    let agent = lab.start(&words, &[]);
    agent.live("echo");
    let visitor = Speaker::to(SocketAddr::from(([127, 0, 0, 1], port)));
    for round in 1..=2 {
        assert!(visitor.say(b"words"));
        assert_eq!(visitor.heard(SOON).unwrap(), b"echo words");
        counts_while_open(&lab, 5 * round, 10 * round);
    }
}

#[test]
fn edge_and_agents_of_a_machine_stand_on_one_page() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (_agent, target) = publish(&lab, &edge, "app");
    let (_second, _) = publish(&lab, &edge, "other");
    // As if both were at their usual places.
    let (edge_data, agent_data) = (lab.text_of("edge"), lab.text_of("agent"));
    let here = [
        ("ADIT_SERVER_DATA", edge_data.as_str()),
        ("ADIT_AGENT_DATA", agent_data.as_str()),
    ];
    let page = lab.run_with(&["status"], &here).done();
    assert!(page.contains(", 2 links, 2 tunnels\n"), "{page}");
    let heads = page.lines().filter(|line| line.contains(", process "));
    assert_eq!(heads.count(), 2, "{page}");
    let row = |line: &&str| line.starts_with("app ") && line.contains("  live  ");
    assert!(page.lines().any(|line| row(&line)), "{page}");
    let below = format!("  http://app.test:{} -> http://{target}", edge.http.port());
    assert_eq!(
        page.lines().filter(|line| *line == below).count(),
        2,
        "{page}"
    );
    let said = lab.run_with(&["status", "--json"], &here).done();
    let all: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(all["totals"]["links"], 2);
    assert_eq!(all["local_agents"].as_array().unwrap().len(), 2);
    // A file says which one is meant.
    let one = edge.ask(&lab, &["status"]).done();
    assert!(!one.contains(", process "), "{one}");
    let client = lab.file("client.toml", "[agent]\ndata = \"agent\"\n");
    let other = lab.run(&["status", "--config", &client]).done();
    assert!(
        other.starts_with("adit 0.") && other.contains(", agent "),
        "{other}"
    );
    assert!(
        !other.contains("CERTIFICATE") && !other.contains("DOOR"),
        "{other}"
    );
}

#[test]
fn a_killed_agent_is_told_as_not_running_and_leaves_no_obstacle() {
    let lab = Lab::new();
    let data = lab.text_of("agent");
    let none = lab.run(&["status", "--data", &data]);
    none.refused(1, "ADIT-2201", &["no edge runs", "no agent runs", &data]);
    let edge = lab.edge("");
    let (agent, _) = publish(&lab, &edge, "app");
    agent.process.signal(Signal::KILL);
    agent.ended();
    assert!(lab.path("agent/running/1.sock").exists());
    let dead = lab.run(&["status", "--data", &data]);
    dead.refused(1, "ADIT-2205", &["not running any more", "killed", &data]);
    let (_agent, _) = publish(&lab, &edge, "app");
    assert_eq!(agents(&lab).len(), 1);
    assert!(!lab.path("agent/running/2.sock").exists());
}

#[test]
fn a_stopped_agent_is_told_as_silent() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (agent, _) = publish(&lab, &edge, "app");
    agent.process.signal(Signal::STOP);
    let said = lab.run(&["status", "--data", &lab.text_of("agent")]);
    said.refused(1, "ADIT-2104", &["does not answer", "1.sock"]);
    agent.process.signal(Signal::CONT);
    assert_eq!(agents(&lab).len(), 1);
}
