//! When to look for a better carrier than the one a link has, and which one is
//! not to be trusted: something on the way may let a link begin and end it soon
//! after, again and again.

use std::time::Duration;

use adit_model::Carrier;
use tokio::time::Instant;

/// The first look after a link came up on a lower rung, and the rarest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));

/// A link that lived for less was a short one.
const SHORT: Duration = Duration::from_secs(60);
/// Short links in a row from which on their carrier is doubted: an edge that
/// restarts cuts one.
const DOUBT: u32 = 2;

/// The next look upwards, ever more rarely.
#[derive(Debug)]
pub(crate) struct Climb {
    next: Option<(Instant, Duration)>,
    /// The first pause of the next link.
    first: Duration,
    /// The carrier of the last link, when that was short, and how many were.
    short: Option<(Carrier, u32)>,
}

impl Default for Climb {
    fn default() -> Self {
        Self {
            next: None,
            first: PAUSES.0,
            short: None,
        }
    }
}

impl Climb {
    /// A link came up; `wanted` when there are rungs above its own.
    pub(crate) fn on_live(&mut self, wanted: bool, now: Instant) {
        self.next = wanted.then(|| (now + self.first, self.first));
    }

    /// A link was lost that the edge did not end.
    pub(crate) fn on_lost(&mut self, carrier: Carrier, lived: Duration) {
        if lived >= SHORT {
            return self.trust();
        }
        let before = self.short.filter(|(of, _)| *of == carrier);
        let times = before.map_or(1, |(_, times)| times.saturating_add(1));
        self.short = Some((carrier, times));
        if times >= DOUBT {
            self.first = (self.first * 2).min(PAUSES.1);
        }
    }

    /// Whatever was learnt is of no use any more: the network is another.
    pub(crate) fn trust(&mut self) {
        (self.first, self.short) = (PAUSES.0, None);
    }

    /// The carrier to try last.
    pub(crate) fn doubted(&self) -> Option<Carrier> {
        let short = self.short.filter(|(_, times)| *times >= DOUBT);
        short.map(|(carrier, _)| carrier)
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

    #[test]
    fn a_carrier_whose_links_soon_end_is_doubted() {
        let (start, soon) = (Instant::now(), Duration::from_secs(5));
        let mut climb = Climb::default();
        climb.on_lost(Carrier::Tcp, soon);
        assert_eq!(climb.doubted(), None, "an edge that restarts");
        climb.on_lost(Carrier::Tcp, soon);
        assert_eq!(climb.doubted(), Some(Carrier::Tcp));
        // It is tried again, ever more rarely.
        for pause in [30, 60, 120] {
            climb.on_live(true, start);
            assert_eq!(climb.due(), Some(start + Duration::from_secs(pause)));
            climb.on_lost(Carrier::Tcp, soon);
        }
        for _ in 0..20 {
            climb.on_lost(Carrier::Tcp, soon);
        }
        climb.on_live(true, start);
        assert_eq!(climb.due(), Some(start + Duration::from_secs(3600)));
        climb.on_lost(Carrier::Tcp, SHORT);
        climb.on_live(true, start);
        assert_eq!(climb.doubted(), None);
        assert_eq!(climb.due(), Some(start + Duration::from_secs(15)));
        climb.on_lost(Carrier::Tcp, soon);
        climb.on_lost(Carrier::Quic, soon);
        assert_eq!(climb.doubted(), None, "one of each");
    }
}
