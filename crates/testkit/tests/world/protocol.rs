//! Another implementation of the agent, written in Python from the protocol's
//! page alone, against a running edge.

use adit_testkit::curl;
use adit_testkit::process::{Ended, Process};
use adit_testkit::python::script;
use adit_testkit::world::World;

fn peer(world: &World, tunnel: &str, pin: &str) -> Process {
    let mut command = script("tests/protocol/peer.py");
    command
        .args(["serve", "--tunnel", tunnel, "--body", "said in Python"])
        .env("ADIT_JOIN", world.facts().join.expose())
        .env("ADIT_PIN", pin);
    Process::spawn(command)
}

fn pin(world: &World) -> String {
    world
        .edge()
        .pin()
        .map_or_else(String::new, |pin| pin.expose())
}

fn code(ended: &Ended) -> Option<i32> {
    ended.status.code()
}

#[test]
fn it_shakes_hands_and_serves_a_request() {
    let world = World::new();
    for round in 0..2 {
        // A new identity and a new PIN each time, under a name of its own.
        let name = format!("python-{round}");
        let process = peer(&world, &name, &pin(&world));
        let url = process.line("its URL", |line| {
            line.strip_prefix("tunnel ").map(str::to_owned)
        });
        assert!(url.starts_with(&format!("http://{name}.test")), "{url}");
        let reply = curl::get(world.http(), &format!("http://{name}.test/hello"));
        assert_eq!((reply.status, reply.body.as_str()), (200, "said in Python"));
        let ended = process.ended();
        assert_eq!(code(&ended), Some(0), "{}", ended.text());
        assert!(ended.lines.contains(&"GET /hello HTTP/1.1".into()));
    }
}

#[test]
fn it_is_refused_with_a_wrong_pin() {
    let world = World::new();
    let right = pin(&world);
    let wrong = if right == "222222" {
        "333333"
    } else {
        "222222"
    };
    let ended = peer(&world, "python", wrong).ended();
    assert_eq!(code(&ended), Some(3), "{}", ended.text());
    let reply = curl::get(world.http(), "http://python.test/");
    assert_eq!(reply.status, 404);
}
