//! The link against strangers, listeners and whoever stands in the middle.

use std::time::{Duration, Instant};

use adit_agent::{AgentEvent, PinFrom};
use adit_model::Pin;
use adit_testkit::between::{Between, Way};
use adit_testkit::python::Origin;
use adit_testkit::raw::Socket;
use adit_testkit::world::{AgentPlan, World};
use adit_testkit::{curl, wait};

/// Longest time that an edge keeps a stranger waiting.
const SILENCE: Duration = Duration::from_secs(15);

#[test]
fn strangers_get_not_one_byte() {
    let world = World::new();
    let tries: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        vec![0; 128],
        vec![0xff; 4096],
    ];
    let begun = Instant::now();
    let strangers: Vec<_> = tries
        .into_iter()
        .map(|bytes| {
            let socket = Socket::send_to(world.link(), &bytes);
            std::thread::spawn(move || {
                let mut socket = socket;
                socket.rest()
            })
        })
        .collect();
    for stranger in strangers {
        let (heard, _) = stranger.join().unwrap();
        assert_eq!(heard, b"");
    }
    assert!(begun.elapsed() < SILENCE, "{:?}", begun.elapsed());
}

#[test]
fn what_was_recorded_is_of_no_use() {
    let world = World::new();
    let origin = Origin::start("echo", &["one"]);
    let between = Between::start(world.link());
    let plan = AgentPlan::new(&world, "app", origin.address).by(&world, between.address);
    let agent = world.start_agent(plan);
    agent.wait_live("app");
    assert_eq!(curl::get(world.http(), "http://app.test/name").body, "one");
    let recorded = between.passed();
    assert!(
        recorded.len() >= 2,
        "a link and a channel: {}",
        recorded.len()
    );
    let replayed: Vec<_> = recorded
        .into_iter()
        .map(|connection| {
            let link = world.link();
            std::thread::spawn(move || {
                // The edge may close while we are still sending.
                let mut socket = Socket::dial(link);
                let _ = std::io::Write::write_all(&mut socket.stream(), &connection.sent);
                socket.rest().0
            })
        })
        .collect();
    for answer in replayed {
        assert_eq!(answer.join().unwrap(), b"");
    }
    let counted = |cause: &str| {
        world.metric(&format!(
            "adit_link_proof_failures_total{{cause=\"{cause}\"}}"
        ))
    };
    assert!(counted("replayed") >= 2.0, "the link and a channel");
    let seen = origin.process.lines();
    assert_eq!(seen.iter().filter(|l| l.starts_with("request")).count(), 1);
}

/// Bytes that open a channel (`docs/protocol.md`).
const HEADER: usize = 128;

#[test]
fn a_request_altered_on_the_link_never_arrives() {
    let world = World::new();
    let origin = Origin::start("echo", &["one"]);
    let between = Between::start(world.link());
    let plan = AgentPlan::new(&world, "app", origin.address).by(&world, between.address);
    let agent = world.start_agent(plan);
    agent.wait_live("app");
    for way in [Way::Out, Way::In] {
        let refused = world.metric("adit_link_frames_refused_total");
        let post = ["-d", "x", "http://app.test/altered"];
        assert_eq!(curl::get(world.http(), "http://app.test/name").status, 200);
        let seen = arrived(&origin);
        // The first connection is the link itself, the others are channels;
        // what opens a channel is no longer than a header.
        between.flip(way, 1, HEADER);
        let reply = curl::request(world.http(), &post);
        wait::until_true("a byte was changed", || between.flipped());
        // It is sent again only where it is certain that nothing had arrived.
        let arrived = arrived(&origin) - seen;
        match reply.status {
            200 => assert_eq!(arrived, 1, "it arrived once and whole"),
            status => assert_eq!(status, 502, "{reply:?}"),
        }
        if way == Way::In {
            // Its answer was altered, or what says that it was taken: then it
            // may have been on its way still.
            assert_eq!(reply.status, 502, "{reply:?}");
            assert!(arrived <= 1, "{arrived}");
        }
        wait::until_true("the edge has counted it", || {
            world.metric("adit_link_frames_refused_total") > refused
        });
        wait::until_true("the next request passes", || {
            curl::get(world.http(), "http://app.test/name").status == 200
        });
    }
}

fn arrived(origin: &Origin) -> usize {
    let lines = origin.process.lines();
    lines
        .iter()
        .filter(|l| *l == "request POST /altered")
        .count()
}

fn refused(agent: &adit_testkit::world::Agent) {
    agent.wait("a refusal", |event| match event {
        AgentEvent::Refused(refusal) => Some(refusal.clone()),
        _ => None,
    });
}

#[test]
fn the_pin_is_asked_of_whom_policy_says() {
    let origin = Origin::start("echo", &["one"]);
    for (policy, needs) in [("off", false), ("enrol", true), ("every-start", true)] {
        let world = World::with(&format!("[admission]\npin = \"{policy}\"\n"));
        let mut plan = AgentPlan::new(&world, "app", origin.address);
        plan.settings.pin = PinFrom::Nowhere;
        let data = plan.settings.data.clone();
        let agent = world.start_agent(plan);
        if needs {
            drop(agent.ended());
            let mut plan = AgentPlan::new(&world, "app", origin.address);
            plan.settings.data = data;
            let agent = world.start_agent(plan);
            agent.wait_live("app");
        } else {
            agent.wait_live("app");
        }
    }
}

#[test]
fn a_wrong_pin_is_refused() {
    let world = World::new();
    let origin = Origin::start("echo", &["one"]);
    let right = world.edge().pin().unwrap();
    let wrong = ["222222", "333333"].map(|text| Pin::parse(text).unwrap());
    let wrong = wrong.into_iter().find(|pin| *pin != right).unwrap();
    let mut plan = AgentPlan::new(&world, "app", origin.address);
    plan.settings.pin = PinFrom::Fixed(wrong);
    let agent = world.start_agent(plan);
    refused(&agent);
    assert_eq!(world.metric("adit_links_open"), 0.0);
}
