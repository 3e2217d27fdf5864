//! Warnings and hints: what is told beside success, and under which name.

use std::fs::{Permissions, set_permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::lab::Lab;

const SECRET: &str = "0f3c9a7b55e14d2f8a6b7c1d9e0f2a4b";

#[test]
fn a_secret_that_everybody_can_read_is_warned_of() {
    let lab = Lab::new();
    lab.file("secret", SECRET);
    let mode = |bits| set_permissions(lab.path("secret"), Permissions::from_mode(bits)).unwrap();
    mode(0o644);
    let edge = lab.edge("[admission]\nsecret = \"file:secret\"");
    let told = edge.running.logged("every user of this machine can read");
    assert!(
        told.contains("WARN") && told.contains("chmod 600"),
        "{told}"
    );
    let check = ["config", "check", "server.toml"];
    let said = lab.run(&check);
    assert!(said.err.contains("warning: every user"), "{said:?}");
    mode(0o640);
    let said = lab.run(&check);
    assert!(said.code == 0 && said.err.is_empty(), "{said:?}");

    lab.file("auth", "ann:open sesame");
    set_permissions(lab.path("auth"), Permissions::from_mode(0o644)).unwrap();
    lab.join(&edge, "agent");
    let login = ["9", "--name", "app", "--auth", "file:auth"];
    let agent = lab.agent_with("agent", &login, &[]);
    agent.live("app");
    agent.logged("every user of this machine can read the secret in auth");
}

#[test]
fn a_list_of_keys_that_waits_is_a_warning() {
    let lab = Lab::new();
    let key = "ed25519:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE";
    let edge = lab.edge(&format!(
        "[admission]\nkeys = \"enrolled\"\nallowed_keys = [\"{key}\"]"
    ));
    let told = edge
        .running
        .logged("`allowed_keys` is set and not looked at");
    assert!(told.contains("WARN"), "{told}");
    let said = lab.run(&["config", "check", "server.toml"]);
    assert!(
        said.code == 0 && said.err.contains("warning: `allowed_keys`"),
        "{said:?}"
    );
}

#[test]
fn a_variable_is_told_under_the_name_that_was_set() {
    let lab = Lab::new();
    let said = lab.run_with(&["http", "9"], &[("ADIT_EDGE", "hello")]);
    let begin = "environment variable ADIT_EDGE: error ADIT-1201";
    assert!(said.code == 2 && said.err.contains(begin), "{said:?}");
    let said = lab.run_with(&["http", "9"], &[("ADIT_AGENT_EDGE", "hello")]);
    assert!(said.err.contains("variable ADIT_AGENT_EDGE: "), "{said:?}");
    let said = lab.run_with(&["http", "9"], &[("ADIT_PIN", "0")]);
    assert!(
        said.err.contains("variable ADIT_PIN: error ADIT-1204"),
        "{said:?}"
    );
}

#[test]
fn a_variable_that_sets_nothing_is_warned_of() {
    let lab = Lab::new();
    let doors = ["127.0.0.1:0"; 3].map(str::to_owned);
    let edge = lab.edge_with(&doors, "", &[("ADIT_SERVER_DOMIAN", "x.test")]);
    let told = edge.running.logged("ADIT_SERVER_DOMIAN");
    assert!(told.contains("sets nothing"), "{told}");
}

#[test]
fn scripts_are_told_how_to_get_join_string_and_pin() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let told = edge.running.logged("join string: ");
    for part in [
        "server --print-join --config ",
        "server --print-pin --config ",
        "visitors=\"this machine only\"",
        "agents=\"this machine only\"",
        "asked of agents not seen before",
    ] {
        assert!(told.contains(part), "{part} {told}");
    }
    assert!(!edge.running.log().contains(&edge.join(&lab)));
}

#[test]
fn a_join_string_of_a_folder_without_an_edge_says_so() {
    let lab = Lab::new();
    let print = ["server", "--print-join", "--data", "typo"];
    let first = lab.run(&print);
    assert!(
        first.code == 0 && first.out.starts_with("adit1"),
        "{first:?}"
    );
    assert!(first.err.contains("no edge has used typo yet"), "{first:?}");
    let second = lab.run(&print);
    assert!(
        second.err.is_empty() && second.out == first.out,
        "{second:?}"
    );
    let free = [&print[..], &["--link", "127.0.0.1:0"]].concat();
    lab.run(&free)
        .refused(1, "ADIT-2201", &["port 0 is chosen at its start"]);
}

#[test]
fn a_door_that_is_taken_is_told_with_the_option_that_moves_it() {
    let lab = Lab::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    // The server's API door, too, is nobody else's.
    let api: &[&str] = &["--api", "127.0.0.1:0"];
    for (command, elsewhere, more) in [("demo", false, &[][..]), ("server", true, api)] {
        let door = address.to_string();
        let words = [command, "--link", &door, "--http", "127.0.0.1:0"];
        let said = lab.run(&[&words, more].concat());
        said.refused(1, "ADIT-2001", &["the link door"]);
        let free = format!("--link 127.0.0.1:{}", address.port() + 1);
        assert!(said.err.contains(&free), "{said:?}");
        assert_eq!(said.err.contains("[doors]"), elsewhere, "{said:?}");
    }
}
