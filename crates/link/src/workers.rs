//! Thread per core: each worker is one thread with a runtime of its own.
//!
//! A task stays on the worker that began it, so that a wake-up never crosses
//! cores and per-worker pools need no lock that is contended. The index of the
//! current worker is known anywhere; threads that are no workers count as 0.

use std::cell::Cell;
use std::io;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

thread_local! {
    static INDEX: Cell<usize> = const { Cell::new(0) };
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
            let runtime = Builder::new_current_thread().enable_all().build()?;
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
