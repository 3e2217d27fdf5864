//! How long to wait before the next dial.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(250);
/// An outage of this length at most is over within a second of its end: that
/// is a restart, a cable, a change of networks.
const SHORT: Duration = Duration::from_secs(60);
const LONGEST_IN_SHORT: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// A link that lived this long was well: the next loss starts anew.
pub(crate) const WELL_AFTER: Duration = Duration::from_secs(10);

/// Exponential back-off with jitter: from 250 ms to one second while the
/// outage is young, then to 30 s.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    /// The first failure.
    began: Option<Instant>,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            ceiling: FIRST * 2,
            began: None,
        }
    }

    /// The next wait: uniform between half the ceiling and the ceiling, which
    /// doubles each time. `random` is any uniform number.
    pub(crate) fn next(&mut self, now: Instant, random: u32) -> Duration {
        let began = *self.began.get_or_insert(now);
        let longest = if now.saturating_duration_since(began) < SHORT {
            LONGEST_IN_SHORT
        } else {
            LONGEST
        };
        let low = (self.ceiling / 2).max(FIRST);
        let span = self.ceiling.saturating_sub(low);
        self.ceiling = (self.ceiling * 2).min(longest);
        low + span.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_stay_below_a_second_for_a_minute_then_grow_to_half_a_minute() {
        let mut backoff = Backoff::new();
        let begun = Instant::now();
        let mut now = begun;
        let mut waits = Vec::new();
        while now < begun + Duration::from_secs(300) {
            let wait = backoff.next(now, u32::MAX);
            waits.push((now - begun, wait));
            now += wait;
        }
        assert_eq!(waits[0].1, FIRST * 2);
        assert_eq!(waits[1].1, LONGEST_IN_SHORT);
        for (since, wait) in &waits {
            assert!(*wait <= LONGEST_IN_SHORT || *since >= SHORT, "{waits:?}");
        }
        assert!(waits.is_sorted_by_key(|(_, wait)| *wait), "{waits:?}");
        assert_eq!(waits.last().unwrap().1, LONGEST);
        backoff.reset();
        assert_eq!(backoff.next(now, u32::MAX), FIRST * 2);
    }

    #[test]
    fn each_wait_is_spread_over_half_its_ceiling() {
        let (mut low, mut high) = (Backoff::new(), Backoff::new());
        let mut now = Instant::now();
        for _ in 0..200 {
            let (least, most) = (low.next(now, 0), high.next(now, u32::MAX));
            assert!(least >= FIRST && least * 2 == most, "{least:?} {most:?}");
            now += least;
        }
        assert_eq!(high.next(now, u32::MAX), LONGEST);
    }
}
