//! Whether the other side of a connection still lives.
//!
//! A machine refuses datagrams to a port that nobody has any more: the one
//! sign of a process that was killed. Anybody can forge it, so it is a hint. It
//! makes the edge ask, and only who does not answer is gone.
//!
//! A refusal needs something to refuse. While a link has streams its agent is
//! asked now and then, so that visitors who wait in silence learn of its end
//! as soon as the others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::Connection;
use tokio::sync::{Notify, SetOnce};
use tokio::time::sleep;

use crate::uses::Uses;

/// How often who has streams is asked.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// What arrived before the hint and waits to be read is no answer.
const SETTLE: Duration = Duration::from_millis(100);
/// How long an answer may take, where that is more than three round trips: the
/// library repeats a lost question three times in it.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who wants to know of hints about an address.
#[derive(Default)]
pub(super) struct Hints(Mutex<HashMap<SocketAddr, Vec<Arc<Notify>>>>);

impl Hints {
    /// Somebody says that nobody is there.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) fn tell(&self, address: SocketAddr) {
        if let Some(places) = self.lock().get(&plain(address)) {
            places.iter().for_each(|place| place.notify_one());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Vec<Arc<Notify>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl Hints {
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.lock().keys().copied().collect()
    }

    pub(super) fn watch(&self, at: SocketAddr) -> Arc<Notify> {
        let hinted = Arc::<Notify>::default();
        self.lock().insert(plain(at), vec![Arc::clone(&hinted)]);
        hinted
    }
}

fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A connection's place among the hints.
struct Place {
    hints: Arc<Hints>,
    at: SocketAddr,
    hinted: Arc<Notify>,
}

impl Place {
    fn new(hints: &Arc<Hints>, at: SocketAddr) -> Self {
        let place = Self {
            hints: Arc::clone(hints),
            at: plain(at),
            hinted: Arc::default(),
        };
        place.enter();
        place
    }

    fn enter(&self) {
        let mut all = self.hints.lock();
        all.entry(self.at)
            .or_default()
            .push(Arc::clone(&self.hinted));
    }

    fn leave(&self) {
        let mut all = self.hints.lock();
        if let Some(places) = all.get_mut(&self.at) {
            places.retain(|place| !Arc::ptr_eq(place, &self.hinted));
            if places.is_empty() {
                all.remove(&self.at);
            }
        }
    }

    /// An agent's address may change.
    fn follow(&mut self, to: SocketAddr) {
        if self.at != plain(to) {
            self.leave();
            self.at = plain(to);
            self.enter();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What is known of the other side.
pub(super) struct Life {
    connection: Connection,
    hints: Arc<Hints>,
    uses: SetOnce<Arc<Uses>>,
}

impl Life {
    pub(super) fn new(connection: Connection, hints: Arc<Hints>) -> Self {
        Self {
            connection,
            hints,
            uses: SetOnce::new(),
        }
    }

    /// It carries a link that has these streams.
    pub(super) fn carries(&self, uses: &Arc<Uses>) {
        // The same ones for each of its channels.
        let _ = self.uses.set(Arc::clone(uses));
    }

    /// Ready when nobody is there any more.
    pub(super) async fn over(&self) {
        let mut place = Place::new(&self.hints, self.connection.remote_address());
        let hinted = Arc::clone(&place.hinted);
        let gone = async {
            // Hints that come meanwhile are one more question behind it.
            hinted.notified().await;
            while self.lives().await {
                hinted.notified().await;
            }
        };
        tokio::select! {
            () = gone => {}
            () = self.keep_asking(&mut place) => {}
        }
        let peer = self.connection.remote_address();
        tracing::debug!(%peer, "its port is closed, and nothing comes from there");
    }

    /// Never ready.
    async fn keep_asking(&self, place: &mut Place) {
        let uses = self.uses.wait().await;
        loop {
            uses.some().await;
            sleep(ASK_EVERY).await;
            place.follow(self.connection.remote_address());
            if uses.now() > 0 {
                self.ask();
            }
        }
    }

    /// An empty datagram belongs to no flow; the other side's QUIC acknowledges
    /// it. False when the other side takes none.
    fn ask(&self) -> bool {
        self.connection.send_datagram(Bytes::new()).is_ok()
    }

    /// What has come of the acknowledgements, which nobody can forge.
    fn heard(&self) -> u64 {
        self.connection.stats().frame_rx.acks
    }

    async fn lives(&self) -> bool {
        sleep(SETTLE).await;
        let before = self.heard();
        let is_asked = self.ask();
        sleep(PATIENCE.max(self.connection.rtt() * 3)).await;
        !is_asked || self.heard() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_follows_its_address_and_leaves_nothing_behind() {
        let hints = Arc::<Hints>::default();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut moved = Place::new(&hints, at("192.0.2.1:7"));
        let other = Place::new(&hints, at("[::ffff:192.0.2.1]:7"));
        assert_eq!(hints.lock().len(), 1);
        moved.follow(at("[2001:db8::1]:7"));
        assert_eq!((hints.lock().len(), moved.at), (2, at("[2001:db8::1]:7")));
        drop(other);
        hints.tell(at("192.0.2.1:7"));
        assert_eq!(hints.lock().len(), 1);
        drop(moved);
        assert!(hints.lock().is_empty());
    }
}
