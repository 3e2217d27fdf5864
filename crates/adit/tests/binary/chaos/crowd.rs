//! Ten thousand strangers at the link door.

use std::process::Command;
use std::time::{Duration, Instant};

use adit_testkit::counters::held;
use adit_testkit::process::Process;
use adit_testkit::python::script;

use super::load::{ask, connect};
use super::world::World;

const STRANGERS: &str = "10000";
/// A request beside them takes less.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Each is gone after this many seconds.
const PATIENCE: f64 = 15.0;

/// Silent connections of another process.
pub(super) struct Crowd(Process);

impl Crowd {
    /// They come, and nobody else notices.
    pub(super) fn comes(world: &World) -> Self {
        let (door, link) = (world.edge().http, world.edge().link);
        let mut strangers: Command = script("crates/testkit/python/silent.py");
        strangers.args([&link.to_string(), STRANGERS]);
        let strangers = Process::spawn(strangers);
        let mut slowest = Duration::ZERO;
        let mut request = |number: usize| {
            let begun = Instant::now();
            let mut visitor = connect(door).unwrap();
            let token = format!("beside-{number}");
            assert!(ask(&mut visitor, "app", &token, (Vec::new(), 100)).is_ok());
            slowest = slowest.max(begun.elapsed());
        };
        let mut count = 0;
        strangers.line("that all are open", |line| {
            count += 1;
            request(count);
            line.starts_with("open ").then_some(())
        });
        for number in 0..100 {
            request(count + number);
        }
        println!("the slowest request beside a crowd took {slowest:?}");
        assert!(slowest < AT_ONCE, "{slowest:?}");
        Self(strangers)
    }

    /// All of them were closed in time, without a byte.
    pub(super) fn goes(self, world: &World) {
        let ended = self.0.ended();
        assert!(ended.status.success(), "{}", ended.text());
        let said = ended.text();
        let longest: f64 = said.rsplit(' ').next().unwrap().trim().parse().unwrap();
        println!("the last of the crowd was closed after {longest} s");
        assert!(longest <= PATIENCE, "{longest} s until the last was closed");
        let held = held(&world.edge().running.process.id().to_string());
        assert!(held.descriptors < 200, "{held:?}");
    }
}
