//! Agents come, share names, vanish and come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_agent::AgentEvent;
use adit_model::Code;
use adit_testkit::between::Between;
use adit_testkit::curl;
use adit_testkit::python::Origin;
use adit_testkit::raw::{Socket, origin};
use adit_testkit::wait::{DEADLINE, until, until_true};
use adit_testkit::world::{AgentPlan, World, tunnel};

fn answers(world: &World, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let reply = curl::get(world.http(), "http://app.test/name");
        assert_eq!(reply.status, 200, "{reply:?}");
        *counts.entry(reply.body).or_default() += 1;
    }
    counts
}

#[test]
fn agents_behind_one_name_take_turns_and_replace_each_other() {
    let world = World::new();
    let origins = ["one", "two", "three"].map(|name| Origin::start("echo", &[name]));
    let mut agents: Vec<_> = origins
        .iter()
        .map(|o| world.agent("app", o.address))
        .collect();
    let counts = answers(&world, 30);
    assert_eq!(
        counts.values().copied().collect::<Vec<_>>(),
        [10, 10, 10],
        "{counts:?}"
    );
    agents.pop().unwrap().stop().unwrap();
    let counts = answers(&world, 20);
    assert_eq!(counts.len(), 2, "{counts:?}");
    agents.pop().unwrap().stop().unwrap();
    assert_eq!(answers(&world, 5), BTreeMap::from([("one".into(), 5)]));
}

#[test]
fn an_exclusive_name_has_one_agent() {
    one_agent_alone(&World::new(), true);
    let route = "[[route]]\nhost = \"www.test\"\nagents = \"app\"\nexclusive = true\n";
    one_agent_alone(&World::with(route), false);
}

/// As after kill -9 where the edge has not noticed yet.
#[test]
fn a_newer_process_of_the_agent_takes_an_exclusive_name() {
    let (world, origin) = (World::new(), Origin::start("echo", &["one"]));
    let mut plan = AgentPlan::new(&world, "app", origin.address);
    plan.settings.tunnels[0].exclusive = true;
    let data = plan.settings.data.clone();
    let older = world.start_agent(plan);
    older.wait_live("app");
    let mut plan = AgentPlan::new(&world, "app", origin.address);
    plan.settings.tunnels[0].exclusive = true;
    plan.settings.data = data;
    let newer = world.start_agent(plan);
    newer.wait_live("app");
    let ended = older.ended().unwrap_err();
    assert_eq!(ended.code(), Code::SUPERSEDED, "{ended}");
    assert_eq!(answers(&world, 3).len(), 1);
}

#[test]
fn a_process_that_lost_one_name_is_told_and_keeps_the_others() {
    let (world, origin) = (World::new(), Origin::start("echo", &["one"]));
    let target = origin.address.to_string();
    let mut plan = AgentPlan::new(&world, "app", origin.address);
    plan.settings.tunnels[0].exclusive = true;
    let mut newer = AgentPlan::new(&world, "app", origin.address);
    newer.settings.tunnels[0].exclusive = true;
    newer.settings.data = plan.settings.data.clone();
    plan.settings.tunnels.push(tunnel("other", &target));
    let older = world.start_agent(plan);
    older.wait_live("app");
    older.wait_live("other");
    let newer = world.start_agent(newer);
    newer.wait_live("app");
    let lost = older.wait("the name is lost", |event| match event {
        AgentEvent::TunnelTrouble { tunnel, code, .. } => Some((tunnel.to_string(), *code)),
        _ => None,
    });
    assert_eq!(lost, ("app".to_owned(), Code::SUPERSEDED.number));
    assert_eq!(curl::get(world.http(), "http://other.test/").status, 200);
    assert_eq!(answers(&world, 3).len(), 1);
    older.stop().unwrap();
    assert_eq!(answers(&world, 3).len(), 1);
}

fn one_agent_alone(world: &World, asked: bool) {
    let origin = Origin::start("echo", &["first"]);
    let mut plan = AgentPlan::new(world, "app", origin.address);
    plan.settings.tunnels[0].exclusive = asked;
    let first = world.start_agent(plan);
    first.wait_live("app");
    let second = world.start_agent(AgentPlan::new(world, "app", origin.address));
    second.wait("a refusal", |event| match event {
        AgentEvent::TunnelRefused { tunnel, .. } => Some(tunnel.to_string()),
        _ => None,
    });
    assert_eq!(answers(world, 5).len(), 1);
}

