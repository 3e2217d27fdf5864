//! One timer a connection, moved as seldom as possible.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// A deadline that may move at each poll. Moving it later costs nothing: the
/// timer fires at the earlier time and is set anew only then.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready when `deadline` has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_moves_both_ways() {
        let mut timer = Timer::default();
        let start = Instant::now();
        let after = |seconds| Some(start + Duration::from_secs(seconds));
        let mut polled = 0;
        poll_fn(|cx| {
            polled += 1;
            // Later at each poll: fires early once, then at its time.
            timer.poll(cx, after(if polled == 1 { 5 } else { 9 }))
        })
        .await;
        assert_eq!(start.elapsed(), Duration::from_secs(9));
        poll_fn(|cx| {
            timer
                .poll(cx, after(20))
                .map(|()| ())
                .map(|()| cx.waker().wake_by_ref())
        })
        .await;
        assert_eq!(start.elapsed(), Duration::from_secs(20));
        let mut first = true;
        poll_fn(|cx| {
            let deadline = if std::mem::take(&mut first) { 60 } else { 30 };
            if timer.poll(cx, after(deadline)).is_ready() {
                return Poll::Ready(());
            }
            timer.poll(cx, after(30))
        })
        .await;
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }
}
