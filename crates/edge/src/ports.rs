//! Public ports of TCP and UDP tunnels: opened and closed while the edge runs.
//!
//! A port belongs to a tunnel's name, not to an agent: all agents that share
//! the name are behind it, and it stays open while the name is kept for an
//! agent that comes back. Each port has a listener on each worker.
//!
//! Invariants: a name has one port and a port one name; only ports of the
//! configured ranges are ever opened.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::{fmt, io};

use adit_link::tasks::Tasks;
use adit_model::{Code, PortRanges, TunnelName};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::listen::{self, Counted};
use crate::tcp::{TcpDoor, To};
use crate::udp::{self, UdpDoor};

/// Ports that are tried for a tunnel that names none, beyond those known to be
/// taken: others may belong to other programs.
const MAX_TRIES: usize = 64;

/// Why a tunnel got no port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortRefusal {
    /// The edge opens no ports.
    #[error("this edge opens no ports for {0} tunnels")]
    NoPorts(Protocol),
    /// The port is in none of the edge's ranges.
    #[error("port {port} is not among those that this edge opens ({ranges})")]
    OutOfRange {
        /// The wanted port.
        port: NonZeroU16,
        /// What there is.
        ranges: PortRanges,
    },
    /// The owner gives this agent others.
    #[error("port {port} is not among those that the edge's owner gives this agent ({ranges})")]
    NotGiven {
        /// The wanted port.
        port: NonZeroU16,
        /// What there is for it.
        ranges: PortRanges,
    },
    /// The name has another port.
    #[error("the name has port {0} already, for the other agents behind it")]
    OtherPort(NonZeroU16),
    /// Another name has the port.
    #[error("port {0} belongs to another tunnel")]
    Taken(NonZeroU16),
    /// None is left.
    #[error("no port is free among {0}")]
    NoneFree(PortRanges),
    /// The system does not give it.
    #[error("port {0} cannot be opened on the edge: {1}")]
    System(NonZeroU16, #[source] io::Error),
}

impl PortRefusal {
    /// Its stable code.
    #[must_use]
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NoPorts(_) => Code::TUNNEL_KIND,
            _ => Code::PORT_REFUSED,
        }
    }
}

/// What is spoken on ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn scheme(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// Where ports are opened.
#[derive(Clone, Debug)]
pub(crate) struct PortSettings {
    /// The address that they stand on.
    pub(crate) bind: IpAddr,
    /// The ports that may be opened.
    pub(crate) ranges: PortRanges,
    /// The port of the TLS door, where it is open.
    pub(crate) tls: Option<u16>,
    /// What visitors call this machine.
    pub(crate) host: String,
}

/// Where the ports lead.
#[derive(Clone)]
pub(crate) enum Leads {
    Tcp(Arc<TcpDoor>),
    Udp(Arc<UdpDoor>),
}

impl Leads {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Tcp(_) => Protocol::Tcp,
            Self::Udp(_) => Protocol::Udp,
        }
    }
}

/// What serves the visitors of all ports.
pub(crate) struct Opener {
    pub(crate) to: Leads,
    pub(crate) counted: Counted,
    pub(crate) workers: Vec<Handle>,
    /// Owner of the listeners.
    pub(crate) doors: Tasks,
    /// Owner of the visitors.
    pub(crate) streams: Tasks,
}

impl Opener {
    /// Listeners at an address, where others of ours may be about to close.
    fn open_tcp(
        &self,
        door: &Arc<TcpDoor>,
        (address, ours): (SocketAddr, bool),
        name: &TunnelName,
        open: &Open,
    ) -> io::Result<()> {
        let bind = if ours {
            listen::bind_again
        } else {
            listen::bind
        };
        let listeners = bind(address, self.workers.len())?;
        for (listener, worker) in listeners.into_iter().zip(&self.workers) {
            let (door, name) = (Arc::clone(door), name.clone());
            let (streams, counted) = (self.streams.clone(), self.counted.clone());
            let (stop, held) = (open.stop.clone(), Arc::clone(&open.alive));
            self.doors.spawn_on(worker, async move {
                let _held = held;
                let serve = |socket, peer| {
                    let to = To::Port(name.clone());
                    Arc::clone(&door).serve(socket, peer, to)
                };
                let accept = listen::accept(listener, counted, &stop, &streams, serve);
                if let Err(error) = accept.await {
                    let port = address.port();
                    tracing::error!(code = %Code::DOOR_LOST, %error, %port, "a port has closed");
                }
            });
        }
        Ok(())
    }

