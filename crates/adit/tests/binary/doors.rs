//! The API door, the statistics through the HTTP door, bans.

use std::sync::{Arc, Mutex};

use adit_testkit::process::Process;
use adit_testkit::python::script;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::until_true;

use crate::lab::{Edge, Lab, get};

const STATS: &str = "/_sys/sync_stats";

/// A service that writes down the first lines and heads it was sent.
fn recorder() -> (String, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let records = Arc::clone(&seen);
    let address = origin(move |mut socket: Socket| {
        let head = socket.head();
        records.lock().unwrap().push(head);
        socket.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nours");
    });
    (address.to_string(), seen)
}

#[test]
fn the_api_door_tells_this_machine_alone() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (target, _) = recorder();
    let agent = lab.agent(&edge, "agent", &[&target, "--name", "app"]);
    agent.live("app");
    assert_eq!(edge.get("app.test", "/").0, 200);
    for host in [
        edge.api.to_string(),
        "localhost".to_owned(),
        "[::1]:1".to_owned(),
    ] {
        assert_eq!(get(edge.api, &host, "/_sys/health").0, 200, "{host}");
    }
    let (status, page) = get(edge.api, "localhost", "/metrics");
    assert!(
        status == 200 && page.contains("adit_uptime_seconds "),
        "{page}"
    );
    for host in ["evil.test", "127.0.0.1.evil.test", "app.test", ""] {
        let (status, answer) = get(edge.api, host, "/metrics");
        assert!(matches!(status, 400 | 421), "{host}: {answer}");
        assert!(answer.ends_with("\r\n\r\n"), "it says nothing: {answer}");
    }
    // Neither is at the public door.
    for path in ["/metrics", "/_sys/health"] {
        assert_eq!(
            edge.get("localhost", path).0,
            edge.get("localhost", "/other").0
        );
    }
    let memory = edge.metric("process_resident_memory_bytes");
    assert!((1e6..1e9).contains(&memory), "{memory}");
}

/// What visitors and agents did shows in the metrics.
#[test]
fn the_metrics_count_what_happened() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (target, _) = recorder();
    let agent = lab.agent(&edge, "agent", &[&target, "--name", "app"]);
    agent.live("app");
    assert_eq!(edge.get("app.test", "/").0, 200);
    assert_ne!(edge.get("nobody.test", "/").0, 200);
    for (name, least) in [
        ("adit_connections_total{door=\"http\"}", 2.0),
        ("adit_connections_total{door=\"link\"}", 1.0),
        ("adit_http_requests_total{class=\"2xx\"}", 1.0),
        ("adit_http_refusals_total{reason=\"unknown_host\"}", 1.0),
        ("adit_links_open", 1.0),
        ("adit_tunnels_open", 1.0),
        ("adit_streams_total", 1.0),
        ("adit_channels_total", 1.0),
        ("adit_link_bytes_total{direction=\"in\"}", 1.0),
        ("adit_link_bytes_total{direction=\"out\"}", 1.0),
    ] {
        // Some are copied once a second.
        until_true(name, || edge.metric(name) >= least);
    }
    agent.stop();
    until_true("the link is gone", || edge.metric("adit_links_open") < 1.0);
    let health = || get(edge.api, "localhost", "/_sys/health").1;
    until_true("health tells of it", || health().contains("\"links\":0"));
}

/// Runs the example's script against a door; what it printed.
fn read_statistics(lab: &Lab, door: &str) -> String {
    let mut command = script("examples/sync_stats.py");
    command
        .arg(format!("http://{door}"))
        .arg(lab.path("edge/secret"));
    let ended = Process::run(command);
    assert!(ended.status.success(), "{}", ended.text());
    ended.text()
}

/// A request that the script has signed, as it stood on the wire.
fn signed(lab: &Lab) -> String {
    let (address, seen) = recorder();
    let mut command = script("examples/sync_stats.py");
    command
        .arg(format!("http://{address}"))
        .arg(lab.path("edge/secret"));
    let ended = Process::run(command);
    assert!(
        !ended.status.success(),
        "nobody sealed anything: {}",
        ended.text()
    );
    seen.lock().unwrap().remove(0)
}

