//! Which carriers to try, in which order.
//!
//! TCP carries most for its cost and comes first; QUIC keeps datagrams
//! datagrams, so it comes first where a tunnel has some; WebSocket passes
//! where only web pages do and costs most. What worked on a network is tried
//! first there, and the rungs above it now and then.

use std::fmt;
use std::sync::Arc;

use adit_link::agent::Spot;
use adit_link::proxy::Proxy;
use adit_model::{Carrier, CarrierDoor};

/// The proxy that this machine's environment names for web pages of a
/// `host:port`, if any.
pub type WebProxy = Arc<dyn Fn(&str) -> Option<Proxy> + Send + Sync>;

/// What the owner wants of the link's carrier.
#[derive(Clone, Default)]
pub struct Carriage {
    /// Only this one; `None` chooses.
    pub only: Option<Carrier>,
    /// The way out of this network, for everything.
    pub proxy: Option<Proxy>,
    /// The way out that the environment names for web pages.
    pub web_proxy: Option<WebProxy>,
}

impl fmt::Debug for Carriage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carriage")
            .field("only", &self.only)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

/// The order of this agent.
#[derive(Clone, Debug)]
pub(crate) struct Ladder {
    carriage: Carriage,
    /// Whether datagrams are to be carried.
    datagrams: bool,
}

impl Ladder {
    pub(crate) fn new(carriage: Carriage, datagrams: bool) -> Self {
        Self {
            carriage,
            datagrams,
        }
    }

    /// Whether there is a choice: what was forced says nothing of the others.
    pub(crate) fn chooses(&self) -> bool {
        self.carriage.only.is_none()
    }

    /// The rungs, best first.
    fn rungs(&self) -> Vec<Carrier> {
        if let Some(only) = self.carriage.only {
            return vec![only];
        }
        let mut rungs = vec![Carrier::Tcp, Carrier::Quic, Carrier::WebSocket];
        if self.datagrams {
            rungs.swap(0, 1);
        }
        if self.carriage.proxy.is_some() {
            rungs.retain(|rung| *rung != Carrier::Quic);
        }
        rungs
    }

    /// Every place to try: the carrier that worked here before first, one that
    /// is doubted last.
    pub(crate) fn spots(
        &self,
        addresses: &[String],
        doors: &[CarrierDoor],
        (worked, doubted): (Option<Carrier>, Option<Carrier>),
    ) -> Vec<Spot> {
        let mut rungs = self.rungs();
        rungs.sort_by_key(|rung| match Some(*rung) {
            rung if rung == doubted => 2,
            rung if rung == worked => 0,
            _ => 1,
        });
        self.at(&rungs, addresses, doors)
    }

    /// The places above the rung of a link.
    pub(crate) fn above(
        &self,
        carrier: Carrier,
        addresses: &[String],
        doors: &[CarrierDoor],
    ) -> Vec<Spot> {
        let rungs = self.rungs();
        let better = rungs.iter().take_while(|rung| **rung != carrier);
        self.at(&better.copied().collect::<Vec<_>>(), addresses, doors)
    }

    fn at(&self, rungs: &[Carrier], addresses: &[String], doors: &[CarrierDoor]) -> Vec<Spot> {
        let mut spots = Vec::new();
        for rung in rungs {
            for address in addresses {
                for address in places(*rung, address, doors) {
                    self.add(*rung, &address, &mut spots);
                }
            }
        }
        spots
    }

    fn add(&self, carrier: Carrier, address: &str, spots: &mut Vec<Spot>) {
        let web = self.carriage.web_proxy.as_ref();
        let ways = match (&self.carriage.proxy, carrier) {
            (Some(proxy), _) => vec![Some(proxy.clone())],
            (None, Carrier::WebSocket) => {
                let through = web.and_then(|web| web(address));
                through.into_iter().map(Some).chain([None]).collect()
            }
            _ => vec![None],
        };
        for proxy in ways {
            let spot = Spot {
                carrier,
                address: address.to_owned(),
                proxy,
            };
            if !spots.contains(&spot) {
                spots.push(spot);
            }
        }
    }
}

/// Where a carrier's doors are, by an address of the link door.
fn places(carrier: Carrier, address: &str, doors: &[CarrierDoor]) -> Vec<String> {
    if carrier == Carrier::Tcp {
        return vec![address.to_owned()];
    }
    let Some((host, _)) = address.rsplit_once(':') else {
        return Vec::new();
    };
    let doors = doors.iter().filter(|door| door.carrier == carrier);
    doors.map(|door| format!("{host}:{}", door.port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doors() -> Vec<CarrierDoor> {
        let door = |carrier, port| CarrierDoor { carrier, port };
        vec![door(Carrier::Quic, 7400), door(Carrier::WebSocket, 443)]
    }

    fn told(spots: &[Spot]) -> Vec<String> {
        spots.iter().map(Spot::to_string).collect()
    }

    fn edge() -> Vec<String> {
        vec!["edge.test:7400".into()]
    }

    #[test]
    fn the_best_comes_first_and_then_what_worked() {
        let ladder = Ladder::new(Carriage::default(), false);
        let tcp = "edge.test:7400";
        let (quic, web) = ("edge.test:7400 (quic)", "edge.test:443 (websocket)");
        let all = |worked| told(&ladder.spots(&edge(), &doors(), (worked, None)));
        assert_eq!(all(None), [tcp, quic, web]);
        assert_eq!(all(Some(Carrier::WebSocket)), [web, tcp, quic]);
        let tcp_fails = (Some(Carrier::Tcp), Some(Carrier::Tcp));
        let others_first = ladder.spots(&edge(), &doors(), tcp_fails);
        assert_eq!(told(&others_first), [quic, web, tcp]);
        assert_eq!(told(&ladder.spots(&edge(), &[], tcp_fails)), [tcp]);
        let above = |carrier| told(&ladder.above(carrier, &edge(), &doors()));
        assert_eq!(above(Carrier::WebSocket), [tcp, quic]);
        assert!(above(Carrier::Tcp).is_empty());
        let datagrams = Ladder::new(Carriage::default(), true);
        assert_eq!(
            told(&datagrams.spots(&edge(), &doors(), (None, None))),
            [quic, tcp, web]
        );
    }

    #[test]
    fn a_proxy_is_the_way_for_what_it_can_carry() {
        let proxy = || Some("socks5://10.0.0.1:1080".parse().unwrap());
        let all = Ladder::new(
            Carriage {
                proxy: proxy(),
                ..Carriage::default()
            },
            true,
        );
        assert_eq!(
            told(&all.spots(&edge(), &doors(), (None, None))),
            [
                "edge.test:7400 through socks5://10.0.0.1:1080",
                "edge.test:443 (websocket) through socks5://10.0.0.1:1080",
            ]
        );
        let web = Ladder::new(
            Carriage {
                web_proxy: Some(Arc::new(move |_: &str| proxy())),
                only: Some(Carrier::WebSocket),
                ..Carriage::default()
            },
            false,
        );
        assert_eq!(
            told(&web.spots(&edge(), &doors(), (None, None))),
            [
                "edge.test:443 (websocket) through socks5://10.0.0.1:1080",
                "edge.test:443 (websocket)",
            ]
        );
    }
}
