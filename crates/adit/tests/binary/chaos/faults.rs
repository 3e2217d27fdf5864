//! The faults: each begins, lasts as long as the seed says, ends, and must not
//! be felt two seconds later.

use std::time::{Duration, Instant};

use adit_testkit::counters::held;
use adit_testkit::wait::until_true;

use super::bytes::{body, read};
use super::load::{connect, write};
use super::world::{ALL, APP, World};

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `kill -9` of the edge, which is started again.
    KillEdge,
    /// `kill -9` of an agent, which is started again.
    KillAgent,
    /// Every connection of a link ends at once; new ones pass.
    Cut,
    /// The same, and new ones are turned away for a while.
    Away,
    /// Nothing passes for a moment, and every socket stays open.
    Stall,
    /// The same, until both sides count the link as dead.
    HalfOpen,
    /// Nothing passes any more on connections that are open; new ones pass.
    Forgotten,
    /// A visitor does not read.
    SlowReader,
}

/// Bytes that the slow reader asks for.
const LARGE: usize = 24 << 20;
/// What processes may need for them, in KiB: buffers, and no body.
const BUFFERS: u64 = 8 << 10;

impl Fault {
    /// Those that leave both processes alone.
    pub(super) const OF_A_LINK: [Self; 6] = [
        Self::Cut,
        Self::Away,
        Self::Stall,
        Self::HalfOpen,
        Self::Forgotten,
        Self::SlowReader,
    ];
}

impl World {
    /// Begins a fault, ends it, and waits until nothing is felt of it.
    pub(super) fn suffer(&mut self, fault: Fault) {
        let begun = Instant::now();
        match fault {
            Fault::KillEdge => {
                self.kill_edge();
                self.wait_for_dials();
                self.start_edge();
                self.back(ALL, Instant::now());
                self.load.trouble(ALL, begun);
            }
            Fault::SlowReader => self.slow_reader(),
            of_a_link => {
                let ended = self.spoil(of_a_link);
                self.back(APP, ended);
                self.load.trouble(APP, begun);
            }
        }
        println!("  {fault:?} took {:?} in all", begun.elapsed());
    }

    /// Begins and ends a fault that the agent of `app` alone may feel; when its
    /// cause ended.
    fn spoil(&mut self, fault: Fault) -> Instant {
        match fault {
            Fault::KillAgent => {
                self.kill_app();
                let others = self.below(50);
                self.load.more("calm", others);
                let ended = Instant::now();
                self.start_app();
                return ended;
            }
            Fault::Cut => self.between.cut(),
            Fault::Away => {
                self.between.close(true);
                self.between.cut();
                self.wait_for_dials();
                self.between.close(false);
            }
            Fault::Stall => {
                self.between.freeze(true);
                let others = self.below(50);
                self.load.more("calm", others);
                self.between.freeze(false);
            }
            Fault::HalfOpen => {
                let (lost, dead) = (self.lost(), self.dead());
                self.between.freeze(true);
                until_true("both sides have noticed", || {
                    self.lost() > lost && self.dead() > dead
                });
                self.between.freeze(false);
            }
            _ => {
                let lost = self.lost();
                self.between.forget();
                until_true("the agent has noticed", || self.lost() > lost);
            }
        }
        Instant::now()
    }

    /// How often the agent of `app` lost its link.
    fn lost(&self) -> usize {
        self.app().log().matches("ADIT-3004").count()
    }

    /// How many links the edge has counted as dead.
    fn dead(&self) -> f64 {
        self.edge().metric("adit_links_dead_total")
    }

    /// Waits until the agent has dialled in vain, so often as the seed says:
    /// the longer a fault lasts, the longer the agent waits between dials.
    fn wait_for_dials(&mut self) {
        let before = self.between.dialled();
        let dials = usize::try_from(self.below(4)).unwrap();
        until_true("the agent has dialled", || {
            self.between.dialled() >= before + dials
        });
    }

    /// Nobody else waits for it, nothing of it is kept in memory, and when it
    /// reads on everything is there.
    fn slow_reader(&mut self) {
        let processes = [&self.edge().running, self.app()];
        let processes = processes.map(|running| running.process.id().to_string());
        let memory = || processes.each_ref().map(|id| held(id).memory);
        let before = memory();
        let mut slow = connect(self.edge().http).unwrap();
        write(
            &slow,
            format!("GET /slow HTTP/1.1\r\nHost: app.test\r\nX-Wanted: {LARGE}\r\n\r\n").as_bytes(),
        );
        let mut first = [0; 1];
        slow.get_ref().peek(&mut first).unwrap();
        let others = 50 + self.below(100);
        self.load.more("app", others);
        for (before, now) in before.iter().zip(memory()) {
            let grown = now.saturating_sub(*before);
            assert!(
                grown < BUFFERS,
                "{grown} KiB for a visitor who reads nothing"
            );
        }
        let ended = Instant::now();
        let answer = read(&mut slow).unwrap();
        let took = ended.elapsed();
        assert!(answer.whole && answer.body == body("app slow", LARGE));
        println!("  {LARGE} bytes {took:?} after it read on");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
