//! Bodies of frames on data channels.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use adit_model::{ConnId, PublicKey, TunnelId, TunnelName};

use crate::field::{DecodeError, EncodeError, each, need, once, put_address, put_fixed, put_text};

/// A visitor stream begins on an idle channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// For which tunnel of the link.
    pub tunnel: TunnelId,
    /// The edge's id of the visitor stream.
    pub conn: ConnId,
    /// The visitor's address as the edge saw it (IPv6 without scope and flow).
    pub visitor: SocketAddr,
    /// How long the edge waits for `ACCEPTED` or `RESET`, in milliseconds: it
    /// has more patience when no other agent could be tried.
    pub patience_ms: u16,
    /// The edge's address that the visitor reached, where the service may be
    /// told of it.
    pub door: Option<SocketAddr>,
    /// Where the stream carries datagrams (a UDP flow): after how many
    /// milliseconds without one it is over.
    pub idle_ms: Option<NonZeroU32>,
    /// On a private tunnel: the agent that asks to come in, as the edge knows
    /// it. What it proves inside is what counts.
    pub forwarder: Option<PublicKey>,
}

impl Start {
    /// What [`Start::patience_ms`] is when the body does not say.
    pub const PATIENCE_MS: u16 = 2000;

    /// How long the edge waits for an answer.
    #[must_use]
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.into())
    }

    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_fixed(out, 1, self.tunnel.0.to_be_bytes());
        put_fixed(out, 2, self.conn.0.to_be_bytes());
        put_address(out, 3, self.visitor);
        if self.patience_ms != Self::PATIENCE_MS {
            put_fixed(out, 4, self.patience_ms.to_be_bytes());
        }
        if let Some(door) = self.door {
            put_address(out, 5, door);
        }
        if let Some(idle) = self.idle_ms {
            put_fixed(out, 6, idle.get().to_be_bytes());
        }
        if let Some(forwarder) = self.forwarder {
            put_fixed(out, 7, forwarder.0);
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (mut tunnel, mut conn, mut visitor) = (None, None, None);
        let (mut patience, mut door, mut idle_ms) = (None, None, None);
        let mut forwarder = None;
        each(body, |field| match field.tag {
            1 => once(&mut tunnel, 1, TunnelId(field.u32()?)),
            2 => once(&mut conn, 2, ConnId(field.u64()?)),
            3 => once(&mut visitor, 3, field.address()?),
            4 => once(&mut patience, 4, field.u16()?),
            5 => once(&mut door, 5, field.address()?),
            6 => once(&mut idle_ms, 6, field.nonzero_u32()?),
            7 => once(&mut forwarder, 7, PublicKey(field.array()?)),
            _ => Ok(()),
        })?;
        Ok(Self {
            tunnel: need(tunnel, 1)?,
            conn: need(conn, 2)?,
            visitor: need(visitor, 3)?,
            patience_ms: patience.unwrap_or(Self::PATIENCE_MS),
            door,
            idle_ms,
            forwarder,
        })
    }
}

/// An agent asks for a stream to a private tunnel, on a channel that it dialled
/// for this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The tunnel's name.
    pub name: TunnelName,
    /// The agent's number of the stream, for its logs.
    pub conn: ConnId,
}

impl Forward {
    /// Most bytes of a name in a body.
    const MAX_NAME: usize = 256;

    /// Appends the body.
    ///
    /// # Errors
    /// [`EncodeError`] for a name longer than any.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_text(out, 1, self.name.as_str(), Self::MAX_NAME)?;
        put_fixed(out, 2, self.conn.0.to_be_bytes());
        Ok(())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (mut name, mut conn) = (None, None);
        each(body, |field| match field.tag {
            1 => {
                let parsed = TunnelName::parse(field.text(Self::MAX_NAME)?);
                once(&mut name, 1, parsed.map_err(|_| DecodeError::Malformed(1))?)
            }
            2 => once(&mut conn, 2, ConnId(field.u64()?)),
            _ => Ok(()),
        })?;
        Ok(Self {
            name: need(name, 1)?,
            conn: need(conn, 2)?,
        })
    }
}

