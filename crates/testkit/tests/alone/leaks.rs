//! What came is gone when it has left: tasks, descriptors, memory.

use adit_testkit::counters::{Held, held};
use adit_testkit::curl;
use adit_testkit::nginx::Nginx;
use adit_testkit::raw::Socket;
use adit_testkit::wait::{until, until_true};
use adit_testkit::world::World;

use crate::alone;

/// Memory that an allocator keeps for the next time, in KiB.
const KEPT: u64 = 16 * 1024;

fn none_left(world: &World) -> (usize, Held) {
    until("all links and streams have ended", || {
        (world.metric("adit_links_open") == 0.0).then(|| (world.edge().tasks(), held("self")))
    })
}

#[test]
fn nothing_is_left_of_agents_and_visitors_that_went() {
    let _alone = alone();
    let (world, nginx) = (World::new(), Nginx::files());
    nginx.put("page.txt", "page");
    let round = || {
        let agents: Vec<_> = (0..5).map(|_| world.agent("app", nginx.address)).collect();
        for _ in 0..25 {
            assert_eq!(
                curl::get(world.http(), "http://app.test/page.txt").body,
                "page"
            );
        }
        for agent in agents {
            agent.stop().unwrap();
        }
        none_left(&world)
    };
    let (tasks, before) = round();
    for _ in 0..4 {
        round();
    }
    until_true("tasks and descriptors are as many as before", || {
        let now = held("self");
        world.edge().tasks() <= tasks && now.descriptors <= before.descriptors
    });
    let grown = held("self").memory.saturating_sub(before.memory);
    assert!(grown < KEPT, "{grown} KiB more after four more rounds");
}

#[test]
fn what_nobody_reads_stays_in_the_origin() {
    let _alone = alone();
    let (world, nginx) = (World::new(), Nginx::files());
    nginx.put("large.bin", vec![7; 64 << 20]);
    nginx.put("small.txt", "small");
    let _agent = world.agent("app", nginx.address);
    let before = held("self").memory;
    let slow: Vec<Socket> = (0..8)
        .map(|_| {
            Socket::send_to(
                world.http(),
                "GET /large.bin HTTP/1.1\r\nHost: app.test\r\n\r\n",
            )
        })
        .collect();
    // Nobody else is slowed meanwhile.
    for _ in 0..100 {
        assert_eq!(
            curl::get(world.http(), "http://app.test/small.txt").body,
            "small"
        );
    }
    let grown = held("self").memory.saturating_sub(before);
    assert!(
        grown < 2 * KEPT,
        "{grown} KiB for 512 MiB that nobody reads"
    );
    drop(slow);
}
