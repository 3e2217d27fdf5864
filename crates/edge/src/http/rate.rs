//! How slow a visitor may be.
//!
//! Time counts only while the door waits for the visitor, to send its request
//! or to take its answer: a backend that takes its time is not the visitor's
//! fault. Credit shrinks with each second waited and grows with each byte
//! moved, up to the grace it began with; at zero the visitor is too slow.

use std::time::Duration;

use tokio::time::Instant;

/// The measure of one direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Bytes a second; 0: any byte gives the whole grace again.
    least: u32,
    grace: Duration,
    credit: Duration,
    waiting: Option<Instant>,
}

impl Rate {
    pub(super) fn new(least: u32, grace: Duration) -> Self {
        Self {
            least,
            grace,
            credit: grace,
            waiting: None,
        }
    }

    /// The visitor is waited for.
    pub(super) fn waits(&mut self) {
        self.waiting.get_or_insert_with(Instant::now);
    }

    /// The door waits for something else now.
    pub(super) fn rests(&mut self) {
        if let Some(since) = self.waiting.take() {
            self.credit = self.credit.saturating_sub(since.elapsed());
        }
    }

    /// The visitor moved so many bytes.
    pub(super) fn moved(&mut self, count: usize) {
        let Some(since) = self.waiting.take() else {
            return;
        };
        let earned = match self.least {
            0 => self.grace,
            least => Duration::from_millis((count as u64).saturating_mul(1000) / u64::from(least)),
        };
        self.credit = self
            .credit
            .saturating_sub(since.elapsed())
            .saturating_add(earned)
            .min(self.grace);
    }

    /// When the visitor is too slow, if nothing moves until then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.map(|since| since + self.credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn credit_follows_the_bytes() {
        let start = Instant::now();
        let mut rate = Rate::new(500, Duration::from_secs(10));
        let left = |rate: &Rate| rate.deadline().map(|at| (at - start).as_secs());
        assert_eq!(left(&rate), None);
        rate.waits();
        assert_eq!(left(&rate), Some(10));
        pass(4).await;
        rate.moved(500);
        pass(100).await;
        rate.waits();
        // 10 - 4 + 1 seconds from now on.
        assert_eq!(left(&rate), Some(104 + 7));
        rate.moved(1_000_000);
        rate.waits();
        assert_eq!(left(&rate), Some(104 + 10));
    }

    #[tokio::test(start_paused = true)]
    async fn the_doors_own_rest_costs_no_credit() {
        let mut rate = Rate::new(500, Duration::from_secs(10));
        rate.waits();
        pass(4).await;
        rate.rests();
        assert_eq!(rate.deadline(), None);
        pass(100).await;
        rate.waits();
        assert_eq!(
            rate.deadline(),
            Some(Instant::now() + Duration::from_secs(6))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_any_byte_will_do() {
        let start = Instant::now();
        let mut rate = Rate::new(0, Duration::from_secs(10));
        rate.waits();
        pass(9).await;
        rate.moved(1);
        rate.waits();
        assert_eq!(rate.deadline(), Some(start + Duration::from_secs(19)));
    }
}
