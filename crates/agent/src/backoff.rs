//! How long to wait before the next dial.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// A link that lived this long was well: the next loss starts anew.
pub(crate) const WELL_AFTER: Duration = Duration::from_secs(10);

/// Exponential back-off with jitter, from 250 ms to 30 s.
#[derive(Debug)]
pub(crate) struct Backoff {
    ceiling: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { ceiling: FIRST * 2 }
    }

    /// The next wait: uniform between half the ceiling and the ceiling, which
    /// doubles each time. `random` is any uniform number.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let low = (self.ceiling / 2).max(FIRST);
        let span = self.ceiling.saturating_sub(low);
        self.ceiling = (self.ceiling * 2).min(LONGEST);
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
    fn waits_grow_from_a_quarter_second_to_half_a_minute() {
        let mut low = Backoff::new();
        let mut high = Backoff::new();
        assert_eq!(low.next(0), FIRST);
        assert_eq!(high.next(u32::MAX), FIRST * 2);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            let (a, b) = (low.next(0), high.next(u32::MAX));
            assert!(a >= FIRST && b <= LONGEST && a < b && b >= last);
            last = b;
        }
        assert_eq!(last, LONGEST);
        high.reset();
        assert!(high.next(u32::MAX) <= FIRST * 2);
    }
}
