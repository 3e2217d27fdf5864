//! Links under every fault, from seeds.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a broken run ends the test and prints its seed"
)]

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use adit_sim::{Fault, Mangle, Outcome, Side, World};

const SECOND: Duration = Duration::from_secs(1);

/// Runs `story` for each seed; the seed of a failure is printed.
fn for_seeds(count: u64, story: impl Fn(u64)) {
    let origin: u64 = std::env::var("ADIT_SIM_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    for seed in origin..origin + count {
        let told = std::panic::catch_unwind(AssertUnwindSafe(|| story(seed)));
        if let Err(cause) = told {
            println!("seed {seed} fails: ADIT_SIM_SEED={seed} repeats it");
            std::panic::resume_unwind(cause);
        }
    }
}

fn settled(seed: u64, agents: u8, exclusive: bool) -> World {
    let mut world = World::new(seed, agents, exclusive, Instant::now());
    let time = world.pass_until(10 * SECOND, World::is_whole);
    assert!(time.unwrap() < 4 * SECOND);
    // All messages have arrived.
    world.pass(5 * SECOND);
    world
}

#[test]
fn a_quiet_world_stays_as_it_is() {
    for_seeds(10, |seed| {
        let mut world = settled(seed, 3, false);
        world.pass(600 * SECOND);
        assert!(world.is_whole());
        assert_eq!(world.edge.links_ever, 3);
        assert_eq!(world.edge.holders(&world.names[0]).len(), 3);
        for agent in &world.agents {
            assert_eq!((agent.lost, agent.open_tunnels()), (0, 2));
            // Keys changed every 90 s on the way.
            assert!(agent.epoch().unwrap() >= 6);
        }
        for name in 0..world.names.len() {
            assert!(matches!(world.visit_now(name), Outcome::Answered(_)));
        }
    });
}

#[test]
fn chaos_ends_in_order() {
    for_seeds(300, |seed| {
        let mut world = settled(seed, 3, seed % 3 == 0);
        let mut visitors = Vec::new();
        for _ in 0..25 {
            let fault = world.random_fault();
            world.fault(fault);
            for _ in 0..world.pick(4) {
                let name = world.pick(10) as usize;
                visitors.push(world.visit(name));
            }
            let pause = world.pick(12_000);
            world.pass(Duration::from_millis(pause));
        }
        world.net.stop_mangling();
        // The last half-open link dies, the last grace time ends.
        world.pass(95 * SECOND);
        world.ask_again();
        world.pass(5 * SECOND);
        for visitor in visitors {
            assert!(
                world.outcome(visitor).is_some(),
                "a visitor was told nothing"
            );
        }
        assert!(world.is_whole());
        assert_eq!(world.edge.links(), world.agents.len());
        for name in 0..world.names.len() {
            assert!(matches!(world.visit_now(name), Outcome::Answered(_)));
        }
    });
}

#[test]
fn a_half_open_link_is_found_dead_within_20_seconds_and_comes_back() {
    for_seeds(60, |seed| {
        let mut world = settled(seed, 1, seed % 2 == 0);
        // A lost piece may cost two seconds more.
        world.net.loss = 0;
        let late = world.pick(15_000);
        world.pass(Duration::from_millis(late));
        let (to_edge, to_agent) = [(true, false), (false, true), (true, true)][seed as usize % 3];
        world.fault(Fault::Swallow(0, 0, to_edge, to_agent));
        let lost = |world: &World| world.agents[0].lost == 1;
        let time = world.pass_until(60 * SECOND, lost).unwrap();
        assert!(time <= 20 * SECOND, "{time:?}");
        // The names come back at once, exclusive or not, though the edge may
        // not know yet that the old link is dead.
        let back = |world: &World| world.is_whole() && world.agents[0].open_tunnels() == 2;
        let time = world.pass_until(60 * SECOND, back).unwrap();
        assert!(time <= 2 * SECOND, "{time:?}");
        assert!(matches!(world.visit_now(1), Outcome::Answered(_)));
    });
}

#[test]
fn a_cut_link_has_its_names_back_within_two_seconds() {
    for_seeds(60, |seed| {
        let mut world = settled(seed, 2, false);
        world.net.loss = 0;
        world.fault(Fault::Cut(0, 0));
        let lost = |world: &World| world.agents[0].lost == 1;
        world.pass_until(SECOND, lost).unwrap();
        let back = |world: &World| world.is_whole() && world.agents[0].open_tunnels() == 2;
        assert!(world.pass_until(10 * SECOND, back).unwrap() <= 2 * SECOND);
    });
}

