//! The agent's dials: of a link that is missed, and of a better one.

use std::sync::Arc;
use std::time::Duration;

use adit_link::agent::{DialConfig, DialError, Spot};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::Agent;
use crate::events::AgentEvent;
use crate::forward::Forwarder;
use crate::link::Link;
use crate::network::here;
use crate::reach::reach;

impl Agent {
    /// Dials after a while, `first` before the known addresses.
    pub(super) fn dial_after(&mut self, wait: Duration, first: &[String]) {
        let mut addresses = first.to_vec();
        for address in &self.known.addresses {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let worked = self.known.worked(&here());
        let doubted = self.climb.doubted();
        let ways = (worked, doubted);
        let spots = self.ladder.spots(&addresses, &self.known.doors, ways);
        let (mut config, streams) = self.dial_config(spots);
        config.pin = self.pins.source();
        let silent = self.link.is_some();
        let teller = Arc::clone(&self.teller);
        self.looking = None;
        self.attempt = Some(Box::pin(async move {
            sleep(wait).await;
            if !silent {
                teller.tell(AgentEvent::Connecting { addresses });
            }
            Ok((reach(&config, doubted).await?, streams))
        }));
    }

    /// A link is over: what that says of its carrier, unless the edge ended it.
    pub(super) fn judge(&mut self, link: &Link) {
        if !link.has_last_words() {
            let carrier = link.link.spot().carrier;
            self.climb.on_lost(carrier, link.age());
        }
    }

    fn dial_config(&self, spots: Vec<Spot>) -> (DialConfig, TaskTracker) {
        let streams = TaskTracker::new();
        let forwarder = Forwarder::new(
            Arc::clone(&self.tunnels),
            Arc::clone(&self.teller),
            streams.clone(),
            Arc::clone(&self.dial.identity),
        );
        let config = DialConfig {
            spots,
            psk: self.known.psk.clone(),
            handler: Arc::new(forwarder),
            ..self.dial.clone()
        };
        (config, streams)
    }

    /// Dials by the carriers above the link's own, which serves meanwhile.
    pub(super) fn look_up(&mut self) {
        let Some(link) = &self.link else { return };
        let carrier = link.link.spot().carrier;
        let known = &self.known;
        let spots = self.ladder.above(carrier, &known.addresses, &known.doors);
        let (config, streams) = self.dial_config(spots);
        self.looking = Some(Box::pin(async move {
            Ok((reach(&config, None).await?, streams))
        }));
    }

    pub(super) fn on_nothing_better(&mut self, error: &DialError) {
        self.looking = None;
        self.climb.on_failed(Instant::now());
        tracing::debug!(%error, "no better carrier reaches the edge now");
    }
}
