//! One round of dialling: every place where the edge may be, until one is it.

use std::net::SocketAddr;

use adit_link::agent::{
    AgentLink, CONNECT_TIME, DialConfig, DialError, Spot, Unreached, Way, dial_beside,
};
use adit_link::eyeballs::connect_first;
use adit_link::race::Turn;
use adit_model::Carrier;
use tokio::net::TcpStream;

use crate::rungs::first_of;

/// Addresses of one place that a round tries at most.
const MAX_ADDRESSES: usize = 16;

/// What a round has learnt from places that were not it.
struct Failures {
    texts: Vec<String>,
    way: Way,
    /// Something answered that may have been the edge.
    talked: Option<DialError>,
}

/// Resolves anew and tries each address of each place in turn, carriers beside
/// each other (see [`crate::rungs`]); the one that is `doubted` when no other
/// works. What an edge has said is final; silence or nonsense may come from
/// something else that listens there, so the next address has its turn.
pub(crate) async fn reach(
    config: &DialConfig,
    doubted: Option<Carrier>,
) -> Result<AgentLink, DialError> {
    let rungs: Vec<_> = config
        .spots
        .chunk_by(|one, next| one.carrier == next.carrier)
        .collect();
    let is_doubted = |rung: &&[Spot]| rung.first().map(|spot| spot.carrier) == doubted;
    let last = doubted.and_then(|_| rungs.iter().position(is_doubted));
    let dial = |number: usize, turn: Turn| {
        let rung = rungs.get(number).copied().unwrap_or_default();
        climb(config, rung, turn)
    };
    let ended = first_of(rungs.len(), last, dial).await;
    ended.unwrap_or_else(|failed| {
        let mut all = Failures::default();
        for failures in failed {
            all.join(failures);
        }
        Err(all.whole())
    })
}

/// Tries the places of one carrier: a link, or what the edge has said.
async fn climb(
    config: &DialConfig,
    spots: &[Spot],
    turn: Turn,
) -> Result<Result<AgentLink, DialError>, Failures> {
    let mut failures = Failures::default();
    for spot in spots {
        let mut peers = failures.resolve(spot).await;
        while let Some(next) = failures.next(spot, &mut peers).await {
            match dial_beside(config, spot, next, &turn).await {
                Err(error) => {
                    if let Err(said) = failures.take(error) {
                        return Ok(Err(said));
                    }
                }
                found => return Ok(found),
            }
        }
    }
    Err(failures)
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            texts: Vec::new(),
            way: Way::Unresolved,
            talked: None,
        }
    }
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

    fn join(&mut self, other: Self) {
        self.way = self.way.max(other.way);
        for text in other.texts {
            self.add(text);
        }
        match other.talked {
            Some(DialError::Silent) => self.talked = Some(DialError::Silent),
            Some(error) => {
                self.talked.get_or_insert(error);
            }
            None => {}
        }
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
