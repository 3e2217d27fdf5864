//! A host's clocks: one that only goes forward, and one that people set.

use std::time::{Duration, Instant};

/// Unix time at which every world begins.
const BEGIN: u64 = 1_700_000_000;

/// The clocks of one host.
#[derive(Clone, Copy, Debug)]
pub struct HostClock {
    origin: Instant,
    /// Seconds by which the wall clock is off.
    pub step: i64,
}

impl HostClock {
    /// Right clocks.
    #[must_use]
    pub fn new(origin: Instant) -> Self {
        Self { origin, step: 0 }
    }

    /// Time since the host began, suspension included.
    #[must_use]
    pub fn boot(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.origin)
    }

    /// What the wall clock shows, unix seconds.
    #[must_use]
    pub fn wall(&self, now: Instant) -> u64 {
        (BEGIN + self.boot(now).as_secs()).saturating_add_signed(self.step)
    }
}
