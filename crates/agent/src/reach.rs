//! One round of dialling: every place where the edge may be, until one is it.

use std::net::SocketAddr;

use adit_link::agent::{
    AgentLink, CONNECT_TIME, DialConfig, DialError, Spot, Unreached, Way, dial,
};
use adit_link::eyeballs::connect_first;
use adit_model::Carrier;
use tokio::net::TcpStream;

/// Addresses of one place that a round tries at most.
const MAX_ADDRESSES: usize = 16;

/// What a round has learnt from places that were not it.
struct Failures {
    texts: Vec<String>,
    way: Way,
    /// Something answered that may have been the edge.
    talked: Option<DialError>,
}

/// Resolves anew and tries each address of each place in turn. What an edge
/// has said is final; silence or nonsense may come from something else that
/// listens there, so the next address has its turn.
pub(crate) async fn reach(config: &DialConfig) -> Result<AgentLink, DialError> {
    let mut failures = Failures {
        texts: Vec::new(),
        way: Way::Unresolved,
        talked: None,
    };
    for spot in &config.spots {
        let mut peers = failures.resolve(spot).await;
        while let Some((peer, connected)) = failures.next(spot, &mut peers).await {
            match Box::pin(dial(config, spot, peer, connected)).await {
                Err(error) => failures.take(error)?,
                found => return found,
            }
        }
    }
    Err(failures.whole())
}

impl Failures {
    /// The addresses of a place, or of the proxy that leads there.
    async fn resolve(&mut self, spot: &Spot) -> Vec<SocketAddr> {
        let name = match &spot.proxy {
            Some(proxy) => proxy.address(),
            None => spot.address.clone(),
        };
        let mut peers = Vec::new();
        match tokio::net::lookup_host(&name).await {
            Ok(found) => {
                for peer in found {
                    if peers.len() < MAX_ADDRESSES && !peers.contains(&peer) {
                        peers.push(peer);
                    }
                }
            }
            Err(error) => self.add(format!("{name}: {error}")),
        }
        peers
    }

    /// The next address to talk to, taken out of `peers`. Those that TCP
    /// reaches directly are tried beside each other.
    async fn next(
        &mut self,
        spot: &Spot,
        peers: &mut Vec<SocketAddr>,
    ) -> Option<(SocketAddr, Option<TcpStream>)> {
        if spot.carrier == Carrier::Quic || spot.proxy.is_some() || peers.len() < 2 {
            return (!peers.is_empty()).then(|| (peers.remove(0), None));
        }
        let unanswered = match connect_first(peers, CONNECT_TIME).await {
            Ok((socket, peer)) => {
                peers.retain(|other| *other != peer);
                return Some((peer, Some(socket)));
            }
            Err(unanswered) => unanswered,
        };
        peers.clear();
        for (peer, error) in unanswered {
            self.way = self.way.max(Way::of(&error));
            self.add(format!("{peer}: {error}"));
        }
        None
    }

    /// Goes on unless the edge itself has spoken.
    fn take(&mut self, error: DialError) -> Result<(), DialError> {
        match error {
            DialError::Unreachable(unreached) => {
                self.way = self.way.max(unreached.way);
                self.add(unreached.why);
            }
            DialError::Io(error) => {
                self.way = self.way.max(Way::Unanswered);
                self.add(error.to_string());
            }
            // Silence says more than nonsense: an edge may be there.
            DialError::Silent => self.talked = Some(DialError::Silent),
            error @ DialError::Broken(_) => {
                self.talked.get_or_insert(error);
            }
            said => return Err(said),
        }
        Ok(())
    }

    fn add(&mut self, text: String) {
        if !self.texts.contains(&text) {
            self.texts.push(text);
        }
    }

    fn whole(self) -> DialError {
        let (why, way) = (self.texts.join("; "), self.way);
        self.talked
            .unwrap_or(DialError::Unreachable(Unreached { why, way }))
    }
}
