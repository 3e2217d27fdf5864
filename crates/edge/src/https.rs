//! The HTTPS door: one port for names whose TLS ends here and for those whose
//! TLS a service behind an agent ends.
//!
//! The first message is read once. A name that a TLS tunnel has is passed on
//! with every byte as it came; for any other the handshake is made here, and
//! what is inside goes the way of plain HTTP. Until a handshake is done it
//! costs the visitor a place, a connection and a request of its address, and a
//! bounded time; who sends something else again and again is banned.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_wire::TunnelKind;
use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::http::{HttpDoor, Place, answer_plain, serve_counted};
use crate::limits::{ConnectionPermit, Strike};
use crate::metrics::TlsOutcome;
use crate::sni::{Bad, ByName, First, NoName};
use crate::tcp::{TcpDoor, To};
use crate::tls::stream::{HandshakeError, TlsStream};
use crate::tls::{Certificates, Served, provider};
use crate::transport::Transport;
use crate::visitor::Visitor;

/// The HTTPS door; all workers share one.
pub(crate) struct HttpsDoor {
    http: Arc<HttpDoor>,
    streams: Arc<TcpDoor>,
    names: Arc<ByName>,
    certificates: Arc<Certificates>,
    config: Arc<ServerConfig>,
    /// For a whole handshake, its first message included.
    time: Duration,
}

/// A visitor that was counted in, and of whom more is known now.
struct Met {
    visitor: Visitor,
    peer: SocketAddr,
    counted: (Place, ConnectionPermit),
    /// `None`: its TLS ends here, and has begun.
    to: Option<To>,
}

impl HttpsDoor {
    /// A door.
    ///
    /// # Errors
    /// No keys for tickets can be made.
    pub(crate) fn new(
        (http, streams, names): (Arc<HttpDoor>, Arc<TcpDoor>, Arc<ByName>),
        certificates: Arc<Certificates>,
        time: Duration,
    ) -> Result<Arc<Self>, rustls::Error> {
        let config = server_config(&certificates)?;
        Ok(Arc::new(Self {
            http,
            streams,
            names,
            certificates,
            config: Arc::new(config),
            time,
        }))
    }

    /// Serves a visitor until the connection ends.
    pub(crate) async fn serve(
        self: Arc<Self>,
        socket: TcpStream,
        peer: SocketAddr,
        stop: CancellationToken,
    ) {
        // Boxed, and dropped before the visitor is served for hours.
        let met = Box::pin(stop.run_until_cancelled(self.meet(socket, peer))).await;
        let Some(Some(met)) = met else { return };
        let Met {
            visitor,
            peer,
            counted,
            to,
        } = met;
        match to {
            None => serve_counted(visitor, peer, counted, stop).await,
            Some(to) => Box::pin(self.streams.serve_counted(visitor, peer, to)).await,
        }
    }

    async fn meet(&self, mut socket: TcpStream, peer: SocketAddr) -> Option<Met> {
        let place = Place::take(Arc::clone(&self.http))?;
        let peer = self.streams.balancers.visitor(&mut socket, peer).await?;
        let now = Instant::now();
        let permit = self.streams.limits.connect(peer.ip(), now.into_std());
        let permit = permit.ok()?;
        let mut visitor = Visitor::new(socket);
        let deadline = now + self.time;
        let first = match First::read(&mut visitor, deadline).await {
            Ok(first) => first,
            Err(bad) => {
                self.refuse(visitor, peer, &bad).await;
                return None;
            }
        };
        if let Some(name) = self.passed_on(&first) {
            self.count(TlsOutcome::Passed);
            return Some(Met {
                visitor,
                peer,
                counted: (place, permit),
                to: Some(To::Named(name, first.bytes)),
            });
        }
        // A handshake costs more than a request: it counts as one.
        if permit.request(Instant::now().into_std()).is_err() {
            self.count(TlsOutcome::Limited);
            return None;
        }
        let visitor = self.begin(visitor, peer, first, deadline).await?;
        Some(Met {
            visitor,
            peer,
            counted: (place, permit),
            to: None,
        })
    }

