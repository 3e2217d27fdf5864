//! A second implementation of the agent, in Python, against the running edge.

use std::fs;

use adit_testkit::peers::repository;
use adit_testkit::process::{Ended, Process};
use adit_testkit::python::script;

use crate::lab::Lab;

const PEER: &str = "tests/protocol/peer.py";

/// It admits itself by shared secret and PIN, publishes, and answers.
#[test]
fn another_implementation_joins_and_serves_a_request() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let mut command = script(PEER);
    command
        .args(["serve", "--tunnel", "peer", "--body", "from python"])
        .env("ADIT_JOIN", edge.join(&lab))
        .env("ADIT_PIN", edge.pin(&lab));
    let peer = Process::spawn(command);
    edge.running.logged("name=peer");
    let (status, answer) = edge.get("peer.test", "/over/there");
    assert_eq!(
        (status, answer.ends_with("from python")),
        (200, true),
        "{answer}"
    );
    let Ended { status, lines } = peer.ended();
    assert!(status.success(), "{lines:?}");
    assert!(
        lines.iter().any(|line| line == "GET /over/there HTTP/1.1"),
        "{lines:?}"
    );
}

#[test]
fn another_implementation_with_a_wrong_pin_is_refused() {
    let lab = Lab::new();
    let edge = lab.edge("");
    let pin = edge.pin(&lab);
    let mut command = script(PEER);
    command
        .args(["serve", "--tunnel", "peer"])
        .env("ADIT_JOIN", edge.join(&lab))
        .env(
            "ADIT_PIN",
            if pin == "22X3Y4" { "55Z6A7" } else { "22X3Y4" },
        );
    let ended = Process::run(command);
    assert_eq!(ended.status.code(), Some(3), "{}", ended.text());
    let agents = edge.ask(&lab, &["agents", "list", "--json"]).done();
    assert_eq!(agents.trim(), "[]");
    assert_eq!(edge.get("peer.test", "/").0, 404);
}

/// The vectors hold, and not one of them may change.
#[test]
fn a_changed_byte_of_a_vector_is_noticed() {
    let lab = Lab::new();
    let copy = lab.path("vectors");
    fs::create_dir(&copy).unwrap();
    for entry in fs::read_dir(repository("docs/vectors")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let check = || {
        let mut command = script(PEER);
        command.arg("vectors").arg(&copy);
        Process::run(command)
    };
    let whole = check();
    assert!(whole.status.success(), "{}", whole.text());
    for entry in fs::read_dir(&copy).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        // The last digit of the longest value.
        let longest = text.split('"').max_by_key(|value| value.len()).unwrap();
        let last = longest.chars().next_back().unwrap();
        let other = if last == '0' { '1' } else { '0' };
        let changed = format!("{}{other}", &longest[..longest.len() - 1]);
        fs::write(&path, text.replacen(longest, &changed, 1)).unwrap();
        let ended = check();
        assert!(
            !ended.status.success(),
            "{} changed: {}",
            path.display(),
            ended.text()
        );
        fs::write(&path, text).unwrap();
    }
}
