//! What this side knows of one live link.

use std::time::Duration;

use adit_link::agent::AgentLink;
use adit_model::{Code, TunnelId};
use adit_wire::Message;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::backoff::WELL_AFTER;

/// A refused tunnel is asked for again after this long, then ever more rarely.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// A link and what this side knows of it.
pub(crate) struct Link {
    pub(crate) link: AgentLink,
    /// Its open streams.
    pub(crate) streams: TaskTracker,
    since: Instant,
    refused: Vec<Asking>,
    /// What the edge said before it ended the link.
    error: Option<(u16, String)>,
}

/// A tunnel that the edge did not open.
struct Asking {
    tunnel: TunnelId,
    due: Instant,
    wait: Duration,
}

impl Link {
    pub(crate) fn new(link: AgentLink, streams: TaskTracker) -> Self {
        Self {
            link,
            streams,
            since: Instant::now(),
            refused: Vec::new(),
            error: None,
        }
    }

    /// Whether it lived long enough to count as a good one.
    pub(crate) fn was_well(&self) -> bool {
        self.age() >= WELL_AFTER
    }

    /// How long it has lived.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether the edge has said why it ends the link.
    pub(crate) fn has_last_words(&self) -> bool {
        self.error.is_some()
    }

    /// The edge says why it is going to end the link.
    pub(crate) fn says(&mut self, code: u16, text: String) {
        self.error = Some((code, text));
    }

    pub(crate) fn last_words(self) -> Option<(Code, String)> {
        let (code, text) = self.error?;
        Some((Code::from_number(code).unwrap_or(Code::LINK_LOST), text))
    }

    pub(crate) fn opened(&mut self, tunnel: TunnelId) {
        self.refused.retain(|asking| asking.tunnel != tunnel);
    }

    /// Tunnels to ask for now; without an answer they are due once more.
    pub(crate) fn due(&mut self) -> Vec<TunnelId> {
        let now = Instant::now();
        let due = self.refused.iter_mut().filter(|asking| asking.due <= now);
        due.map(|asking| {
            asking.due = now + asking.wait;
            asking.tunnel
        })
        .collect()
    }

    /// An edge that does not read loses its link.
    pub(crate) fn send(&self, message: Message) {
        if !self.link.send(message) {
            self.link.close();
        }
    }

    pub(crate) fn ask_again_at(&self) -> Option<Instant> {
        self.refused.iter().map(|asking| asking.due).min()
    }

    pub(crate) fn ask_later(&mut self, tunnel: TunnelId) -> Duration {
        let before = self.refused.iter().position(|one| one.tunnel == tunnel);
        let wait = match before.map(|index| self.refused.swap_remove(index)) {
            Some(asking) => (asking.wait * 2).min(ASK_AGAIN.1),
            None => ASK_AGAIN.0,
        };
        let due = Instant::now() + wait;
        self.refused.push(Asking { tunnel, due, wait });
        wait
    }
}
