//! How long to wait before the next dial.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// A link that lived this long was well: the next loss starts anew. Whoever is
/// cut off again and again is no burden for an edge that admits it each time.
pub(crate) const WELL_AFTER: Duration = Duration::from_secs(2);
/// Right after a loss pauses stay below [`SOON_LONGEST`], whatever the cause:
/// most causes are short, and where a proxy stands before the edge, its absence
/// looks like silence. An edge that is silent on purpose keeps each dial for
/// seconds, so that the whole stays below what it bans for.
const SOON: Duration = Duration::from_secs(30);
const SOON_LONGEST: Duration = Duration::from_secs(1);
/// While the edge's machine answers that nobody listens, asking costs next to
/// nothing and the edge may be back at any moment: pauses stay below
/// [`REFUSED_LONGEST`], so that visitors are served again within two seconds.
const REFUSED: Duration = Duration::from_secs(600);
const REFUSED_LONGEST: Duration = Duration::from_secs(1);

/// How the last dial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// At once: the machine is there, the process is not.
    Refused,
    /// Any other way, the loss of a link included.
    Other,
}

/// Exponential back-off with jitter, from 250 ms to 30 s, held short while
/// that is of use.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
    /// The start of the agent, or the loss of a link that was well.
    since: Instant,
}

impl Backoff {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            ceiling: FIRST * 2,
            since: now,
        }
    }

    /// The next wait: uniform between half the ceiling and the ceiling, which
    /// doubles each time. `random` is any uniform number.
    pub(crate) fn next(&mut self, last: Last, now: Instant, random: u32) -> Duration {
        let gone = now.saturating_duration_since(self.since);
        let longest = match last {
            Last::Refused if gone < REFUSED => REFUSED_LONGEST,
            _ if gone < SOON => SOON_LONGEST,
            _ => LONGEST,
        };
        let ceiling = self.ceiling.min(longest);
        let low = (ceiling / 2).max(FIRST);
        let span = ceiling.saturating_sub(low);
        self.ceiling = (ceiling * 2).min(LONGEST);
        low + span.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    pub(crate) fn reset(&mut self, now: Instant) {
        *self = Self::new(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longest and shortest waits of dials that all end the same way, one
    /// after the other, and how long after the loss each begins.
    fn waits(last: Last, count: usize) -> Vec<(Duration, Duration, Duration)> {
        let start = Instant::now();
        let (mut high, mut low) = (Backoff::new(start), Backoff::new(start));
        let mut gone = Duration::ZERO;
        (0..count)
            .map(|_| {
                let now = start + gone;
                let longest = high.next(last, now, u32::MAX);
                let began = gone;
                gone += longest;
                (longest, low.next(last, now, 0), began)
            })
            .collect()
    }

    fn millis(waits: &[(Duration, Duration, Duration)]) -> Vec<u128> {
        waits.iter().map(|wait| wait.0.as_millis()).collect()
    }

    #[test]
    fn waits_are_short_after_a_loss_and_grow_to_half_a_minute() {
        let all = waits(Last::Other, 40);
        let mut expected = vec![500];
        expected.extend([1_000; 30]);
        expected.extend([2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
        assert_eq!(millis(&all)[..expected.len()], expected);
        assert_eq!(all[0].1, FIRST);
        for (longest, shortest, _) in all {
            assert!(shortest >= FIRST && shortest >= longest / 2 && shortest < longest);
        }
    }

    #[test]
    fn an_edge_that_refuses_is_tried_each_second_for_ten_minutes() {
        let all = waits(Last::Refused, 620);
        assert_eq!(millis(&all)[..4], [500, 1_000, 1_000, 1_000]);
        for (longest, shortest, began) in &all {
            let quick = *began < REFUSED;
            assert_eq!(*longest <= REFUSED_LONGEST, quick, "{longest:?} {began:?}");
            assert!(*shortest >= FIRST);
        }
        let last = all.last().map(|wait| wait.0);
        assert_eq!(last, Some(LONGEST));
    }

    #[test]
    fn a_machine_that_is_back_is_tried_each_second_at_once() {
        let start = Instant::now();
        let mut backoff = Backoff::new(start);
        let after = |seconds| start + Duration::from_secs(seconds);
        for at in (0..300).step_by(10) {
            backoff.next(Last::Other, after(at), u32::MAX);
        }
        assert_eq!(backoff.next(Last::Other, after(300), u32::MAX), LONGEST);
        let wait = backoff.next(Last::Refused, after(330), u32::MAX);
        assert_eq!(wait, REFUSED_LONGEST);
        backoff.reset(after(1_000));
        let wait = backoff.next(Last::Refused, after(1_000), u32::MAX);
        assert_eq!(wait, FIRST * 2);
    }
}
