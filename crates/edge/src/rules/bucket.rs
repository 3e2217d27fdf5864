//! A token bucket that many tasks take from without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How much may come at once after a pause, as time at the bucket's rate.
const BURST: Duration = Duration::from_millis(250);
/// But never less than this many bytes: what moves at once should be worth it.
const LEAST: u64 = 4096;

/// Bytes at a rate. The state is one moment, in nanoseconds since the start:
/// when everything taken so far will have been paid for.
#[derive(Debug)]
pub(crate) struct Bucket {
    per_second: u64,
    start: Instant,
    /// How much may come at once, in nanoseconds.
    burst: u64,
    paid_at: AtomicU64,
}

impl Bucket {
    /// A full bucket; `per_second` is not 0.
    pub(crate) fn new(per_second: u64, start: Instant) -> Self {
        let per_second = per_second.max(1);
        Self {
            burst: as_nanos(BURST).max(LEAST.saturating_mul(1_000_000_000) / per_second),
            per_second,
            start,
            paid_at: AtomicU64::new(0),
        }
    }

    /// Bytes that may move now, or how long to wait until it is worth asking
    /// again.
    pub(crate) fn ready(&self, at: Instant) -> Result<usize, Duration> {
        let paid_at = self.paid_at.load(Ordering::Relaxed);
        let owed = paid_at.saturating_sub(self.nanos(at));
        // Few bytes at a time would cost more calls than they are worth.
        match owed.checked_sub(self.burst / 2) {
            None | Some(0) => {
                let bytes = self.bytes(self.burst - owed);
                Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
            }
            Some(more) => Err(Duration::from_nanos(more)),
        }
    }

    /// Takes what has moved, which may be more than there was.
    pub(crate) fn spend(&self, bytes: usize, at: Instant) {
        let now = self.nanos(at);
        let time = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.per_second);
        let time = u64::try_from(time).unwrap_or(u64::MAX);
        let later = |paid: u64| Some(paid.max(now).saturating_add(time));
        // Never refused: the closure always gives a value.
        let _ = self
            .paid_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later);
    }

    fn nanos(&self, at: Instant) -> u64 {
        as_nanos(at.saturating_duration_since(self.start))
    }

    fn bytes(&self, nanos: u64) -> u64 {
        let bytes = u128::from(nanos) * u128::from(self.per_second) / 1_000_000_000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}

fn as_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_over_time() {
        let start = Instant::now();
        let bucket = Bucket::new(1_000_000, start);
        let (mut at, mut moved) = (start, 0);
        while at < start + Duration::from_secs(10) {
            match bucket.ready(at) {
                Ok(bytes) => {
                    let bytes = bytes.min(10_000);
                    bucket.spend(bytes, at);
                    moved += bytes;
                }
                Err(wait) => at += wait,
            }
        }
        // The rate, and the burst of the beginning.
        assert!((10_000_000..=10_500_000).contains(&moved), "{moved}");
    }

    #[test]
    fn a_pause_saves_up_a_burst_and_no_more() {
        let start = Instant::now();
        let bucket = Bucket::new(1_000_000, start);
        bucket.spend(1_000_000, start);
        let wait = bucket.ready(start).unwrap_err();
        assert!(wait > Duration::from_millis(800), "{wait:?}");
        assert!(bucket.ready(start + wait).is_ok());
        let later = bucket.ready(start + Duration::from_secs(60));
        assert_eq!(later, Ok(250_000));
    }

    #[test]
    fn a_slow_bucket_still_moves() {
        let start = Instant::now();
        let bucket = Bucket::new(1, start);
        assert_eq!(bucket.ready(start), Ok(4096));
        bucket.spend(4096, start);
        let wait = bucket.ready(start).unwrap_err();
        assert_eq!(wait, Duration::from_secs(2048));
        assert_eq!(bucket.ready(start + wait), Ok(2048));
    }
}
