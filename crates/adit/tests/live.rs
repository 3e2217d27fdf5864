//! The binary with edge and agent as processes of their own.

#![expect(
    clippy::unwrap_used,
    reason = "code for tests alone, where a panic is how a test fails"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use adit_testkit::process::{Ended, Process};

fn adit(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder);
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Ended {
    Process::run(adit(folder, arguments))
}

/// The last line of a command that must succeed.
fn told(folder: &Path, arguments: &[&str]) -> String {
    let ended = run(folder, arguments);
    assert!(ended.status.success(), "{arguments:?}: {}", ended.text());
    ended.lines.last().cloned().unwrap_or_default()
}

struct Edge {
    process: Process,
    http: SocketAddr,
}

/// Starts an edge on free ports; its data folder is `edge`.
fn edge(folder: &Path) -> Edge {
    let ports = [
        "--http",
        "127.0.0.1:0",
        "--link",
        "127.0.0.1:0",
        "--api",
        "off",
    ];
    let process = Process::spawn(adit(
        folder,
        &[&["server", "--data", "edge"], &ports[..]].concat(),
    ));
    let http = process.line("the HTTP door", |line| {
        line.strip_prefix("listening http ")?.parse().ok()
    });
    process.line("the edge is ready", |line| (line == "ready").then_some(()));
    Edge { process, http }
}

/// A service that answers every connection once with `body`.
fn service(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = [0; 4096];
            let read = socket.read(&mut head).unwrap();
            assert!(read > 0);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            socket.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn get(door: SocketAddr, host: &str, more: &str) -> String {
    let mut socket = TcpStream::connect(door).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    text
}

fn agent(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let mut command = adit(folder, arguments);
    command.envs(variables.iter().copied());
    Process::spawn(command)
}

fn live_url(agent: &Process) -> String {
    agent.line("a live tunnel", |line| {
        let mut words = line.split(' ');
        (words.next() == Some("live")).then(|| words.nth(1).unwrap().to_owned())
    })
}

#[test]
fn the_demo_checks_itself_and_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = adit(folder.path(), &["demo", "--check"]);
    command.env("TMPDIR", folder.path());
    let ended = Process::run(command);
    assert!(ended.status.success(), "{}", ended.text());
    let text = ended.text();
    for part in ["answers 200", "round trip", "nobody publishes is refused"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_service_is_published_by_join_string_and_pin() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let edge = edge(folder);
    let join = told(folder, &["server", "--data", "edge", "--print-join"]);
    let pin = told(folder, &["server", "--data", "edge", "--print-pin"]);
    let target = service("from inside").to_string();

    let without_pin = agent(
        folder,
        &["http", &target, "--data", "agent"],
        &[("ADIT_EDGE", &join)],
    )
    .ended();
    assert_eq!(without_pin.status.code(), Some(2), "{}", without_pin.text());
    assert!(
        without_pin.text().contains("error ADIT-1205"),
        "{}",
        without_pin.text()
    );

    let arguments = ["http", &target, "--name", "app", "--data", "agent"];
    let agent = agent(
        folder,
        &arguments,
        &[("ADIT_EDGE", &join), ("ADIT_PIN", &pin)],
    );
    assert_eq!(
        live_url(&agent),
        format!("http://app.localhost:{}", edge.http.port())
    );
    let answer = get(edge.http, "app.localhost", "");
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("from inside"),
        "{answer}"
    );

    let agents = told(folder, &["agents", "list", "--data", "edge"]);
    assert!(agents.contains(" live "), "{agents}");
    agent.terminate();
    let ended = agent.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text());
    for secret in [&join, &pin] {
        assert!(
            !ended.text().contains(secret.as_str()),
            "a secret was printed"
        );
    }
    edge.process.terminate();
    let ended = edge.process.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.text());
    for secret in [&join, &pin] {
        assert!(
            !ended.text().contains(secret.as_str()),
            "a secret was printed"
        );
    }
}

