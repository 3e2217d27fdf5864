//! Notices that this machine woke up or that its way to the edge changed.
//!
//! Every two seconds it looks at two things that need no rights and no
//! platform's own interface: which local address the system would use for a
//! few remote ones (connecting a UDP socket asks the routing table and sends
//! nothing), and how much longer the machine's clock ran than its processes'
//! clock, which stands still in suspend.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

const EVERY: Duration = Duration::from_secs(2);
/// Suspended for less than this, a link needs no attention.
const ASLEEP: Duration = Duration::from_secs(2);

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The machine slept.
    Woke,
    /// Another way leads to the edge than before.
    Route,
}

/// Local addresses towards the edge and towards anywhere (RFC 5737 and RFC
/// 3849 addresses, which follow the default route), `None` where no way leads.
type Routes = [Option<IpAddr>; 3];

/// Compares what it sees with what it saw.
#[derive(Debug, Default)]
struct Seen {
    routes: Option<Routes>,
    slept: Option<Duration>,
}

impl Seen {
    fn look(&mut self, routes: Routes, slept: Duration) -> Option<Change> {
        let before = self.slept.replace(slept).unwrap_or(slept);
        let woke = slept.saturating_sub(before) >= ASLEEP;
        let before = self.routes.replace(routes);
        // Losing a way is no reason to dial; another one is.
        let new_way = before.is_some_and(|before| {
            let pairs = before.iter().zip(&routes);
            pairs.into_iter().any(|(b, now)| now.is_some() && b != now)
        });
        if woke {
            Some(Change::Woke)
        } else {
            new_way.then_some(Change::Route)
        }
    }
}

pub(crate) struct Network {
    seen: Seen,
    tick: Interval,
    edge: Option<SocketAddr>,
}

impl Network {
    pub(crate) fn new() -> Self {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            seen: Seen::default(),
            tick,
            edge: None,
        }
    }

    /// From now on the way to this edge counts too.
    pub(crate) fn towards(&mut self, edge: SocketAddr) {
        if self.edge != Some(edge) {
            self.edge = Some(edge);
            self.seen.routes = None;
        }
    }

    /// Waits for the next change; may be dropped and called again.
    pub(crate) async fn changed(&mut self) -> Change {
        loop {
            self.tick.tick().await;
            let found = self.seen.look(routes(self.edge), slept());
            if let Some(change) = found {
                return change;
            }
        }
    }
}

/// A name for the network that this machine is in now: its own addresses
/// without their host part.
pub(crate) fn here() -> String {
    let [_, v4, v6] = routes(None);
    let net = |address| match address {
        Some(IpAddr::V4(v4)) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        Some(IpAddr::V6(v6)) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        None => "none".to_owned(),
    };
    format!("{} {}", net(v4), net(v6))
}

fn routes(edge: Option<SocketAddr>) -> Routes {
    let anywhere = [
        SocketAddr::from(([192, 0, 2, 1], 9)),
        SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9)),
    ];
    [
        edge.and_then(local_towards),
        local_towards(anywhere[0]),
        local_towards(anywhere[1]),
    ]
}

fn local_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any = match remote {
        SocketAddr::V4(_) => SocketAddr::from(([0, 0, 0, 0], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(remote).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// How long this machine has slept since it started.
#[cfg(target_os = "linux")]
fn slept() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let since = |clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Duration::new(seconds, nanos)
    };
    since(ClockId::Boottime).saturating_sub(since(ClockId::Monotonic))
}

/// Elsewhere only routes tell; a link that died in suspend is noticed by its
/// heartbeats.
#[cfg(not(target_os = "linux"))]
fn slept() -> Duration {
    Duration::ZERO
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const A: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    const B: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));

    #[test]
    fn another_way_or_a_wake_up_is_a_change() {
        let mut seen = Seen::default();
        let mut slept = Duration::from_secs(100);
        let mut look = |routes, more: u64| {
            slept += Duration::from_secs(more);
            seen.look(routes, slept)
        };
        assert_eq!(look([A, A, None], 0), None, "the first look has no before");
        assert_eq!(look([A, A, None], 0), None);
        assert_eq!(look([B, B, None], 0), Some(Change::Route));
        assert_eq!(look([None, None, None], 0), None, "a lost way");
        assert_eq!(look([B, B, None], 0), Some(Change::Route), "and its return");
        assert_eq!(look([B, B, None], 3), Some(Change::Woke));
        assert_eq!(look([B, B, None], 1), None, "a short nap");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_noticed_while_waiting() {
        let mut network = Network::new();
        network.seen.look([B, B, B], slept());
        assert_eq!(network.changed().await, Change::Route);
    }

    #[test]
    fn the_way_to_loopback_is_loopback() {
        let edge = SocketAddr::from((Ipv4Addr::LOCALHOST, 7400));
        assert_eq!(routes(Some(edge))[0], Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
