//! How many flows there are, on each port and of each address.
//!
//! Invariant: memory is bounded by the flows that are there. Who sends has
//! proved nothing about its address, so a datagram too many bans nobody and
//! costs no other door's visitors anything.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::AddressKey;
use crate::metrics::Metrics;

/// Most flows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowLimits {
    /// In all.
    pub(crate) all: usize,
    /// Of one port.
    pub(crate) port: usize,
    /// Of one address; 0 = no limit.
    pub(crate) address: usize,
}

#[derive(Debug, Default)]
struct Book {
    all: usize,
    ports: HashMap<NonZeroU16, usize>,
    addresses: HashMap<AddressKey, usize>,
}

/// The flows of all ports.
#[derive(Debug)]
pub(crate) struct Census {
    limits: FlowLimits,
    /// One for each visitor of any door.
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    book: Mutex<Book>,
}

/// A flow that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    census: Arc<Census>,
    port: NonZeroU16,
    address: AddressKey,
    _place: OwnedSemaphorePermit,
}

impl Census {
    pub(crate) fn new(
        limits: FlowLimits,
        places: Arc<Semaphore>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            limits,
            places,
            metrics,
            book: Mutex::default(),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a flow in; `None` when there are as many as may be.
    pub(super) fn enter(self: &Arc<Self>, port: NonZeroU16, ip: IpAddr) -> Option<Place> {
        let (limits, address) = (&self.limits, AddressKey::of(ip));
        let mut book = self.book();
        let of_port = book.ports.get(&port).copied().unwrap_or(0);
        let of_address = book.addresses.get(&address).copied().unwrap_or(0);
        if book.all >= limits.all
            || of_port >= limits.port
            || (limits.address > 0 && of_address >= limits.address)
        {
            return None;
        }
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        book.all += 1;
        book.ports.insert(port, of_port + 1);
        book.addresses.insert(address, of_address + 1);
        self.metrics.udp.open.set(book.all);
        Some(Place {
            census: Arc::clone(self),
            port,
            address,
            _place: place,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.census.book();
        book.all = book.all.saturating_sub(1);
        one_less(&mut book.ports, self.port);
        one_less(&mut book.addresses, self.address);
        self.census.metrics.udp.open.set(book.all);
    }
}

fn one_less<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, usize>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut entry) = counts.entry(key) {
        *entry.get_mut() = entry.get().saturating_sub(1);
        if *entry.get() == 0 {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_holds_and_nothing_is_remembered() {
        let limits = FlowLimits {
            all: 5,
            port: 3,
            address: 2,
        };
        let places = Arc::new(Semaphore::new(4));
        let census = Census::new(limits, Arc::clone(&places), Arc::default());
        let port = |number| NonZeroU16::new(number).unwrap();
        let ip = |last: u8| IpAddr::from([192, 0, 2, last]);
        let enter = |number, last| census.enter(port(number), ip(last));
        let a = enter(53, 1).unwrap();
        let b = enter(53, 1).unwrap();
        assert!(enter(54, 1).is_none(), "an address has two");
        let c = enter(53, 2).unwrap();
        assert!(enter(53, 3).is_none(), "a port has three");
        let d = enter(54, 3).unwrap();
        assert!(enter(54, 4).is_none(), "no visitor's place is left");
        drop(a);
        let e = enter(54, 4).unwrap();
        places.add_permits(10);
        let f = enter(55, 5).unwrap();
        assert!(enter(56, 6).is_none(), "there are five");
        assert_eq!(census.metrics.udp.open.get(), 5);
        drop((b, c, d, e, f));
        let book = census.book();
        assert!(book.all == 0 && book.ports.is_empty() && book.addresses.is_empty());
        drop(book);
        assert_eq!(places.available_permits(), 14);
    }
}
