//! One socket of a port, with its reader and its flows.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_model::{Code, TunnelName};
use tokio_util::sync::CancellationToken;

use super::UdpDoor;
use super::flow::{self, Entry, Flow};
use super::inbox::{Inbox, Pushed};
use super::socket::{Arrived, Door};
use crate::metrics::UdpDrop;

/// Calls for datagrams before the flows have their turn.
const TURN: usize = 8;
/// Pause after a failed read: asking again at once would only burn the
/// processor.
const PAUSE: Duration = Duration::from_millis(50);

/// What a port is opened with.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) door: Arc<UdpDoor>,
    pub(crate) number: NonZeroU16,
    /// The tunnel that it leads to.
    pub(crate) name: TunnelName,
    pub(crate) stop: CancellationToken,
    /// Held as long as the socket is there.
    pub(crate) _alive: Arc<()>,
}

/// Who a flow is: the visitor, and the address of ours that it wrote to, where
/// there are several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) from: SocketAddr,
    pub(super) own: Option<IpAddr>,
}

/// A socket and its flows.
pub(super) struct Port {
    pub(super) opened: Opened,
    pub(super) socket: Door,
    flows: Mutex<HashMap<Key, Known>>,
}

/// A flow in the table.
struct Known {
    inbox: Arc<Inbox>,
    /// How many bans had been spoken when its visitor was last judged.
    judged: u64,
}

/// Serves one socket of a port until it is stopped.
pub(crate) async fn serve(opened: Opened, socket: std::net::UdpSocket) {
    let number = opened.number;
    if let Err(error) = read(opened, socket).await {
        tracing::error!(code = %Code::DOOR_LOST, %error, port = %number, "a port has closed");
    }
}

