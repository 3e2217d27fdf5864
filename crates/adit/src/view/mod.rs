//! What an agent's terminal shows: a quiet live view for a person, plain lines
//! for a pipe.
//!
//! [`Board`] is the pure part: events in, lines out. [`Screen`] is the only
//! one that draws; whatever else is to be read meanwhile (the log, a question)
//! goes through it, so that the view and other lines never run into another.

mod board;
mod screen;

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_agent::AgentEvent;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use crate::terminal;

pub(crate) use self::board::Board;
pub(crate) use self::screen::Screen;

/// How often the live view is drawn at most.
const FRAME: Duration = Duration::from_millis(200);
/// How often a pipe is told the number of visitors at most.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// Shows events until the agent has ended.
pub(crate) async fn show(mut events: mpsc::Receiver<AgentEvent>, screen: Arc<Screen>) {
    let mut board = Board::new();
    let mut frame = interval(if screen.is_live() { FRAME } else { COUNT_EVERY });
    frame.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.recv() => {
                let Some(event) = event else { break };
                let told = board.take(event, Instant::now());
                if !screen.is_live() {
                    told.print();
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