#[test]
fn a_cut_link_comes_back_under_its_name() {
    let world = World::new();
    let origin = Origin::start("echo", &["one"]);
    let between = Between::start(world.link());
    let agent = world
        .start_agent(AgentPlan::new(&world, "app", origin.address).by(&world, between.address));
    let url = agent.wait_live("app");
    for _ in 0..3 {
        let told = agent.events().len();
        between.cut();
        assert_eq!(agent.wait_live_from(told, "app"), url);
        assert_eq!(answers(&world, 3).len(), 1);
    }
}

#[test]
fn service_is_back_within_two_seconds_of_the_edges_return() {
    let mut world = World::new();
    let origin = Origin::start("echo", &["one"]);
    let agent = world.agent("app", origin.address);
    let told = agent.events().len();
    world.stop_edge();
    agent.wait_from(told, "its link is lost", |event| match event {
        AgentEvent::Lost { .. } => Some(()),
        _ => None,
    });
    world.start_edge();
    let back = Instant::now();
    agent.wait_live_from(told, "app");
    assert_eq!(answers(&world, 1).len(), 1);
    let took = back.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// Every socket stays open and no byte passes: only the heartbeats tell.
#[test]
fn a_half_open_link_is_noticed_by_both_sides() {
    let world = World::with("[link]\nheartbeat_seconds = 1\ndead_seconds = 3\n");
    let origin = Origin::start("echo", &["one"]);
    let between = Between::start(world.link());
    let plan = AgentPlan::new(&world, "app", origin.address).by(&world, between.address);
    let agent = world.start_agent(plan);
    agent.wait_live("app");
    let told = agent.events().len();
    between.freeze(true);
    agent.wait_from(told, "its link is lost", |event| match event {
        AgentEvent::Lost { why, .. } => Some(why.clone()),
        _ => None,
    });
    until_true("the edge counts it as dead", || {
        world.metric("adit_links_dead_total") >= 1.0
    });
    between.freeze(false);
    between.cut();
    agent.wait_live_from(told, "app");
    assert_eq!(answers(&world, 3).len(), 1);
}

/// Whatever stands between acknowledges bytes, so that no socket ever ends by
/// itself.
#[test]
fn a_link_that_fell_silent_takes_its_streams_with_it() {
    let world = World::with("[link]\nheartbeat_seconds = 1\ndead_seconds = 2\n");
    let (ended, ends) = std::sync::mpsc::channel();
    let endless = origin(move |mut socket| {
        socket.head();
        socket.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        ended.send(socket.rest()).unwrap();
    });
    let between = Between::start(world.link());
    let plan = AgentPlan::new(&world, "app", endless).by(&world, between.address);
    let agent = world.start_agent(plan);
    agent.wait_live("app");
    let request = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let mut visitor = Socket::send_to(world.http(), request);
    visitor.until("hello\r\n");
    between.forget();
    let (rest, _) = visitor.rest();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it was cut, not completed");
    let (_, in_order) = ends.recv_timeout(DEADLINE).unwrap();
    assert!(!in_order, "the service must not take it for an end");
}

#[test]
fn a_vanished_agent_leaves_its_visitors_to_the_others() {
    let world = World::with("[link]\nheartbeat_seconds = 1\ndead_seconds = 3\n");
    let origins = ["one", "two"].map(|name| Origin::start("echo", &[name]));
    let between = Between::start(world.link());
    let _one = world.agent("app", origins[0].address);
    let two = world
        .start_agent(AgentPlan::new(&world, "app", origins[1].address).by(&world, between.address));
    two.wait_live("app");
    assert_eq!(answers(&world, 10).len(), 2);
    between.close(true);
    between.cut();
    // Out of the pool before the next pick: not one of these fails.
    until("its link is gone", || {
        (world.metric("adit_links_open") < 2.0).then_some(())
    });
    assert_eq!(answers(&world, 10), BTreeMap::from([("one".into(), 10)]));
}
