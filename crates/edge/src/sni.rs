//! Which tunnel a TLS connection is for, by the name that its first message
//! asks for. Nothing is decrypted here: where a service behind an agent ends the
//! TLS, the edge stays blind to all but the name.

use std::future::poll_fn;
use std::io::Cursor;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_model::{HostName, TunnelName};
use adit_routing::{Found, Target};
use rustls::server::{Accepted, Acceptor};
use tokio::time::{Instant, timeout_at};

use crate::http::HttpDoor;
use crate::visitor::Visitor;

/// Time for the first message.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of it: what fits a record, and post-quantum shares go far below.
const MOST: usize = 16 * 1024 + 5;

/// Why a connection leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoName {
    /// Its first bytes are something else.
    #[error("the connection does not begin with TLS")]
    NotTls,
    /// Its first message has none that is one.
    #[error("the first message asks for no name")]
    Unnamed,
    /// Its first message takes too long or too much.
    #[error("the first message did not come in time or is too long")]
    Slow,
    /// It ended.
    #[error("the visitor went away")]
    Gone,
    /// Nothing here is called so.
    #[error("no tunnel has the name")]
    Unknown,
    /// Its route may not be passed without a password.
    #[error("the route asks for a password, which TLS that is passed on cannot")]
    Guarded,
}

/// Finds tunnels by the names that visitors ask for: the HTTP door's routes,
/// so that a host leads to one place whatever is spoken.
pub(crate) struct ByName {
    http: Arc<HttpDoor>,
}

impl ByName {
    pub(crate) fn new(http: Arc<HttpDoor>) -> Arc<Self> {
        Arc::new(Self { http })
    }

    /// The tunnel, and what was read of the visitor to find it.
    pub(crate) async fn tunnel(
        &self,
        visitor: &mut Visitor,
    ) -> Result<(TunnelName, Vec<u8>), NoName> {
        let first = First::read(visitor, Instant::now() + DEADLINE).await;
        let first = first.map_err(|bad| bad.why)?;
        let host = first.host.as_ref().ok_or(NoName::Unnamed)?;
        Ok((self.name(host)?, first.bytes))
    }

    /// The tunnel that a host leads to.
    pub(crate) fn name(&self, host: &HostName) -> Result<TunnelName, NoName> {
        let routes = self.http.routes();
        Ok(match routes.table().lookup(host, b"/") {
            Some(Found::Tunnel(label)) => TunnelName::parse(label).map_err(|_| NoName::Unknown)?,
            Some(Found::Route(route)) if route.options.auth.is_some() => {
                return Err(NoName::Guarded);
            }
            Some(Found::Route(route)) => match &route.target {
                Target::Tunnel(name) => name.clone(),
                Target::Upstream(_) | Target::Redirect(_) => return Err(NoName::Unknown),
            },
            None => return Err(NoName::Unknown),
        })
    }
}

/// A visitor's first message, parsed once.
pub(crate) struct First {
    /// The name that it asks for, where it is one.
    pub(crate) host: Option<HostName>,
    /// The message, for whoever answers it.
    pub(crate) message: Accepted,
    /// All that was read, for whoever passes it on.
    pub(crate) bytes: Vec<u8>,
    /// How many of these the message has taken.
    taken: usize,
}

/// What came instead of a first message.
pub(crate) struct Bad {
    pub(crate) why: NoName,
    /// All that was read.
    pub(crate) bytes: Vec<u8>,
    /// What TLS answers to it, if anything.
    pub(crate) alert: Vec<u8>,
}

impl First {
    /// Reads it of a visitor.
    pub(crate) async fn read(visitor: &mut Visitor, deadline: Instant) -> Result<Self, Bad> {
        let mut hello = Hello::default();
        let read = timeout_at(deadline, poll_fn(|cx| hello.poll(cx, visitor))).await;
        let bytes = std::mem::take(&mut hello.bytes);
        match read.unwrap_or_else(|_| Err(NoName::Slow.into())) {
            Ok((message, taken)) => Ok(Self {
                host: asked(&message).ok(),
                message,
                bytes,
                taken,
            }),
            Err(Unread { why, alert }) => Err(Bad { why, bytes, alert }),
        }
    }

    /// What was read behind the message.
    pub(crate) fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }
}

/// Why no message was read, and what TLS answers to that.
struct Unread {
    why: NoName,
    alert: Vec<u8>,
}

