//! When to look for a better carrier than the one a link has.

use std::time::Duration;

use tokio::time::Instant;

/// The first look after a link came up on a lower rung, and the rarest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));

/// The next look upwards, ever more rarely.
#[derive(Debug, Default)]
pub(crate) struct Climb {
    next: Option<(Instant, Duration)>,
}

impl Climb {
    /// A link came up; `wanted` when there are rungs above its own.
    pub(crate) fn on_live(&mut self, wanted: bool, now: Instant) {
        self.next = wanted.then(|| (now + PAUSES.0, PAUSES.0));
    }

    /// Looking came to nothing.
    pub(crate) fn on_failed(&mut self, now: Instant) {
        self.next = self.next.map(|(_, pause)| {
            let pause = (pause * 2).min(PAUSES.1);
            (now + pause, pause)
        });
    }

    /// When to look.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next.map(|(due, _)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_ever_more_rarely() {
        let start = Instant::now();
        let mut climb = Climb::default();
        climb.on_live(false, start);
        assert_eq!(climb.due(), None);
        climb.on_live(true, start);
        assert_eq!(climb.due(), Some(start + Duration::from_secs(15)));
        climb.on_failed(start);
        assert_eq!(climb.due(), Some(start + Duration::from_secs(30)));
        for _ in 0..20 {
            climb.on_failed(start);
        }
        assert_eq!(climb.due(), Some(start + Duration::from_secs(3600)));
    }
}
