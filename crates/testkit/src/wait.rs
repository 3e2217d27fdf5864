//! Waiting for a condition, with a deadline that is far away: it is there to
//! end a test that would hang, not to measure.

use std::time::{Duration, Instant};

/// When a condition that has not come true is given up.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Looks until `look` answers with something.
///
/// # Panics
/// When it has not within [`DEADLINE`]: `what` is named.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain until {what}");
        pause();
    }
}

/// Looks until the condition holds.
///
/// # Panics
/// As [`until`].
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pause between two looks; the one place where a test world waits by the clock"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