async fn read(opened: Opened, socket: std::net::UdpSocket) -> io::Result<()> {
    let stop = opened.stop.clone();
    let port = Arc::new(Port {
        opened,
        socket: Door::new(socket)?,
        flows: Mutex::default(),
    });
    loop {
        tokio::select! {
            ready = port.socket.readable() => ready?,
            () = stop.cancelled() => return Ok(()),
        }
        match port.turn() {
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => {
                // What the system tells of one visitor is no end of the port.
                tracing::debug!(%error, "a UDP port could not be read");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

impl Port {
    fn flows(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what there is, until it is time for the flows.
    fn turn(self: &Arc<Self>) -> io::Result<()> {
        for _ in 0..TURN {
            let mut much = false;
            let found = self.socket.receive(|arrived| much |= self.arrived(arrived));
            if !found? || much {
                break;
            }
        }
        Ok(())
    }

    /// Hands datagrams of one visitor to its flow; whether much waits there.
    fn arrived(self: &Arc<Self>, arrived: &Arrived<'_>) -> bool {
        let key = Key {
            from: arrived.from,
            own: self.socket.own(arrived.to),
        };
        let known = self.known(&key);
        let inbox = known.unwrap_or_else(|| self.begin(key, arrived.to));
        let door = &self.opened.door;
        let inbox = match inbox {
            Ok(inbox) => inbox,
            Err(why) => {
                door.dropped(why, arrived.datagrams().count());
                return false;
            }
        };
        let mut is_much = false;
        for datagram in arrived.datagrams() {
            match inbox.push(datagram) {
                Pushed::Taken { much } => is_much |= much,
                Pushed::Full => door.dropped(UdpDrop::Queue, 1),
                Pushed::Refused => door.dropped(UdpDrop::NoBackend, 1),
            }
        }
        is_much
    }

    /// The flow of a visitor that has one and is not banned.
    fn known(&self, key: &Key) -> Option<Result<Arc<Inbox>, UdpDrop>> {
        let mut flows = self.flows();
        let known = flows.get_mut(key)?;
        let limits = &self.opened.door.limits;
        let spoken = limits.bans_spoken();
        if known.judged != spoken {
            // A flow has no end that a ban could wait for.
            let now = tokio::time::Instant::now().into_std();
            if limits.banned(key.from.ip(), now).is_some() {
                return Some(Err(UdpDrop::Banned));
            }
            known.judged = spoken;
        }
        Some(Ok(Arc::clone(&known.inbox)))
    }

    /// A visitor's first datagram.
    fn begin(self: &Arc<Self>, key: Key, to: Option<IpAddr>) -> Result<Arc<Inbox>, UdpDrop> {
        let opened = &self.opened;
        let judged = opened.door.limits.bans_spoken();
        if !can_be_answered(key.from, to, opened.number) {
            return Err(UdpDrop::Source);
        }
        let admitted = opened.door.admit(&opened.name, key.from, opened.number);
        let (place, visit) = admitted.inspect_err(|why| self.tell(key.from, *why))?;
        let inbox = Arc::new(Inbox::new());
        let known = Known {
            inbox: Arc::clone(&inbox),
            judged,
        };
        self.flows().insert(key, known);
        let entry = Entry::new(Arc::clone(self), key, Arc::clone(&inbox));
        let flow = Flow::new(entry, place, visit);
        opened.door.tasks.spawn(flow::run(flow));
        Ok(inbox)
    }

    fn tell(&self, from: SocketAddr, why: UdpDrop) {
        let door = &self.opened.door;
        let now = tokio::time::Instant::now().into_std();
        if let Some(times) = door.seldom.one_more(now) {
            let name = &self.opened.name;
            tracing::info!(peer = %from, %name, ?why, times, "datagrams of visitors were dropped");
        }
    }

    /// The flow is over: the next datagram begins another.
    pub(super) fn forget(&self, key: &Key, inbox: &Arc<Inbox>) {
        let mut flows = self.flows();
        let held = flows.get(key).map(|known| &known.inbox);
        if held.is_some_and(|held| Arc::ptr_eq(held, inbox)) {
            flows.remove(key);
        }
        if flows.is_empty() {
            flows.shrink_to(16);
        }
    }
}

/// Whether somebody is behind this address who could read an answer: no port
/// 0, no group of machines, and not this port itself, to which a forged sender
/// would have it speak without end.
fn can_be_answered(from: SocketAddr, to: Option<IpAddr>, own: NonZeroU16) -> bool {
    let (ip, to) = (from.ip().to_canonical(), to.map(|to| to.to_canonical()));
    let of_many = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_multicast(),
        IpAddr::V6(v6) => v6.is_multicast(),
    };
    let itself = from.port() == own.get() && to == Some(ip);
    from.port() != 0 && !ip.is_unspecified() && !of_many(ip) && !to.is_some_and(of_many) && !itself
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_be_answered_begins_no_flow() {
        let own = NonZeroU16::new(5353).unwrap();
        let judged = |from: &str, to: &str| {
            let to = to.parse().ok();
            can_be_answered(from.parse().unwrap(), to, own)
        };
        for (from, to) in [
            ("192.0.2.1:1", "192.0.2.9"),
            ("[2001:db8::1]:5353", "2001:db8::9"),
            ("127.0.0.1:40000", "127.0.0.1"),
            ("192.0.2.1:5353", ""),
        ] {
            assert!(judged(from, to), "{from} {to}");
        }
        for (from, to) in [
            ("192.0.2.1:0", "192.0.2.9"),
            ("0.0.0.0:1", "192.0.2.9"),
            ("[::]:1", "::1"),
            ("255.255.255.255:1", "192.0.2.9"),
            ("224.0.0.251:5353", "192.0.2.9"),
            ("[ff02::fb]:1", "::1"),
            ("[::ffff:224.0.0.1]:1", "::1"),
            ("192.0.2.1:1", "255.255.255.255"),
            ("192.0.2.1:1", "224.0.0.251"),
            ("127.0.0.1:5353", "127.0.0.1"),
            ("[::ffff:127.0.0.1]:5353", "127.0.0.1"),
        ] {
            assert!(!judged(from, to), "{from} {to}");
        }
    }
}