    /// Sockets at an address, as for TCP.
    fn open_udp(
        &self,
        door: &Arc<UdpDoor>,
        (address, ours): (SocketAddr, bool),
        (name, number): (&TunnelName, NonZeroU16),
        open: &Open,
    ) -> io::Result<()> {
        let sockets = udp::bind(address, self.workers.len(), ours)?;
        for (socket, worker) in sockets.into_iter().zip(&self.workers) {
            let opened = udp::Opened {
                door: Arc::clone(door),
                number,
                name: name.clone(),
                stop: open.stop.clone(),
                _alive: Arc::clone(&open.alive),
            };
            self.doors.spawn_on(worker, udp::serve(opened, socket));
        }
        Ok(())
    }
}

/// The open ports.
pub(crate) struct Ports {
    settings: PortSettings,
    opener: Opener,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    names: HashMap<TunnelName, Port>,
    taken: HashMap<NonZeroU16, TunnelName>,
    /// Closed ports whose listeners may not have noticed yet.
    closing: HashMap<NonZeroU16, Weak<()>>,
}

struct Port {
    number: NonZeroU16,
    /// Claims whose tunnels are not in the registry yet.
    pending: u32,
    open: Open,
    /// The port that it changes to, when the claim for that one is settled.
    next: Option<(NonZeroU16, Open)>,
}