/// Sends a signed request under another host name; the answer.
fn send(edge: &Edge, request: &str, host: &str) -> (u16, String) {
    let lines = request.trim_end().split("\r\n");
    let lines = lines.map(|line| match line.split_once(": ") {
        Some((name, _)) if name.eq_ignore_ascii_case("host") => format!("Host: {host}"),
        _ => line.to_owned(),
    });
    let request = lines.collect::<Vec<_>>().join("\r\n") + "\r\n\r\n";
    let (answer, _) = Socket::send_to(edge.http, request).rest();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (
        answer.split(' ').nth(1).unwrap_or("0").parse().unwrap(),
        answer,
    )
}

/// An answer without what changes from one to the next.
fn constant(answer: &str) -> String {
    let lines = answer.lines().filter(|line| {
        let lower = line.to_lowercase();
        !lower.starts_with("date:") && !lower.starts_with("x-request-id:")
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn statistics_are_read_by_the_secret_through_the_public_door() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let (target, seen) = recorder();
    let agent = lab.agent(&edge, "agent", &[&target, "--name", "app"]);
    agent.live("app");
    let text = read_statistics(&lab, &edge.http.to_string());
    let stats: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(stats.to_string().contains("app"), "{stats}");
    assert!(stats["totals"].is_object(), "{stats}");
    // A good signature counts once, on a live host as well.
    let request = signed(&lab);
    let (status, answer) = send(&edge, &request, "app.test");
    assert!(status == 200 && !answer.ends_with("ours"), "{answer}");
    assert!(!answer.contains("\"totals\""), "it is sealed: {answer}");
    assert_eq!(seen.lock().unwrap().len(), 0);
    let (status, answer) = send(&edge, &request, "app.test");
    assert!(
        status == 200 && answer.ends_with("ours"),
        "the second time it is forwarded: {answer}"
    );
    // Elsewhere a bad one looks like any path of an unknown host.
    let unknown = edge.get("nobody.test", "/any");
    let plain = edge.get("nobody.test", STATS);
    let replayed = send(&edge, &request, "nobody.test");
    let forged = signed(&lab).replacen("X-Adit-Signature: ", "X-Adit-Signature: 0", 1);
    let forged = send(&edge, &forged, "nobody.test");
    assert_eq!(unknown.0, plain.0);
    for other in [&plain, &replayed, &forged] {
        assert_eq!(constant(&other.1), constant(&unknown.1));
    }
}

/// The edge's own addresses are never banned, so the visitors come through a
/// proxy that is trusted.
#[test]
fn too_many_wrong_passwords_ban_their_address_alone() {
    let lab = Lab::new();
    let edge = lab.edge_with(
        &["127.0.0.1:0"; 3].map(str::to_owned),
        "[limits]\nlogins_before_ban = 3\n\
         [[route]]\nhost = \"www.test\"\nagents = \"app\"\nauth = \"owner:correct horse\"",
        &[("ADIT_DOORS_TRUSTED_PROXIES", "127.0.0.1")],
    );
    let (target, seen) = recorder();
    let agent = lab.agent(&edge, "agent", &[&target, "--name", "app"]);
    agent.live("app");
    let visit = |from: &str, login: &str| {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: www.test\r\nX-Forwarded-For: {from}\r\n\
             Authorization: Basic {login}\r\nConnection: close\r\n\r\n"
        );
        let (answer, _) = Socket::send_to(edge.http, request).rest();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        answer
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    };
    // owner:correct horse, owner:wrong
    let (right, wrong) = ("b3duZXI6Y29ycmVjdCBob3JzZQ==", "b3duZXI6d3Jvbmc=");
    assert_eq!(visit("203.0.113.7", right), 200);
    for _ in 0..3 {
        assert_eq!(visit("203.0.113.7", wrong), 401);
    }
    let banned: u16 = visit("203.0.113.7", right);
    assert!(banned != 200 && banned != 401, "{banned}");
    assert_eq!(visit("203.0.113.8", right), 200);
    assert_eq!(seen.lock().unwrap().len(), 2);
    assert!(edge.metric("adit_bans_total") >= 1.0);
}
