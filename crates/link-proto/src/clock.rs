//! The edge's wall time: a monotonic clock anchored to it.
//!
//! The replay window must not reopen because somebody set the clock, nor close
//! because it was set wrong. So wall time is read once and carried on by a
//! clock that counts through suspension (`CLOCK_BOOTTIME`); only when the two
//! stay far apart for a while is the anchor set anew, and everything stamped
//! before that moment is refused, as after a reboot.

use std::time::Duration;

/// Seconds by which the clocks may differ.
const APART: u64 = 35;
/// How long they must differ before the anchor moves.
const APART_FOR: Duration = Duration::from_secs(60);

/// The anchor was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockChange {
    /// The time until now, unix seconds.
    pub from: u64,
    /// The time from now on, unix seconds.
    pub to: u64,
}

/// Monotonic wall time in unix seconds.
#[derive(Clone, Debug)]
pub struct WallClock {
    boot: Duration,
    wall: u64,
    apart_since: Option<Duration>,
    not_before: u64,
}

impl WallClock {
    /// Anchors `wall` (unix seconds) to `boot` (the monotonic clock).
    #[must_use]
    pub fn new(boot: Duration, wall: u64) -> Self {
        Self {
            boot,
            wall,
            apart_since: None,
            not_before: 0,
        }
    }

    /// Anchors them after a reboot: what was seen before it is forgotten, so
    /// stamps must be newer than any that could have been.
    #[must_use]
    pub fn after_reboot(boot: Duration, wall: u64) -> Self {
        let mut clock = Self::new(boot, wall);
        clock.not_before = wall.saturating_add(APART);
        clock
    }

    /// The unix time at `boot`.
    #[must_use]
    pub fn now(&self, boot: Duration) -> u64 {
        let gone = boot.saturating_sub(self.boot).as_secs();
        self.wall.saturating_add(gone)
    }

    /// Stamps at or below this are refused.
    #[must_use]
    pub fn not_before(&self) -> u64 {
        self.not_before
    }

    /// Compares both clocks; to be called every few seconds.
    pub fn feed(&mut self, boot: Duration, wall: u64) -> Option<ClockChange> {
        let from = self.now(boot);
        if from.abs_diff(wall) <= APART {
            self.apart_since = None;
            return None;
        }
        let since = *self.apart_since.get_or_insert(boot);
        if boot.saturating_sub(since) < APART_FOR {
            return None;
        }
        *self = Self::after_reboot(boot, wall);
        Some(ClockChange { from, to: wall })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000;

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_short_step_changes_nothing() {
        let mut clock = WallClock::new(secs(100), WALL);
        assert_eq!(clock.feed(secs(110), WALL + 10 + 60), None);
        assert_eq!(clock.now(secs(110)), WALL + 10);
        assert_eq!(clock.feed(secs(165), WALL + 65), None);
        // Apart again: the minute counts anew.
        assert_eq!(clock.feed(secs(166), WALL + 66 - 600), None);
        assert_eq!(clock.feed(secs(225), WALL + 125 - 600), None);
        assert_eq!(clock.now(secs(225)), WALL + 125);
        assert_eq!(clock.not_before(), 0);
    }

    #[test]
    fn a_lasting_step_moves_the_anchor_and_closes_the_past() {
        for step in [-3600i64, 60, 86_400] {
            let mut clock = WallClock::new(secs(100), WALL);
            let at = |boot: u64| WALL.saturating_add_signed(step) + boot - 100;
            assert_eq!(clock.feed(secs(200), at(200)), None);
            assert_eq!(clock.feed(secs(259), at(259)), None);
            let change = clock.feed(secs(260), at(260)).unwrap();
            assert_eq!((change.from, change.to), (WALL + 160, at(260)));
            assert_eq!(clock.now(secs(261)), at(261));
            assert_eq!(clock.not_before(), at(260) + 35);
            assert_eq!(clock.feed(secs(262), at(262)), None);
        }
    }
}
