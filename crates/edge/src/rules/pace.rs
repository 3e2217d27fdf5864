//! One visitor's share of what rules let through.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

use super::{Bucket, Rule};

/// One direction of a visitor's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the visitor.
    Up,
    /// To the visitor.
    Down,
}

/// What the rules that one visitor is under say of bytes: at most one for the
/// tunnel and one for each agent. None takes no memory.
#[derive(Debug, Default)]
pub(crate) struct Paces(Vec<Pace>);

impl Paces {
    pub(crate) fn new(rules: impl IntoIterator<Item = Arc<Rule>>) -> Self {
        Self(rules.into_iter().filter_map(Pace::new).collect())
    }

    /// One rule more, where there is one.
    pub(crate) fn add(&mut self, rule: Option<Arc<Rule>>) {
        self.0.extend(rule.and_then(Pace::new));
    }

    /// Whether nothing is paced.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that may move now, more than none.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, way: Way) -> Poll<usize> {
        let mut most = usize::MAX;
        for pace in &mut self.0 {
            most = most.min(ready!(pace.poll(cx, way)));
        }
        Poll::Ready(most)
    }

    /// So many have moved.
    pub(crate) fn moved(&self, way: Way, bytes: usize) {
        for pace in &self.0 {
            if let Some(bucket) = pace.bucket(way) {
                bucket.spend(bytes, Instant::now().into_std());
            }
        }
    }
}

/// Waits for both directions by one rule, each on its own.
#[derive(Debug)]
struct Pace {
    rule: Arc<Rule>,
    timers: [Option<Pin<Box<Sleep>>>; 2],
}

impl Pace {
    /// `None` where the rule says nothing of bytes.
    fn new(rule: Arc<Rule>) -> Option<Self> {
        rule.bytes.is_some().then(|| Self {
            rule,
            timers: [None, None],
        })
    }

    fn bucket(&self, way: Way) -> Option<&Bucket> {
        let [up, down] = self.rule.bytes.as_ref()?;
        Some(match way {
            Way::Up => up,
            Way::Down => down,
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>, way: Way) -> Poll<usize> {
        loop {
            let now = Instant::now();
            let wait = match self.bucket(way).map(|bucket| bucket.ready(now.into_std())) {
                None => return Poll::Ready(usize::MAX),
                Some(Ok(bytes)) => return Poll::Ready(bytes.max(1)),
                Some(Err(wait)) => wait,
            };
            let [up, down] = &mut self.timers;
            let timer = match way {
                Way::Up => up,
                Way::Down => down,
            };
            let sleep = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
            if sleep.is_elapsed() {
                sleep.as_mut().reset(now + wait);
            }
            ready!(sleep.as_mut().poll(cx));
        }
    }
}
