//! Where the time comes from.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The two clocks of a machine; tests bring their own.
pub trait TimeSource: fmt::Debug + Send + Sync {
    /// Time since some fixed moment, counted through suspension.
    fn since_boot(&self) -> Duration;
    /// Wall time, unix seconds.
    fn wall(&self) -> u64;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl TimeSource for SystemClock {
    fn since_boot(&self) -> Duration {
        #[cfg(target_os = "linux")]
        let clock = rustix::time::ClockId::Boottime;
        #[cfg(not(target_os = "linux"))]
        let clock = rustix::time::ClockId::Monotonic;
        let time = rustix::time::clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanos)
    }

    fn wall(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_go() {
        let (boot, wall) = (SystemClock.since_boot(), SystemClock.wall());
        assert!(boot > Duration::ZERO && wall > 1_700_000_000);
        assert!(SystemClock.since_boot() >= boot);
    }
}
