//! The binary as people run it: exit statuses and sentences for wrong use,
//! and what works without a network.

#![expect(
    clippy::unwrap_used,
    reason = "code for tests alone, where a panic is how a test fails"
)]

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};

struct World {
    folder: tempfile::TempDir,
}

struct Ended {
    status: i32,
    out: String,
    err: String,
}

impl World {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
        command
            .args(line.split_whitespace())
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Ended {
        ended(self.command(line).output().unwrap())
    }

    fn run_with(&self, line: &str, variable: (&str, &str)) -> Ended {
        let (name, value) = variable;
        ended(self.command(line).env(name, value).output().unwrap())
    }

    fn run_typed(&self, line: &str, typed: &str) -> Ended {
        let mut command = self.command(line);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(typed.as_bytes()).unwrap();
        drop(stdin);
        ended(child.wait_with_output().unwrap())
    }

    /// Names below the folder.
    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

fn ended(output: Output) -> Ended {
    Ended {
        status: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Wrong: the status, how the last sentence begins, and a part of its remedy.
#[track_caller]
fn refused(ended: &Ended, status: i32, sentence: &str, remedy: &str) {
    assert_eq!(ended.status, status, "{}", ended.err);
    assert!(
        ended.err.contains(sentence),
        "{sentence}\n--- but\n{}",
        ended.err
    );
    assert!(
        ended.err.contains(remedy),
        "{remedy}\n--- but\n{}",
        ended.err
    );
    assert!(ended.out.is_empty(), "{}", ended.out);
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
}

#[track_caller]
fn done(ended: &Ended) -> &str {
    assert_eq!(ended.status, 0, "{}", ended.err);
    &ended.out
}

#[test]
fn wrong_command_lines_are_told_with_the_code_of_wrong_use() {
    let world = World::new();
    let cases = [
        ("", "Usage: adit <COMMAND>"),
        (
            "htpp 3000",
            "similar subcommands exist: 'tcp', 'top', 'http'",
        ),
        ("http", "<TARGET>"),
        (
            "http 3000 --nmae app",
            "a similar argument exists: '--name'",
        ),
        ("tcp", "<TARGET>"),
        (
            "tcp 22 --port 0",
            "'0' for '--port <PORT>': one port, from 1 to 65535",
        ),
        ("tcp 22 --port 65536", "one port, from 1 to 65535"),
        ("udp 53 --port 5000-5009", "one port, from 1 to 65535"),
        ("udp 53 --port -1", "one port, from 1 to 65535"),
        ("bans add 192.0.2.0/24", "a network; it wants one address"),
        ("guests add ssh home.test", "an address is written like"),
        ("tcp 22 --target 22", "cannot be used with"),
        ("tcp 22 --auth ann:x", "unexpected argument '--auth'"),
        ("server --print-join --print-pin", "cannot be used with"),
        ("server token", "new"),
    ];
    for (line, part) in cases {
        let ended = world.run(line);
        assert_eq!(ended.status, 2, "{line}: {}", ended.err);
        assert!(ended.err.contains(part), "{line}: {}", ended.err);
    }
    refused(
        &world.run("htpp"),
        2,
        "error ADIT-1001: unrecognized subcommand",
        "--help",
    );
}

#[test]
fn each_wrong_target_name_and_password_is_told() {
    let world = World::new();
    let form = "write it like `3000` or `nas.lan:5000`";
    let cases = [
        ("http tcp://localhost:22", "ADIT-1002: target scheme", form),
        ("http localhost", "ADIT-1002: target", form),
        ("http http://localhost:3000/app", "ADIT-1002: target", form),
        ("http 99999", "ADIT-1002: target", form),
        (
            "tcp ::1:22",
            "ADIT-1002: target \"::1:22\": an IPv6 address stands in brackets",
            form,
        ),
        (
            "http 3000 --insecure-target",
            "ADIT-1002: --insecure-target",
            "https://",
        ),
        (
            "http 3000 --name my_app",
            "ADIT-1003: --name",
            "leave it out",
        ),
        (
            "http 3000 --host-header a/b",
            "ADIT-1001: --host-header",
            "localhost:3000",
        ),
        (
            "http 3000 --auth file:gone",
            "ADIT-1110: --auth: gone cannot be read",
            "0600",
        ),
    ];
    for (line, sentence, remedy) in cases {
        refused(&world.run(line), 2, &format!("error {sentence}"), remedy);
    }
    let ended = world.run_with("http 3000", ("ADIT_AUTH", "ann"));
    refused(&ended, 2, "error ADIT-1004: --auth", "user:password");
    assert!(
        world.left().is_empty(),
        "nothing is written: {:?}",
        world.left()
    );
}

#[test]
fn each_wrong_join_string_and_pin_is_told_and_never_repeated() {
    let world = World::new();
    let wrong = "adit1nobodyshouldseethis";
    let ended = world.run_with("http 3000", ("ADIT_EDGE", wrong));
    refused(
        &ended,
        2,
        "environment variable ADIT_EDGE: error ADIT-1201",
        "--print-join",
    );
    assert!(!ended.err.contains(wrong), "{}", ended.err);
    let ended = world.run(&format!("http 3000 --edge {wrong}"));
    refused(
        &ended,
        2,
        "argument --edge: error ADIT-1201",
        "warning: --edge was given as an argument",
    );
    assert!(!ended.err.contains(wrong), "{}", ended.err);
    let ended = world.run_typed("join -", &format!("{wrong}\n"));
    refused(&ended, 2, "argument STRING: error ADIT-1201", "copy it");
    assert!(!ended.err.contains(wrong), "{}", ended.err);
    refused(
        &world.run_typed("join -", ""),
        2,
        "error ADIT-1110: STRING - reads one line",
        "pipe",
    );
    refused(
        &world.run("join"),
        2,
        "error ADIT-1203: there is no join string",
        "ADIT_EDGE",
    );
    refused(
        &world.run("http 3000 --edge file:gone"),
        2,
        "error ADIT-1110: `edge`: gone",
        "there is no such file",
    );
    refused(
        &world.run("http 3000 --edge - --pin -"),
        2,
        "error ADIT-1001: two options",
        "file:PATH",
    );
    let ended = world.run_with("http 3000", ("ADIT_PIN", "12345"));
    refused(
        &ended,
        2,
        "error ADIT-1204: `pin` is refused",
        "--print-pin",
    );
    assert!(
        world.left().is_empty(),
        "nothing is written: {:?}",
        world.left()
    );
}

#[test]
fn a_machine_that_has_not_joined_is_told_how() {
    let world = World::new();
    refused(
        &world.run("http 3000 --data agent"),
        2,
        "error ADIT-1203",
        "adit join",
    );
}

#[test]
fn an_edge_that_is_not_there_is_unreachable() {
    let world = World::new();
    // Bound and not listened to by an edge: the port is known to be free.
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    world.file(
        "server.toml",
        &format!("[server]\ndata = \"edge\"\npublic = \"127.0.0.1:{port}\""),
    );
    let join = world.run("server --config server.toml --print-join");
    let ended = world.run_with("join --data agent", ("ADIT_EDGE", done(&join).trim()));
    refused(&ended, 4, "error ADIT-3001", "nc -vz");
    assert!(
        !world
            .run("edge list --data agent")
            .out
            .contains("127.0.0.1"),
        "nothing is remembered"
    );
}

#[test]
fn right_configurations_are_told_apart() {
    let world = World::new();
    let route = "[[route]]\nhost = \"a.test\"\nagents = \"app\"\n";
    world.file(
        "server.toml",
        &format!("[server]\ndomain = \"example.test\"\n{route}"),
    );
    let ended = world.run("config check server.toml");
    let told = "server.toml: no mistake (an edge for example.test, 1 route)\n";
    assert_eq!(done(&ended), told);
    world.file(
        "client.toml",
        "[[tunnel]]\ntarget = \"3000\"\n[[tunnel]]\ntarget = \"3001\"\n",
    );
    let ended = world.run("config check client.toml");
    assert_eq!(
        done(&ended),
        "client.toml: no mistake (an agent, 2 tunnels)\n"
    );
}

#[test]
fn a_folder_is_no_configuration() {
    let world = World::new();
    refused(
        &world.run("config check ."),
        2,
        "error ADIT-1101",
        "it is a folder",
    );
}

#[test]
fn wrong_configurations_start_nothing() {
    let world = World::new();
    world.file(
        "bad.toml",
        "[server]\ndomian = \"example.test\"\nworkers = \"4\"\n",
    );
    world.file("empty.toml", "");
    let near = "did you mean `domain`?";
    let absent = "there is no such file";
    let cases = [
        (
            "config check bad.toml",
            "bad.toml:2:1: error ADIT-1103",
            near,
        ),
        (
            "config check bad.toml",
            "bad.toml:3:11: error ADIT-1104",
            "2 mistakes; nothing was started\n",
        ),
        (
            "config check gone.toml",
            "gone.toml: error ADIT-1101",
            absent,
        ),
        ("server --config bad.toml", "2 mistakes", near),
        (
            "server --config gone.toml --print-join",
            "gone.toml: error ADIT-1101",
            absent,
        ),
        (
            "server --domain a..b",
            "argument --domain: error ADIT-1106",
            "example.test",
        ),
        (
            "client --config bad.toml",
            "`server` is not known here",
            "[[tunnel]]",
        ),
        (
            "client --config empty.toml",
            "error ADIT-1107: empty.toml",
            "[[tunnel]]",
        ),
        (
            "client",
            "error ADIT-1001: there is no configuration file",
            "example client",
        ),
    ];
    for (line, sentence, remedy) in cases {
        refused(&world.run(line), 2, sentence, remedy);
    }
    assert_eq!(
        world.left().len(),
        2,
        "nothing is written: {:?}",
        world.left()
    );
}

#[test]
fn examples_schemas_and_completions_are_printed_whole() {
    let world = World::new();
    for side in ["server", "client"] {
        let example = world.run(&format!("config example {side}"));
        world.file("example.toml", done(&example));
        done(&world.run(&format!("config check example.toml --for {side}")));
        let schema = world.run(&format!("config schema {side}"));
        let schema: serde_json::Value = serde_json::from_str(done(&schema)).unwrap();
        assert_eq!(schema["type"], "object");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(done(&world.run(&format!("completions {shell}"))).contains("adit"));
    }
    let text = world.run("explain ADIT-2001");
    assert!(done(&text).starts_with("ADIT-2001: the address is in use\n\n"));
    refused(
        &world.run("explain 9999"),
        2,
        "error ADIT-1001: 9999",
        "ADIT-2001",
    );
}

#[test]
fn identities_are_made_once_and_shown() {
    let world = World::new();
    refused(
        &world.run("key show --data agent"),
        2,
        "error ADIT-1007: there is no identity in",
        "adit key new",
    );
    let made = world.run("key new --data agent");
    let key = done(&made).trim().to_owned();
    assert!(key.starts_with("ed25519:"), "{key}");
    assert_eq!(done(&world.run("key show --data agent")).trim(), key);
    refused(
        &world.run("key new --data agent"),
        2,
        "error ADIT-1006",
        "adit key show",
    );
    let made = world.run("key new --server --data edge");
    let edge = done(&made).trim().to_owned();
    assert_eq!(
        done(&world.run("key show --server --data edge")).trim(),
        edge
    );
    assert_ne!(edge, key);
}

#[test]
fn the_owners_commands_work_on_the_files_when_no_edge_runs() {
    let world = World::new();
    refused(
        &world.run("agents list --data edge"),
        1,
        "error ADIT-2201",
        "adit server",
    );
    assert!(
        world.left().is_empty(),
        "a mistyped path leaves nothing: {:?}",
        world.left()
    );
    let join = world.run("server --data edge --print-join");
    assert!(done(&join).starts_with("adit1"));
    assert_eq!(world.run("server --data edge --print-join").out, join.out);
    refused(
        &world.run("server --data edge --print-pin"),
        1,
        "error ADIT-2201",
        "adit server",
    );
    assert!(done(&world.run("agents list --data edge")).contains("no agent has joined yet"));
    assert_eq!(done(&world.run("agents list --data edge --json")), "[]\n");
    let token = world.run("server token new --data edge --label laptop");
    assert!(done(&token).starts_with("adit1") && token.out != join.out);
    refused(
        &world.run("agents revoke nobody --data edge"),
        2,
        "error ADIT-5001",
        "adit agents list",
    );
    let rotated = world.run("secret rotate --data edge");
    assert!(done(&rotated).starts_with("adit1") && rotated.out != join.out);
    refused(
        &world.run("edge forget --data agent"),
        2,
        "error ADIT-5002",
        "edge list",
    );
}

#[test]
fn a_data_folder_that_cannot_be_is_told() {
    let world = World::new();
    world.file("file", "not a folder");
    let ended = world.run("server --data file --http 127.0.0.1:0 --link 127.0.0.1:0 --api off");
    refused(&ended, 1, "error ADIT-2101", "data");
    refused(
        &world.run("key new --data file/agent"),
        1,
        "error ADIT-2101",
        "data",
    );
}

#[test]
fn a_port_in_use_is_told_with_the_door() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ended = world.run(&format!(
        "server --data edge --http {address} --link 127.0.0.1:0 --api off"
    ));
    refused(
        &ended,
        1,
        "error ADIT-2001: the HTTP door cannot listen",
        &format!("sport = :{}", address.port()),
    );
}

/// That door has no option of its own.
#[test]
fn a_port_in_use_for_quic_is_told_with_the_key() {
    let world = World::new();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let ended = world.run(&format!(
        "server --data edge --http 127.0.0.1:0 --link {address} --api off"
    ));
    refused(
        &ended,
        1,
        "error ADIT-2001: the QUIC door cannot listen",
        "quic = \"127.0.0.1:",
    );
}

#[test]
fn a_secret_that_people_made_is_refused_by_name() {
    let world = World::new();
    world.file("secret", "correct horse battery staple again and again\n");
    let ended = world.run_with(
        "server --data edge",
        ("ADIT_ADMISSION_SECRET", "file:secret"),
    );
    refused(
        &ended,
        2,
        "environment variable ADIT_ADMISSION_SECRET: error ADIT-1111",
        "openssl rand -hex 32",
    );
    assert!(!ended.err.contains("horse"), "{}", ended.err);
}
