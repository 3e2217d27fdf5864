//! Connections that ask to become a link: handed on before anything of a
//! request is looked at.
//!
//! An agent behind a proxy that lets nothing but HTTP through asks for a
//! WebSocket under a path that changes with time and is known to both sides
//! only. Who does not know one is a visitor like any other: the request goes
//! its way through routes, log and answers as if this was not here.

use std::net::SocketAddr;
use std::sync::Arc;

use adit_http1::{Method, Request, Upgrade, Version, client_address};
use aws_lc_rs::digest;
use data_encoding::BASE64;

use super::HttpDoor;
use super::buffer::Work;
use super::server::Connection;
use crate::transport::Transport;

/// What a server adds to the visitor's key (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Hexadecimal digits of a link's path.
const DIGITS: usize = 16;

/// Who takes connections that ask for a link by WebSocket.
pub trait LinkUpgrade: Send + Sync {
    /// Whether a link may be asked for by this id now; no more than a look-up.
    fn knows(&self, id: [u8; 8]) -> bool;

    /// Takes a connection over. The 101 has been sent; what follows are frames.
    /// Whoever takes it bounds it: it counts as a visitor's no more.
    fn take(&self, id: [u8; 8], upgraded: Upgraded);
}

/// A connection of which nothing is HTTP any more.
#[derive(Debug)]
pub struct Upgraded {
    /// The connection.
    pub transport: Transport,
    /// What came behind the request, mostly nothing.
    pub early: Vec<u8>,
    /// Who is at its other end.
    pub peer: SocketAddr,
}

/// Who asks for what.
pub(super) struct Asked {
    pub(super) hook: Arc<dyn LinkUpgrade>,
    pub(super) id: [u8; 8],
    accept: String,
    pub(super) peer: SocketAddr,
}

impl HttpDoor {
    /// Sets who takes connections for links; the first one stays.
    pub fn set_link_upgrade(&self, hook: Arc<dyn LinkUpgrade>) {
        // Set once, while the edge is put together.
        let _ = self.link.set(hook);
    }
}

impl Connection {
    /// Whether the request in `work` asks for a link that is known.
    pub(super) fn asks_for_link(&self, work: &Work) -> Option<Box<Asked>> {
        let hook = self.door.link.get()?;
        let request = work.head.view(work.input.head());
        if request.upgrade() != Upgrade::WebSocket {
            return None;
        }
        let id = link_id(&request)?;
        let accept = accept(&request)?;
        if !hook.knows(id) {
            return None;
        }
        let (peer, trusted) = (self.peer.address, &self.door.parts.settings.trusted);
        let behind = self.peer.trusted.then(|| {
            let is_trusted = |ip| trusted.iter().any(|net| net.contains(&ip));
            client_address(&request, peer.ip(), is_trusted).address
        });
        Some(Box::new(Asked {
            hook: Arc::clone(hook),
            id,
            accept,
            peer: behind.map_or(peer, |ip| SocketAddr::new(ip, peer.port())),
        }))
    }
}

impl Asked {
    /// Appends the answer that makes it one.
    pub(super) fn answer(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        );
        out.extend_from_slice(self.accept.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
    }
}

/// The id of a link's path: a slash and 16 digits.
fn link_id(request: &Request<'_>) -> Option<[u8; 8]> {
    let target = request.target();
    let digits = target.path.strip_prefix(b"/")?;
    let fits = request.method() == Method::Get
        && request.version() == Version::Http11
        && target.query.is_none()
        && digits.len() == DIGITS
        && !request.has_body();
    if !fits {
        return None;
    }
    data_encoding::HEXLOWER.decode(digits).ok()?.try_into().ok()
}

/// The proof that the upgrade was understood (RFC 6455 §4.2.2); `None` when it
/// is not asked for as it should be.
fn accept(request: &Request<'_>) -> Option<String> {
    let key = request.only("sec-websocket-key")?;
    let version = request.only("sec-websocket-version")?;
    if version != b"13" || BASE64.decode(key).ok()?.len() != 16 {
        return None;
    }
    let proof = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &[key, GUID].concat());
    Some(BASE64.encode(proof.as_ref()))
}
