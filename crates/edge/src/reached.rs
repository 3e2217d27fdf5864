//! Where agents reach an edge from outside: what its join strings carry and
//! what each link is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_model::{Carrier, CarrierDoor, Credential, JoinString, PublicKey};

use crate::config::{EdgeConfig, PublicUrl};

/// Where agents reach an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// `host:port` of the link door.
    pub addresses: Vec<String>,
    /// Doors for other carriers on the same host.
    pub doors: Vec<CarrierDoor>,
}

impl Reached {
    /// As the configuration says it.
    #[must_use]
    pub fn configured(config: &EdgeConfig) -> Self {
        let doors = &config.doors;
        Self::at(config, doors.link, doors.quic, doors.https)
    }

    /// Where the configuration says, else where the doors stand.
    pub(crate) fn at(
        config: &EdgeConfig,
        link: SocketAddr,
        quic: Option<SocketAddr>,
        https: Option<SocketAddr>,
    ) -> Self {
        let public = config.server.public.as_deref();
        let mut doors = Vec::new();
        if let Some(quic) = quic {
            // One number outside for both, as it is inside.
            let shared = quic.port() == link.port();
            let outside = public.filter(|_| shared).and_then(port_of);
            doors.push(CarrierDoor {
                carrier: Carrier::Quic,
                port: outside.unwrap_or(quic.port()),
            });
        }
        // The owner's own TLS proxy passes WebSockets on as well.
        let web = config.server.url.as_ref().and_then(PublicUrl::https_port);
        if let Some(port) = web.or(https.map(|https| https.port())) {
            doors.push(CarrierDoor {
                carrier: Carrier::WebSocket,
                port,
            });
        }
        doors.retain(|door| door.port > 0);
        Self {
            addresses: vec![link_address(public, link)],
            doors,
        }
    }

    /// A join string of this edge.
    #[must_use]
    pub fn join(&self, edge: PublicKey, credential: Credential) -> JoinString {
        JoinString {
            addresses: self.addresses.clone(),
            doors: self.doors.clone(),
            edge,
            credential,
        }
    }
}

fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':')?.1.parse().ok()
}

/// Where agents reach the link door: where the configuration says, else where
/// it stands; a door on every address is reached from this machine.
fn link_address(public: Option<&str>, link: SocketAddr) -> String {
    let ip = match link.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    public.map_or_else(
        || SocketAddr::new(ip, link.port()).to_string(),
        str::to_owned,
    )
}