/// The agent dialled this channel for one waiting visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataConnReady {
    /// The stream that the edge asked for.
    pub conn: ConnId,
}

impl DataConnReady {
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_fixed(out, 1, self.conn.0.to_be_bytes());
    }

    /// Reads a body.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let mut conn = None;
        each(body, |field| match field.tag {
            1 => once(&mut conn, 1, ConnId(field.u64()?)),
            _ => Ok(()),
        })?;
        Ok(Self {
            conn: need(conn, 1)?,
        })
    }
}

/// Whether any byte of a stream reached the service before it was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Delivered {
    /// Not one byte: the request may be tried elsewhere.
    None,
    /// Some, or nobody knows.
    Some,
}

/// Why a stream was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// No reason was given, or one that this version does not know.
    Unspecified,
    /// The tunnel is not open on this link.
    NoSuchTunnel,
    /// The service refused the connection.
    TargetRefused,
    /// The service could not be reached.
    TargetUnreachable,
    /// TLS towards the service failed.
    TargetTls,
    /// The service closed before its answer was whole.
    TargetClosed,
    /// The visitor went away.
    Cancelled,
    /// A limit on streams is reached.
    TooMany,
    /// The other side broke the protocol of the stream.
    Protocol,
    /// The identity or the tunnel was revoked.
    Revoked,
    /// The sender is shutting down.
    Draining,
    /// Nothing moved for too long.
    Timeout,
}

const REASONS: [ResetReason; 12] = [
    ResetReason::Unspecified,
    ResetReason::NoSuchTunnel,
    ResetReason::TargetRefused,
    ResetReason::TargetUnreachable,
    ResetReason::TargetTls,
    ResetReason::TargetClosed,
    ResetReason::Cancelled,
    ResetReason::TooMany,
    ResetReason::Protocol,
    ResetReason::Revoked,
    ResetReason::Draining,
    ResetReason::Timeout,
];

impl ResetReason {
    /// Its number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The reason of a number; an unknown one is [`ResetReason::Unspecified`].
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        REASONS
            .get(usize::from(number))
            .copied()
            .unwrap_or(Self::Unspecified)
    }
}

impl fmt::Display for ResetReason {
    /// As a clause for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "no reason was given",
            Self::NoSuchTunnel => "the tunnel is not open there",
            Self::TargetRefused => "the service refused the connection",
            Self::TargetUnreachable => "the service could not be reached",
            Self::TargetTls => "TLS towards the service failed",
            Self::TargetClosed => "the service closed before its answer was whole",
            Self::Cancelled => "the visitor went away",
            Self::TooMany => "there are as many streams as are allowed",
            Self::Protocol => "the protocol of the stream was broken",
            Self::Revoked => "the identity or the tunnel was revoked",
            Self::Draining => "the other side is shutting down",
            Self::Timeout => "nothing moved for too long",
        })
    }
}

/// A stream ends now, whatever was on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Why.
    pub reason: ResetReason,
    /// Whether the request may be tried elsewhere.
    pub delivered: Delivered,
}

impl Reset {
    /// Appends the body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_fixed(out, 1, [self.reason.number()]);
        put_fixed(out, 2, [u8::from(self.delivered == Delivered::Some)]);
    }

    /// Reads a body.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let (mut reason, mut delivered) = (None, None);
        each(body, |field| match field.tag {
            1 => once(&mut reason, 1, ResetReason::from_number(field.u8()?)),
            2 => once(&mut delivered, 2, field.flag()?),
            _ => Ok(()),
        })?;
        Ok(Self {
            reason: need(reason, 1)?,
            delivered: if need(delivered, 2)? {
                Delivered::Some
            } else {
                Delivered::None
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_reasons_keep_their_numbers() {
        for (number, reason) in (0u8..).zip(REASONS) {
            assert_eq!(reason.number(), number);
            assert_eq!(ResetReason::from_number(number), reason);
            // People read a clause, not a name of the code.
            let words = reason.to_string();
            assert!(
                words.contains(' ') && words != format!("{reason:?}"),
                "{words}"
            );
        }
        assert_eq!(ResetReason::from_number(200), ResetReason::Unspecified);
    }
}