    /// The tunnel that ends the TLS of this name itself.
    fn passed_on(&self, first: &First) -> Option<adit_model::TunnelName> {
        let name = self.names.name(first.host.as_ref()?).ok()?;
        let registry = &self.streams.registry;
        registry.keeps(&name, TunnelKind::Tls).then_some(name)
    }

    /// Makes the handshake.
    async fn begin(
        &self,
        visitor: Visitor,
        peer: SocketAddr,
        first: First,
        deadline: Instant,
    ) -> Option<Visitor> {
        let Some(Transport::Plain(socket)) = visitor.into_transport() else {
            return None;
        };
        let certificate = self.certificates.find(first.host.as_ref())?;
        let served = Served {
            asked: first.host.clone(),
            certificate,
        };
        let begun = Instant::now();
        let rest = first.rest().to_vec();
        let config = Arc::clone(&self.config);
        let accept = TlsStream::accept(socket, first.message, rest, config, served);
        let outcome = match timeout_at(deadline, accept).await {
            Ok(Ok(stream)) => {
                let tls = &self.streams.metrics.tls;
                tls.seconds.observe(begun.elapsed());
                tls.resumed.add(u64::from(stream.is_resumed()));
                self.count(TlsOutcome::Done);
                return Some(Visitor::over(Transport::Tls(Box::new(stream))));
            }
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a TLS handshake failed");
                match error {
                    HandshakeError::Gone(_) => TlsOutcome::Gone,
                    HandshakeError::Refused(_) => TlsOutcome::Refused,
                    HandshakeError::Failed(_) | HandshakeError::TooLong => TlsOutcome::Failed,
                }
            }
            Err(_) => TlsOutcome::Slow,
        };
        self.strike(peer, outcome);
        None
    }

    /// Answers who does not begin with TLS.
    async fn refuse(&self, mut visitor: Visitor, peer: SocketAddr, bad: &Bad) {
        let outcome = match bad.why {
            NoName::Gone => TlsOutcome::Gone,
            NoName::Slow => TlsOutcome::Slow,
            _ => TlsOutcome::NotTls,
        };
        self.strike(peer, outcome);
        if looks_like_http(&bad.bytes) {
            return answer_plain(visitor, &self.http).await;
        }
        if let Some(socket) = visitor.plain() {
            // What a new socket does not take at once is not worth waiting for.
            let _ = socket.try_write(&bad.alert);
        }
    }

    /// Counts an end, and as a failure of the visitor's what it alone is to be
    /// blamed for: who does not trust the certificate or goes away is no enemy.
    fn strike(&self, peer: SocketAddr, outcome: TlsOutcome) {
        self.count(outcome);
        if matches!(
            outcome,
            TlsOutcome::NotTls | TlsOutcome::Slow | TlsOutcome::Failed
        ) {
            let now = Instant::now().into_std();
            let limits = &self.streams.limits;
            if limits.strike(peer.ip(), Strike::Handshake, now) {
                tracing::warn!(address = %peer.ip(), "banned for TLS handshakes that were none");
            }
        }
    }

    fn count(&self, outcome: TlsOutcome) {
        self.streams.metrics.tls.handshakes.of(outcome).add(1);
    }
}

/// Whether the first bytes are a method and a space (RFC 9112 §3) rather than
/// TLS.
fn looks_like_http(bytes: &[u8]) -> bool {
    let letters = bytes.iter().take_while(|byte| byte.is_ascii_uppercase());
    let length = letters.count();
    (3..=16).contains(&length) && bytes.get(length) == Some(&b' ')
}

/// How TLS is spoken: 1.3 and 1.2, sessions that are resumed by tickets, no
/// certificate of the visitor's, HTTP/1.1.
fn server_config(certificates: &Arc<Certificates>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    // Tickets hold the session: nothing is remembered here.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_told_from_other_things() {
        for bytes in ["GET / HTTP/1.1\r\n", "OPTIONS * HTTP/1.1", "GET "] {
            assert!(looks_like_http(bytes.as_bytes()), "{bytes}");
        }
        for bytes in [
            "",
            "GET",
            "SSH-2.0-x\r\n",
            "get / HTTP/1.1",
            "A b",
            "\x16\x03\x01",
        ] {
            assert!(!looks_like_http(bytes.as_bytes()), "{bytes}");
        }
    }
}
