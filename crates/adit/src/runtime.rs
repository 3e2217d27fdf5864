//! The runtime of the calling thread, and the signals that end a process.
//!
//! What carries visitors runs on worker threads of its own; here runs only
//! what looks after the process.

use std::future::Future;
use std::time::Duration;

use adit_model::Code;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::terminal;

/// Runs a command to its end.
///
/// # Errors
/// The command's failure, or that the system gave no event queue.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::RUNTIME_FAILED, format!("no event queue: {error}")))?;
    let done = runtime.block_on(work);
    // A thread that waits for a person's answer must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

/// Every visitor is a socket or two, and the usual soft limit of 1024 stands
/// only for programs that call `select`. Best effort: what is not allowed stays
/// as it was.
#[cfg(unix)]
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

#[cfg(not(unix))]
fn raise_descriptor_limit() {}

/// A token that the first SIGTERM or Ctrl-C cancels; a second one ends the
/// process at once.
///
/// # Errors
/// The system takes no handler.
pub(crate) fn stop_on_signal(
    tasks: &adit_link::tasks::Tasks,
) -> Result<CancellationToken, Failure> {
    let stop = CancellationToken::new();
    let mut signals = Signals::listen()
        .map_err(|error| Failure::new(Code::RUNTIME_FAILED, format!("no signals: {error}")))?;
    let first = stop.clone();
    tasks.spawn_until_stopped(async move {
        signals.next().await;
        first.cancel();
        signals.next().await;
        terminal::note("ended at once, open streams were cut");
        std::process::exit(i32::from(Code::DRAIN_CUT.fault().exit_status()));
    });
    Ok(stop)
}

#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        drop(tokio::signal::ctrl_c().await);
    }
}
