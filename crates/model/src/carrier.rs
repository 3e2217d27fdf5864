//! What a link's bytes travel in.

use std::fmt;
use std::str::FromStr;

/// A way for a link's bytes from the agent to the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Carrier {
    /// One TCP connection a channel.
    Tcp = 1,
    /// One QUIC connection a link, one stream a channel (RFC 9000), datagrams
    /// as datagrams (RFC 9221).
    Quic = 2,
    /// One WebSocket (RFC 6455) over TLS a channel: what passes where only web
    /// pages do.
    WebSocket = 3,
}

impl Carrier {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Quic, Self::WebSocket];

    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The carrier of a number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.number() == number)
    }

    /// Its name in configuration, status and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Quic => "quic",
            Self::WebSocket => "websocket",
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The text names no carrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a carrier is \"tcp\", \"quic\" or \"websocket\"")]
pub struct NoCarrier;

impl FromStr for Carrier {
    type Err = NoCarrier;

    fn from_str(text: &str) -> Result<Self, NoCarrier> {
        let found = Self::ALL.into_iter().find(|one| one.as_str() == text);
        found.ok_or(NoCarrier)
    }
}

/// A door of an edge beside the one that its address names, on the same host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CarrierDoor {
    /// What it takes.
    pub carrier: Carrier,
    /// On which port.
    pub port: u16,
}

impl CarrierDoor {
    /// Number of the carrier, then the port.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 3] {
        let [high, low] = self.port.to_be_bytes();
        [self.carrier.number(), high, low]
    }

    /// The door of three bytes, if its carrier is known and its port not 0.
    #[must_use]
    pub fn from_bytes([carrier, high, low]: [u8; 3]) -> Option<Self> {
        let port = u16::from_be_bytes([high, low]);
        let carrier = Carrier::from_number(carrier)?;
        (port > 0).then_some(Self { carrier, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for carrier in Carrier::ALL {
            assert_eq!(carrier.as_str().parse(), Ok(carrier));
            assert_eq!(Carrier::from_number(carrier.number()), Some(carrier));
        }
        assert_eq!("udp".parse::<Carrier>(), Err(NoCarrier));
        assert_eq!(Carrier::from_number(0), None);
    }
}
