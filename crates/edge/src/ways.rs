//! What whoever carries a stream both ways keeps to.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::access::Told;
use crate::backend::Backend;
use crate::metrics::Direction;
use crate::metrics::kinds::Family;

/// Bytes that one poll may move each way before other tasks have their turn.
pub(crate) const TURN: usize = 512 * 1024;

/// How long one direction may be silent after the other has ended.
const HALF_TIME: Duration = Duration::from_secs(300);

/// The task goes on after others have had their turn: one visitor's flow must
/// not hold up the heartbeats of the links that share its worker.
pub(crate) fn others_first(cx: &Context<'_>) -> Poll<()> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Runs while one direction alone has ended and the other is silent: nothing
/// else tells whether anybody is still there.
#[derive(Debug, Default)]
pub(crate) struct HalfTime(Option<(Pin<Box<Sleep>>, u64)>);

impl HalfTime {
    /// Ready when it is over; `moved` are all bytes until now.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        let (timer, since) = self
            .0
            .get_or_insert_with(|| (Box::pin(sleep(HALF_TIME)), moved));
        if *since != moved {
            timer.as_mut().reset(Instant::now() + HALF_TIME);
            *since = moved;
        }
        timer.as_mut().poll(cx)
    }
}

/// Counts the bytes of a stream as they move: it may last for days.
pub(crate) struct Meter<'m> {
    backend: &'m Backend,
    bytes: &'m Family<Direction>,
    /// Bytes from the visitor and to it.
    counted: (u64, u64),
}

impl<'m> Meter<'m> {
    pub(crate) fn new(backend: &'m Backend, bytes: &'m Family<Direction>) -> Self {
        Self {
            backend,
            bytes,
            counted: (0, 0),
        }
    }

    /// So many have moved in all.
    pub(crate) fn read(&mut self, moved: (u64, u64), told: &mut Told) {
        let (received, sent) = (moved.0 - self.counted.0, moved.1 - self.counted.1);
        if received + sent > 0 {
            self.counted = moved;
            told.moved(received, sent);
            self.backend.traffic.moved(received, sent);
            self.bytes.of(Direction::In).add(received);
            self.bytes.of(Direction::Out).add(sent);
        }
    }
}
