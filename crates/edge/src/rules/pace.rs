//! One visitor's share of what a rule lets through.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

use super::{Bucket, Rule};

const UP: usize = 0;
const DOWN: usize = 1;

/// Waits for both directions of one visitor, each on its own.
#[derive(Debug)]
pub(crate) struct Pace {
    rule: Arc<Rule>,
    timers: [Option<Pin<Box<Sleep>>>; 2],
}

impl Pace {
    /// `None` where the rule says nothing of bytes.
    pub(crate) fn new(rule: Arc<Rule>) -> Option<Self> {
        rule.bytes.is_some().then(|| Self {
            rule,
            timers: [None, None],
        })
    }

    /// Bytes that may be read from the visitor now, more than none.
    pub(crate) fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.poll(cx, UP)
    }

    /// Bytes that may be written to the visitor now, more than none.
    pub(crate) fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        self.poll(cx, DOWN)
    }

    pub(crate) fn moved_up(&self, bytes: usize) {
        self.spend(UP, bytes);
    }

    pub(crate) fn moved_down(&self, bytes: usize) {
        self.spend(DOWN, bytes);
    }

    fn bucket(&self, way: usize) -> Option<&Bucket> {
        self.rule.bytes.as_ref()?.get(way)
    }

    fn spend(&self, way: usize, bytes: usize) {
        if let Some(bucket) = self.bucket(way) {
            bucket.spend(bytes, Instant::now().into_std());
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, way: usize) -> Poll<usize> {
        loop {
            let now = Instant::now();
            let wait = match self.bucket(way).map(|bucket| bucket.ready(now.into_std())) {
                None => return Poll::Ready(usize::MAX),
                Some(Ok(bytes)) => return Poll::Ready(bytes.max(1)),
                Some(Err(wait)) => wait,
            };
            let Some(timer) = self.timers.get_mut(way) else {
                return Poll::Ready(usize::MAX);
            };
            let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
            if sleep.is_elapsed() {
                sleep.as_mut().reset(now + wait);
            }
            ready!(sleep.as_mut().poll(cx));
        }
    }
}
