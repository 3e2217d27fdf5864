//! Every fault at once, in an order and at moments that a seed chooses, on real
//! processes and sockets, while visitors ask without a pause.
//!
//! `ADIT_CHAOS_SEED` repeats the order of a run; what the system adds to it no
//! seed repeats. The 60 s step of a clock is a fault of the simulator
//! (`crates/sim/tests/chaos.rs`), where clocks can be set.
//!
//! Two names are published: `app`, whose agent's link goes through a relay that
//! can be spoilt, and `calm`, whose agent dials the edge itself and must not
//! notice what happens to the other. Between faults, and during those that
//! concern somebody else, not one request may fail; during the others a visitor
//! gets what it asked for, a beginning of it, or a refusal.

mod bytes;
mod crowd;
mod faults;
mod load;
mod rest;
mod world;

use std::hash::{BuildHasher, RandomState};

use crowd::Crowd;
use faults::Fault;
use world::World;

fn seed() -> u64 {
    let given = std::env::var("ADIT_CHAOS_SEED").ok();
    given.map_or_else(
        || RandomState::new().hash_one("chaos"),
        |text| text.parse().unwrap(),
    )
}

/// Requests between two faults, at least.
const PAUSE: u64 = 20;

#[test]
fn service_survives_chaos_and_nothing_leaks() {
    let seed = seed();
    println!("ADIT_CHAOS_SEED={seed} repeats the order");
    let mut world = World::start(seed);
    // The agent lives through all of it, then the edge does.
    let before = world.agent_at_rest();
    round(&mut world, Fault::KillEdge);
    world.agent_at_rest().is_no_more_than(&before);

    let before = world.edge_at_rest();
    let crowd = Crowd::comes(&world);
    round(&mut world, Fault::KillAgent);
    crowd.goes(&world);
    world.edge_at_rest().is_no_more_than(&before);
    world.end();
}

/// Everything that happens to a link, and one side dies twice.
fn round(world: &mut World, death: Fault) {
    let mut faults = Fault::OF_A_LINK.to_vec();
    faults.extend([death, death]);
    world.shuffle(&mut faults);
    for fault in faults {
        let requests = PAUSE + world.below(60);
        world.load.more("app", requests);
        world.suffer(fault);
    }
    world.load.more("app", PAUSE);
}
