//! What an agent's terminal shows: a quiet live view for a person, plain lines
//! for a pipe. Beside it, [`FullScreen`] for what fills a terminal.
//!
//! [`Board`] is the pure part: events in, lines out. [`Screen`] is the only
//! one that draws; whatever else is to be read meanwhile (the log, a question)
//! goes through it, so that the view and other lines never run into another.
//!
//! A terminal may take nothing (Ctrl-S), so nothing that carries visitors or
//! the link ever waits for a screen: [`start`] shows on a thread of its own,
//! which is left behind where it is stuck at the end.

mod board;
mod full;
mod screen;

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_agent::AgentEvent;
use adit_edge::lines::LAST_LINES;
use adit_model::Code;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use self::board::{Board, Told};
pub(crate) use self::full::FullScreen;
pub(crate) use self::screen::Screen;
use crate::failure::Failure;
use crate::{logging, terminal};

/// How often the live view is drawn at most.
const FRAME: Duration = Duration::from_millis(200);
/// How often a pipe is told the number of visitors at most.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// How long events gather after one about a visitor.
const REST: Duration = Duration::from_millis(50);
/// How long a fact waits for lines of the log at most.
const LOG_FIRST: Duration = Duration::from_millis(100);

/// A view that shows events.
pub(crate) struct View {
    /// Sends nothing: it is dropped when all has been shown.
    open: oneshot::Receiver<()>,
}

impl View {
    /// Waits until all events have been shown, at most a second.
    pub(crate) async fn ended(self) {
        drop(timeout(LAST_LINES, self.open).await);
    }
}

/// Shows events until the agent has ended, on a thread of its own.
///
/// # Errors
/// The system gives no thread or no clock.
pub(crate) fn start(
    events: mpsc::Receiver<AgentEvent>,
    screen: Arc<Screen>,
) -> Result<View, Failure> {
    let failed = |error| Failure::new(Code::RUNTIME_FAILED, format!("no view: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(failed)?;
    let (shown, open) = oneshot::channel();
    let body = move || {
        runtime.block_on(show(events, screen));
        drop(shown);
    };
    let thread = std::thread::Builder::new().name("view".to_owned());
    thread.spawn(body).map_err(failed)?;
    Ok(View { open })
}

async fn show(mut events: mpsc::Receiver<AgentEvent>, screen: Arc<Screen>) {
    let mut board = Board::new();
    let mut frame = interval(if screen.is_live() { FRAME } else { COUNT_EVERY });
    frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rest_until = tokio::time::Instant::now();
    loop {
        tokio::select! {
            event = next(&mut events, rest_until) => {
                let Some(event) = event else { break };
                if matches!(event, AgentEvent::Visitor(_)) && events.is_empty() {
                    rest_until = tokio::time::Instant::now() + REST;
                }
                let told = board.take(event, Instant::now());
                if !screen.is_live() {
                    tell(&told);
                }
            }
            _ = frame.tick() => {
                if screen.is_live() {
                    screen.draw(&board.lines(Instant::now(), terminal::width()));
                } else if let Some(line) = board.count_line() {
                    screen.say(&line);
                }
            }
        }
    }
    if screen.is_live() {
        screen.draw(&board.lines(Instant::now(), terminal::width()));
        screen.leave();
    }
}

/// The next event, not before a time: who is not waited for is not woken, so
/// that a visitor costs its agent no switch to this thread.
async fn next(
    events: &mut mpsc::Receiver<AgentEvent>,
    not_before: tokio::time::Instant,
) -> Option<AgentEvent> {
    sleep_until(not_before).await;
    events.recv().await
}

/// For a pipe: facts to stdout, the rest into the log.
fn tell(told: &Told) {
    match told {
        Told::Nothing => {}
        Told::Ready(line) => {
            // What the log has said before is to be read before.
            logging::flush(LOG_FIRST);
            terminal::print(line);
        }
        Told::Problem { code, what, remedy } => match code {
            Some(code) => tracing::warn!(target: "adit", %code, remedy, "{what}"),
            None => tracing::warn!(target: "adit", remedy, "{what}"),
        },
        Told::News(line) => tracing::info!(target: "adit", "{line}"),
    }
}