impl From<NoName> for Unread {
    fn from(why: NoName) -> Self {
        let alert = Vec::new();
        Self { why, alert }
    }
}

/// A first message on its way.
#[derive(Default)]
struct Hello {
    bytes: Vec<u8>,
    acceptor: Acceptor,
}

impl Hello {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        visitor: &mut Visitor,
    ) -> Poll<Result<(Accepted, usize), Unread>> {
        loop {
            match visitor.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Err(NoName::Gone.into())),
                Poll::Pending => return Poll::Pending,
            }
            let before = self.bytes.len();
            if before >= MOST {
                return Poll::Ready(Err(NoName::Slow.into()));
            }
            self.bytes.resize((before + 2048).min(MOST), 0);
            let read = visitor.poll_read(cx, self.bytes.get_mut(before..).unwrap_or_default());
            let count = match &read {
                Poll::Ready(Ok(count)) => *count,
                _ => 0,
            };
            self.bytes.truncate(before + count);
            match read {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(NoName::Gone.into())),
                Poll::Pending => return Poll::Pending,
            }
            let fresh = self.bytes.get(before..).unwrap_or_default();
            if let Some((message, taken)) = digest(&mut self.acceptor, fresh)? {
                return Poll::Ready(Ok((message, before + taken)));
            }
        }
    }
}

/// The name that a TLS connection beginning with these bytes asks for; `None`
/// while its first message is not whole.
///
/// # Errors
/// See [`NoName`].
pub fn asked_name(bytes: &[u8]) -> Result<Option<HostName>, NoName> {
    match digest(&mut Acceptor::default(), bytes) {
        Ok(Some((message, _))) => asked(&message).map(Some),
        Ok(None) => Ok(None),
        Err(unread) => Err(unread.why),
    }
}

/// The name that a message asks for.
fn asked(message: &Accepted) -> Result<HostName, NoName> {
    let hello = message.client_hello();
    let name = hello.server_name().ok_or(NoName::Unnamed)?;
    HostName::parse(name).map_err(|_| NoName::Unnamed)
}

/// The first message, when it is whole with these bytes, and how many of them
/// it took.
fn digest(acceptor: &mut Acceptor, bytes: &[u8]) -> Result<Option<(Accepted, usize)>, Unread> {
    let mut rest = Cursor::new(bytes);
    while rest.position() < bytes.len() as u64 {
        // Fails only when its own buffer is full, which is a message too long.
        let read = acceptor.read_tls(&mut rest);
        if read.map_err(|_| Unread::from(NoName::Slow))? == 0 {
            break;
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(message)) => {
                let taken = usize::try_from(rest.position()).unwrap_or(bytes.len());
                return Ok(Some((message, taken)));
            }
            Err((_, mut refusal)) => {
                let (why, mut alert) = (NoName::NotTls, Vec::new());
                // Writing to a buffer cannot fail.
                let _ = refusal.write_all(&mut alert);
                return Err(Unread { why, alert });
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    fn hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn the_name_is_read_whatever_the_pieces() {
        let whole = hello("App.Example.Test");
        for end in 0..whole.len() {
            assert_eq!(asked_name(&whole[..end]), Ok(None), "{end}");
        }
        let name = HostName::parse("app.example.test").unwrap();
        assert_eq!(asked_name(&whole), Ok(Some(name.clone())));
        let mut acceptor = Acceptor::default();
        let last = whole.iter().map(|byte| digest(&mut acceptor, &[*byte]));
        let Some(Ok(Some((message, 1)))) = last.last() else {
            panic!("the message is whole");
        };
        assert_eq!(asked(&message), Ok(name));
    }

    #[test]
    fn what_names_nothing_is_told_apart() {
        assert_eq!(asked_name(b"GET / HTTP/1.1\r\n\r\n"), Err(NoName::NotTls));
        assert_eq!(asked_name(b"SSH-2.0-x\r\n"), Err(NoName::NotTls));
        // Addresses are not sent as names (RFC 6066 §3).
        assert_eq!(asked_name(&hello("192.0.2.1")), Err(NoName::Unnamed));
    }

    #[test]
    fn no_byte_of_it_panics() {
        let whole = hello("app.example.test");
        for at in 0..whole.len() {
            for flip in [1, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                // Any answer will do.
                let _ = asked_name(&bytes);
            }
        }
    }
}
