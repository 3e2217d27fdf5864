//! Thread per core: each worker is one thread with a runtime of its own.
//!
//! A task stays on the worker that began it, so that a wake-up never crosses
//! cores and per-worker pools need no lock that is contended. The index of the
//! current worker is known anywhere; threads that are no workers count as 0.
//!
//! A worker that has nothing left to do lets the other threads of its core go
//! first before it sleeps: on a busy machine these are its visitors, its peers
//! and its services, and what they bring is there, all of it, when it is the
//! worker's turn again. That saves a sleep and a wake-up for each, and brings
//! more at a time. Who computes for long instead of bringing something is let
//! go first only once in a while.

use std::cell::Cell;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Letting others go first is to take no longer, on average of the last so many:
/// who uses a core for longer brings the worker nothing.
const TURN: Duration = Duration::from_millis(2);
const OF: u32 = 8;
/// How long nobody is let go first when it took longer.
const IMPATIENT: Duration = Duration::from_millis(250);

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
    static MANNERS: Cell<Manners> = const { Cell::new(Manners::new()) };
}

/// Whether a worker lets other threads go first.
#[derive(Clone, Copy, Debug)]
struct Manners {
    /// What it took, on average of the last.
    mean: Duration,
    impatient_until: Option<Instant>,
}

impl Manners {
    const fn new() -> Self {
        Self {
            mean: Duration::ZERO,
            impatient_until: None,
        }
    }

    fn polite(self, now: Instant) -> bool {
        self.impatient_until.is_none_or(|until| now >= until)
    }

    /// Letting others go first took from `before` to `after`.
    fn took(&mut self, before: Instant, after: Instant) {
        let took = after.saturating_duration_since(before).min(OF * TURN);
        self.mean = self.mean - self.mean / OF + took / OF;
        let long = self.mean > TURN;
        self.impatient_until = long.then_some(after + IMPATIENT);
    }
}

/// Before a worker sleeps; afterwards it looks for events once more.
fn let_others_go_first() {
    let mut manners = MANNERS.get();
    let before = Instant::now();
    if manners.polite(before) {
        std::thread::yield_now();
        manners.took(before, Instant::now());
        MANNERS.set(manners);
    }
}

/// The index of the worker that runs this code.
#[must_use]
pub fn worker_index() -> usize {
    INDEX.get()
}

/// The worker threads of a process.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts `count` workers (at least one), named `name-0` and so on.
    ///
    /// # Errors
    /// The system's, when it gives no thread or no event queue.
    pub fn start(name: &str, count: usize) -> io::Result<Self> {
        let mut workers = Self {
            handles: Vec::new(),
            threads: Vec::new(),
            stop: CancellationToken::new(),
        };
        for index in 0..count.max(1) {
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.enable_all().on_thread_park(let_others_go_first);
            let runtime = runtime.build()?;
            workers.handles.push(runtime.handle().clone());
            let stop = workers.stop.clone();
            let body = move || {
                INDEX.set(index);
                runtime.block_on(stop.cancelled());
            };
            let thread = std::thread::Builder::new().name(format!("{name}-{index}"));
            workers.threads.push(thread.spawn(body)?);
        }
        Ok(workers)
    }

    /// Where to start tasks, one a worker.
    #[must_use]
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Workers {
    /// Ends the threads; tasks that still run are dropped.
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

/// How many workers suit this machine.
#[must_use]
pub fn default_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_long_is_not_let_go_first_for_a_while() {
        let mut manners = Manners::new();
        let mut now = Instant::now();
        let mut wait = |micros: u64| {
            let before = now;
            now += Duration::from_micros(micros);
            manners.took(before, now);
            manners
        };
        // Busy neighbours that bring something, now and then a long one.
        for took in [10, 900, 1_900, 20, 4_000, 300] {
            assert_eq!(wait(took).impatient_until, None);
        }
        // Somebody who computes.
        let tired = (1..10).map(|_| wait(4_000));
        let tired = tired
            .last()
            .filter(|manners| manners.impatient_until.is_some());
        let (tired, until) = (tired.unwrap(), tired.unwrap().impatient_until.unwrap());
        assert!(!tired.polite(until - IMPATIENT / 2) && tired.polite(until));
        // One try is enough to see that it goes on, and few that it does not,
        // however long somebody had the core.
        assert!(wait(60_000_000).impatient_until.is_some());
        assert!((1..15).any(|_| wait(0).impatient_until.is_none()));
    }

    #[test]
    fn tasks_run_on_their_worker() {
        let workers = Workers::start("test", 2).unwrap();
        for (index, handle) in workers.handles().iter().enumerate() {
            let (tx, rx) = std::sync::mpsc::sync_channel(1);
            let tasks = crate::tasks::Tasks::new();
            tasks.spawn_on(handle, async move { tx.send(worker_index()).unwrap() });
            assert_eq!(rx.recv().unwrap(), index);
        }
    }
}
