//! What happens thousands of times a second is told once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two lines about the same thing.
const PAUSE: Duration = Duration::from_secs(60);

/// Lets one line through a minute, with the number of those it stands for.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    kept_back: u64,
}

impl Seldom {
    /// One more happened: how many since the last line, when it is time for
    /// the next.
    #[must_use]
    pub fn one_more(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.kept_back += 1;
        let last = state.told.map(|told| now.saturating_duration_since(told));
        if last.is_some_and(|ago| ago < PAUSE) {
            return None;
        }
        state.told = Some(now);
        Some(std::mem::take(&mut state.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_with_their_number() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let after = |seconds| seldom.one_more(start + Duration::from_secs(seconds));
        assert_eq!(after(0), Some(1));
        assert_eq!(after(1), None);
        assert_eq!(after(59), None);
        assert_eq!(after(60), Some(3));
        assert_eq!(after(61), None);
        assert_eq!(after(600), Some(2));
    }
}
