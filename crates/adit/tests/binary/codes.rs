//! Codes of the edge's own log.

use std::net::TcpStream;

use adit_testkit::wait::until_true;

use crate::lab::{Lab, Running, get};

fn lines(running: &Running, text: &str) -> usize {
    running.log().matches(text).count()
}

#[test]
fn descriptors_that_are_used_up_are_told_once_with_their_code() {
    let lab = Lab::new();
    let doors = ["127.0.0.1:0"; 3].map(str::to_owned);
    // More than there are descriptors for: by itself an edge takes fewer.
    let file = lab.server_file(&doors, "[limits]\nconnections = 1000");
    let few = "ulimit -n 64; exec \"$0\" \"$@\"";
    let edge = lab.start_in(few, &["server", "--config", &file], &[]);
    let http = edge.line("listening http ");
    edge.line("ready");
    let crowd: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(&http).unwrap())
        .collect();
    let told = edge.logged("ADIT-2202");
    assert!(told.contains("WARN") && told.contains("times=1"), "{told}");
    // What the kernel holds back is asked for twenty times a second.
    drop(crowd);
    let door = http.parse().unwrap();
    until_true("the edge serves again", || {
        get(door, "app.test", "/").0 == 404
    });
    assert_eq!(lines(&edge, "ADIT-2202"), 1, "{}", edge.log());
}

#[test]
fn a_service_whose_agents_are_away_is_told_with_its_code() {
    let lab = Lab::new();
    let edge = lab.edge("[admission]\npin = \"off\"");
    let join = edge.join(&lab);
    let agent = lab.agent_with("agent", &["9", "--name", "app"], &[("ADIT_EDGE", &join)]);
    agent.live("app");
    agent.process.kill();
    // Who comes while the link is going is told another cause.
    until_true("nobody is there, and it is told", || {
        edge.get("app.test", "/").0 == 503 && lines(&edge.running, "ADIT-5004") > 0
    });
}