/// The listeners of a port; they close when this is dropped.
struct Open {
    stop: CancellationToken,
    /// Held by each listener, too.
    alive: Arc<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Port {
    /// Changes to the next port, or not; the one that is over.
    fn settle_next(&mut self, opened: bool) -> Option<(NonZeroU16, Open)> {
        let next = self.next.take()?;
        if !opened {
            return Some(next);
        }
        let number = std::mem::replace(&mut self.number, next.0);
        Some((number, std::mem::replace(&mut self.open, next.1)))
    }
}

impl Ports {
    pub(crate) fn new(settings: PortSettings, opener: Opener) -> Arc<Self> {
        Arc::new(Self {
            settings,
            opener,
            book: Mutex::default(),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `name` a port, open already or opened now, until
    /// [`Ports::settle`] finds that nobody holds the name. `own`: the ports that
    /// this agent may have, where that is not all; `is_live`: whether agents are
    /// behind the name, whose port then stays.
    ///
    /// # Errors
    /// See [`PortRefusal`]; nothing has changed then.
    pub(crate) fn claim(
        &self,
        name: &TunnelName,
        wanted: Option<NonZeroU16>,
        own: Option<&PortRanges>,
        is_live: impl Fn(&TunnelName) -> bool,
    ) -> Result<NonZeroU16, PortRefusal> {
        let mut book = self.book();
        let of_name = book.names.get(name).map(|port| port.number);
        if let Some(port) = wanted.or(of_name) {
            self.judge(port, own)?;
        }
        if let Some(port) = book.names.get_mut(name) {
            let now = port.next.as_ref().map_or(port.number, |next| next.0);
            if port.next.is_none() && wanted.is_none_or(|wanted| wanted == now) {
                port.pending += 1;
                return Ok(now);
            }
            if port.pending > 0 || is_live(name) {
                return Err(PortRefusal::OtherPort(now));
            }
        }
        let (number, open) = match wanted {
            None if self.settings.ranges.is_empty() => {
                return Err(PortRefusal::NoPorts(self.opener.to.protocol()));
            }
            None => self.choose(&book, name, own)?,
            Some(port) if book.taken.contains_key(&port) => return Err(PortRefusal::Taken(port)),
            Some(port) => {
                let open = self.open(&book, name, port);
                (
                    port,
                    open.map_err(|error| PortRefusal::System(port, error))?,
                )
            }
        };
        book.taken.insert(number, name.clone());
        match book.names.get_mut(name) {
            // The old one stays until it is sure that the tunnel opens.
            Some(port) => {
                port.pending += 1;
                port.next = Some((number, open));
            }
            None => {
                let port = Port {
                    number,
                    pending: 1,
                    open,
                    next: None,
                };
                book.names.insert(name.clone(), port);
            }
        }
        self.count(&book);
        Ok(number)
    }

    /// Whether an agent may have a port.
    fn judge(&self, port: NonZeroU16, own: Option<&PortRanges>) -> Result<(), PortRefusal> {
        let all = &self.settings.ranges;
        if all.is_empty() {
            return Err(PortRefusal::NoPorts(self.opener.to.protocol()));
        }
        if !all.contains(port) {
            let ranges = all.clone();
            return Err(PortRefusal::OutOfRange { port, ranges });
        }
        match own {
            Some(own) if !own.contains(port) => {
                let ranges = own.clone();
                Err(PortRefusal::NotGiven { port, ranges })
            }
            _ => Ok(()),
        }
    }

    /// The same port for the same name, as far as it is free.
    fn choose(
        &self,
        book: &Book,
        name: &TunnelName,
        own: Option<&PortRanges>,
    ) -> Result<(NonZeroU16, Open), PortRefusal> {
        let ranges = own.unwrap_or(&self.settings.ranges);
        let (count, first) = (ranges.len(), start(name));
        let all = (0..count).filter_map(|step| ranges.nth(first.wrapping_add(step) % count));
        let all = all.filter(|port| self.judge(*port, own).is_ok());
        let free = all.filter(|port| !book.taken.contains_key(port));
        let mut last = None;
        for port in free.take(MAX_TRIES) {
            match self.open(book, name, port) {
                Ok(open) => return Ok((port, open)),
                Err(error) => last = Some(PortRefusal::System(port, error)),
            }
        }
        Err(last.unwrap_or_else(|| PortRefusal::NoneFree(ranges.clone())))
    }

    fn open(&self, book: &Book, name: &TunnelName, port: NonZeroU16) -> io::Result<Open> {
        let address = SocketAddr::new(self.settings.bind, port.get());
        let opener = &self.opener;
        let ours = book
            .closing
            .get(&port)
            .is_some_and(|held| held.strong_count() > 0);
        let open = Open {
            stop: opener.doors.stopping().child_token(),
            alive: Arc::new(()),
        };
        match &opener.to {
            Leads::Tcp(door) => opener.open_tcp(door, (address, ours), name, &open)?,
            Leads::Udp(door) => opener.open_udp(door, (address, ours), (name, port), &open)?,
        }
        tracing::info!(%port, %name, "port is open");
        Ok(open)
    }

    /// The claim is in the registry now (`opened`), or was refused there: closes
    /// the port when nobody `keeps` the name.
    pub(crate) fn settle(
        &self,
        name: &TunnelName,
        opened: bool,
        keeps: impl Fn(&TunnelName) -> bool,
    ) {
        let mut book = self.book();
        let mut over = None;
        if let Some(port) = book.names.get_mut(name) {
            port.pending = port.pending.saturating_sub(1);
            over = port.settle_next(opened);
        }
        if let Some((number, open)) = over {
            book.free(number, &open);
        }
        book.close_unless(name, keeps);
        self.count(&book);
    }

    fn count(&self, book: &Book) {
        let metrics = &self.opener.counted.metrics;
        let ports = match self.opener.to {
            Leads::Tcp(_) => &metrics.tcp.ports,
            Leads::Udp(_) => &metrics.udp.ports,
        };
        ports.set(book.names.len());
    }

    /// A tunnel was closed: so is its port, unless somebody `keeps` the name.
    pub(crate) fn closed(&self, name: &TunnelName, keeps: impl Fn(&TunnelName) -> bool) {
        let mut book = self.book();
        book.close_unless(name, keeps);
        self.count(&book);
    }

    /// Closes the ports of all names that nobody `keeps`.
    pub(crate) fn sweep(&self, keeps: impl Fn(&TunnelName) -> bool) {
        let mut book = self.book();
        let names: Vec<_> = book.names.keys().cloned().collect();
        for name in names {
            book.close_unless(&name, &keeps);
        }
        self.count(&book);
    }

    /// Where visitors find a TLS tunnel, unless the edge has no door for it.
    pub(crate) fn tls_url(&self, name: &TunnelName) -> Option<String> {
        let host = format!("https://{name}.{}", self.settings.host);
        Some(match self.settings.tls? {
            443 => host,
            port => format!("{host}:{port}"),
        })
    }

    /// Where visitors find the tunnels of this name, while it has a port.
    pub(crate) fn url_of(&self, name: &TunnelName) -> Option<String> {
        let port = self.book().names.get(name)?.number;
        Some(self.url(port))
    }

    /// Where visitors find a tunnel with this port.
    pub(crate) fn url(&self, port: NonZeroU16) -> String {
        let scheme = self.opener.to.protocol().scheme();
        format!("{scheme}://{}:{port}", self.settings.host)
    }
}

impl Book {
    fn close_unless(&mut self, name: &TunnelName, keeps: impl Fn(&TunnelName) -> bool) {
        let settled = self.names.get(name).is_some_and(|port| port.pending == 0);
        if settled && !keeps(name) {
            self.close(name);
        }
    }

    fn close(&mut self, name: &TunnelName) {
        if let Some(port) = self.names.remove(name) {
            self.free(port.number, &port.open);
            if let Some((number, open)) = &port.next {
                self.free(*number, open);
            }
            tracing::info!(port = %port.number, %name, "port is closed");
        }
    }

    /// The port may be had again, beside listeners that are still closing.
    fn free(&mut self, number: NonZeroU16, open: &Open) {
        self.taken.remove(&number);
        self.closing.retain(|_, held| held.strong_count() > 0);
        self.closing.insert(number, Arc::downgrade(&open.alive));
    }
}

/// FNV-1a: any spread will do, but the same in every run.
fn start(name: &TunnelName) -> usize {
    let bytes = name.as_str().bytes();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests;
