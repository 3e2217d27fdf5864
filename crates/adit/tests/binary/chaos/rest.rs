//! What a process holds while nobody wants anything of it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Instant;

use adit_testkit::counters::{Held, held};
use adit_testkit::wait::until;

use super::world::World;

/// Memory that an allocator keeps for the next time, in KiB.
const KEPT: u64 = 16 << 10;

/// A process at rest.
pub(super) struct AtRest {
    what: &'static str,
    held: Held,
}

impl AtRest {
    /// That it has not grown.
    pub(super) fn is_no_more_than(&self, before: &Self) {
        println!("{}: {:?}, now {:?}", self.what, before.held, self.held);
        let (now, before) = (self.held, before.held);
        assert!(now.descriptors <= before.descriptors, "{}", self.what);
        assert!(now.threads <= before.threads, "{}", self.what);
        let grown = now.memory.saturating_sub(before.memory);
        assert!(grown < KEPT, "{}: {grown} KiB more", self.what);
    }
}

/// TCP sockets among the descriptors of a process.
fn sockets(process: &str) -> usize {
    let folder = format!("/proc/{process}/fd");
    let open = fs::read_dir(folder).unwrap();
    // One may be closed while we look.
    let targets = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let targets: HashSet<_> = targets.collect();
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap();
    // The tenth column is the number that stands in the descriptor's target.
    let numbers = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(9));
    numbers
        .filter(|number| targets.contains(Path::new(&format!("socket:[{number}]"))))
        .count()
}

impl World {
    /// The agent of `app` while there is no edge and no visitor.
    pub(super) fn agent_at_rest(&mut self) -> AtRest {
        self.load.more("app", 200);
        self.load.pause();
        self.stop_edge();
        let id = self.app().process.id().to_string();
        let held = until("the agent has no socket", || {
            (sockets(&id) == 0).then(|| held(&id))
        });
        let begun = Instant::now();
        self.start_edge();
        self.back(super::world::ALL, begun);
        self.load.resume();
        AtRest {
            what: "the agent",
            held,
        }
    }

    /// The edge while there is no agent and no visitor.
    pub(super) fn edge_at_rest(&mut self) -> AtRest {
        self.load.more("app", 200);
        self.load.pause();
        self.stop_agents();
        let gauges = [
            "adit_connections_open{door=\"http\"}",
            "adit_connections_open{door=\"link\"}",
            "adit_http_requests_active",
            "adit_links_open",
            "adit_tunnels_open",
            "adit_channels_idle",
            "adit_channels_busy",
            "adit_link_unproved_open",
        ];
        let edge = self.edge();
        let id = edge.running.process.id().to_string();
        let held = until("the edge has nobody", || {
            let nobody = gauges.iter().all(|gauge| edge.metric(gauge) == 0.0);
            // Two workers listen at three doors.
            (nobody && sockets(&id) <= 6).then(|| held(&id))
        });
        self.start_app();
        self.start_calm();
        self.load.resume();
        AtRest {
            what: "the edge",
            held,
        }
    }
}