#[test]
fn a_joined_machine_needs_nothing_more_and_can_be_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let edge = edge(folder);
    let token = told(
        folder,
        &[
            "server", "token", "new", "--data", "edge", "--label", "laptop",
        ],
    );
    let pin = told(folder, &["server", "--data", "edge", "--print-pin"]);
    let mut join = adit(folder, &["join", "--data", "agent"]);
    join.env("ADIT_EDGE", &token).env("ADIT_PIN", &pin);
    let joined = Process::run(join);
    assert!(
        joined.status.success() && joined.text().contains("joined ed25519:"),
        "{}",
        joined.text()
    );

    let target = service("hello").to_string();
    let text = format!(
        "[agent]\ndata = \"agent\"\n[[tunnel]]\nname = \"app\"\ntarget = \"{target}\"\n[[tunnel]]\ntarget = \"{target}\"\nauth = \"ann:sesame\"\n"
    );
    std::fs::write(folder.join("client.toml"), text).unwrap();
    let agent = agent(folder, &["client", "--config", "client.toml"], &[]);
    let (mut app, mut random) = (None, None);
    agent.line("both tunnels", |line| {
        let url = line.strip_prefix("live ")?.split(' ').nth(1)?.to_owned();
        if url.contains("//app.") {
            app = Some(url);
        } else {
            random = Some(url);
        }
        (app.is_some() && random.is_some()).then_some(())
    });
    assert!(get(edge.http, "app.localhost", "").ends_with("hello"));
    let host = random.unwrap().trim_start_matches("http://").to_owned();
    assert!(get(edge.http, &host, "").starts_with("HTTP/1.1 401 "));
    let login = "Authorization: Basic YW5uOnNlc2FtZQ==\r\n";
    assert!(get(edge.http, &host, login).ends_with("hello"));

    let revoked = told(folder, &["agents", "revoke", "laptop", "--data", "edge"]);
    assert!(revoked.contains("1 live link ended"), "{revoked}");
    assert!(!get(edge.http, "app.localhost", "").starts_with("HTTP/1.1 200 "));
    agent.line("the agent notices", |line| {
        line.contains("ADIT-3").then_some(())
    });
}

#[test]
fn a_second_edge_on_one_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _edge = edge(folder.path());
    let ports = [
        "--http",
        "127.0.0.1:0",
        "--link",
        "127.0.0.1:0",
        "--api",
        "off",
    ];
    let second = run(
        folder.path(),
        &[&["server", "--data", "edge"], &ports[..]].concat(),
    );
    assert_eq!(second.status.code(), Some(1), "{}", second.text());
    assert!(
        second.text().contains("error ADIT-2104"),
        "{}",
        second.text()
    );
}

#[test]
fn a_service_that_is_down_is_told_to_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut command = adit(
        folder,
        &[
            "server",
            "--data",
            "edge",
            "--http",
            "127.0.0.1:0",
            "--link",
            "127.0.0.1:0",
            "--api",
            "off",
        ],
    );
    command.env("ADIT_ADMISSION_PIN", "off");
    let edge = Process::spawn(command);
    let http: SocketAddr = edge.line("the HTTP door", |line| {
        line.strip_prefix("listening http ")?.parse().ok()
    });
    edge.line("the edge is ready", |line| (line == "ready").then_some(()));
    let join = told(folder, &["server", "--data", "edge", "--print-join"]);
    // Port 1 is assigned to a service that nobody runs.
    let target = "127.0.0.1:1";
    let agent = agent(
        folder,
        &["http", target, "--name", "app", "--data", "agent"],
        &[("ADIT_EDGE", &join)],
    );
    live_url(&agent);
    let answer = get(http, "app.localhost", "");
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(
        !answer.to_lowercase().contains("adit") && !answer.contains("tunnel"),
        "{answer}"
    );
    agent.line("the owner is told", |line| {
        (line.contains("the service behind it is not") && line.contains("ADIT-4101")).then_some(())
    });
}