#[test]
fn a_step_of_the_edges_clock_changes_nothing() {
    for_seeds(40, |seed| {
        let mut world = settled(seed, 2, false);
        let step = if seed % 2 == 0 { 60 } else { -60 };
        world.fault(Fault::EdgeClock(step));
        world.pass(Duration::from_secs(20));
        // Links live on, new ones come in, replays stay out.
        assert_eq!(world.agents[0].lost, 0);
        world.fault(Fault::Cut(0, 0));
        world.pass(5 * SECOND);
        for page in 0..10 {
            world.fault(Fault::Replay(page));
        }
        world.pass(20 * SECOND);
        assert!(world.is_whole());
        world.fault(Fault::EdgeClock(0));
        world.pass(60 * SECOND);
        assert!(world.is_whole());
        assert_eq!(world.agents[1].lost, 0);
    });
}

#[test]
fn a_step_of_an_agents_clock_leaves_its_live_link_alone() {
    for_seeds(40, |seed| {
        let mut world = settled(seed, 2, false);
        let step = if seed % 2 == 0 { 60 } else { -60 };
        // There, and back.
        for step in [step, 0] {
            world.agents[0].clock.step = step;
            // More visitors than idle channels wait: some are dialled now.
            let visitors: Vec<u64> = (0..40).map(|_| world.visit(1)).collect();
            world.pass(30 * SECOND);
            for visitor in visitors {
                assert!(matches!(world.outcome(visitor), Some(Outcome::Answered(_))));
            }
            assert_eq!((world.agents[0].lost, world.agents[1].lost), (0, 0));
            assert!(world.is_whole());
        }
    });
}

#[test]
fn a_wrong_clock_that_is_set_right_admits_agents_within_two_minutes() {
    for_seeds(10, |seed| {
        let mut world = World::new(seed, 1, false, Instant::now());
        world.agents[0].clock.step = 60;
        world.pass(60 * SECOND);
        assert_eq!(world.edge.links_ever, 0);
        // It was the edge's clock that was wrong: now both agree.
        world.fault(Fault::EdgeClock(60));
        let live = |world: &World| world.agents[0].is_live();
        let time = world.pass_until(600 * SECOND, live).unwrap();
        assert!(time <= 135 * SECOND, "{time:?}");
        world.pass(300 * SECOND);
        assert_eq!(world.agents[0].lost, 0);
    });
}

#[test]
fn a_killed_edge_comes_back_with_every_name_and_no_replay() {
    for_seeds(40, |seed| {
        let mut world = settled(seed, 3, false);
        world.fault(Fault::KillEdge);
        for page in 0..20 {
            world.fault(Fault::Replay(page));
        }
        world.pass(SECOND);
        let time = world.pass_until(10 * SECOND, World::is_whole).unwrap();
        assert!(time <= 2 * SECOND, "{time:?}");
        world.pass(30 * SECOND);
        assert_eq!(world.edge.links(), 3);
    });
}

#[test]
fn altered_bytes_end_their_connection_and_nothing_else() {
    for_seeds(80, |seed| {
        let mut world = settled(seed, 2, false);
        let all = [Mangle::Flip, Mangle::Repeat, Mangle::Remove, Mangle::Swap];
        let how = all[seed as usize % 4];
        let to = if seed % 8 < 4 {
            Side::Edge
        } else {
            Side::Agent
        };
        // A data channel of the first agent, busy with visitors.
        for channel in 1..3 {
            world.fault(Fault::Mangle(0, channel, to, how));
        }
        let visitors: Vec<u64> = (0..8).map(|_| world.visit(1)).collect();
        world.pass(60 * SECOND);
        assert!(visitors.iter().all(|v| world.outcome(*v).is_some()));
        assert!(world.net.mangled > 0 || how == Mangle::Swap);
        world.net.stop_mangling();
        // A channel that was touched while idle is found out by its ping.
        world.pass(65 * SECOND);
        // Both links, and the other agent's channels, noticed nothing.
        assert_eq!((world.agents[0].lost, world.agents[1].lost), (0, 0));
        assert!(matches!(world.visit_now(1), Outcome::Answered(_)));
        // On the control channel the link ends and comes back.
        world.fault(Fault::Mangle(0, 0, to, how));
        world.pass(120 * SECOND);
        assert!(world.is_whole());
        assert_eq!(world.agents[1].lost, 0);
    });
}
