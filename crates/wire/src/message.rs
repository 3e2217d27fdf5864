//! Messages of the control channel.
//!
//! Each message is one frame: its kind names it, its payload is a body of
//! fields. An unknown field is skipped, an unknown kind is an error that ends
//! the link, and every text and every row has a limit that holds for writing
//! and for reading alike.

use std::num::NonZeroU16;

use adit_model::{ConnId, TunnelId, TunnelName};

use crate::compression::Compression;
use crate::field::{DecodeError, EncodeError, MAX_TEXT, each, need, once, put_fixed, put_text};
use crate::frame::{FrameKind, MAX_PAYLOAD};
use crate::stats::Stats;

/// Most addresses in one [`Drain`].
pub const MAX_ADDRESSES: usize = 16;
/// Most bytes of a label, a host header or an address.
const MAX_LABEL: usize = 256;

/// What a tunnel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelKind {
    /// HTTP requests, routed by host name.
    Http,
    /// Byte streams from a public port.
    Tcp,
    /// Datagrams from a public port.
    Udp,
    /// TLS connections, routed by the name that they ask for and passed on as
    /// they are.
    Tls,
    /// Byte streams of other agents, by its name; the edge opens no door.
    Private,
    /// A kind of a later version, by its number.
    Other(u8),
}

impl TunnelKind {
    fn number(self) -> u8 {
        match self {
            Self::Http => 1,
            Self::Tcp => 2,
            Self::Udp => 3,
            Self::Tls => 4,
            Self::Private => 5,
            Self::Other(number) => number,
        }
    }

    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Http,
            2 => Self::Tcp,
            3 => Self::Udp,
            4 => Self::Tls,
            5 => Self::Private,
            other => Self::Other(other),
        }
    }
}

/// The agent publishes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTunnel {
    /// The agent's number for it, free on this link.
    pub tunnel: TunnelId,
    /// The wanted name.
    pub name: TunnelName,
    /// What it carries.
    pub kind: TunnelKind,
    /// Whether nobody else may join the name.
    pub exclusive: bool,
    /// `user:hash` of a password that visitors must give; the hash is a PHC
    /// string.
    pub auth: Option<String>,
    /// The `Host` header that the service wants to see.
    pub host_header: Option<String>,
    /// What people see as the target, at most 256 bytes.
    pub target: String,
    /// The public port that it wants; `None`: one that the edge chooses, where
    /// the kind has ports. Never 0.
    pub port: Option<NonZeroU16>,
    /// Whether frames of its streams may be compressed.
    pub compression: Compression,
}

/// How a tunnel fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelState {
    /// Visitors reach it.
    Live,
    /// The edge did not open it.
    Refused,
    /// It is closed.
    Closed,
    /// It is open, but visitors are not served.
    Trouble,
}

impl TunnelState {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Live, Self::Refused, Self::Closed, Self::Trouble]
            .into_iter()
            .find(|state| *state as u8 + 1 == number)
    }
}

/// What became of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelStatus {
    /// Which tunnel of this link.
    pub tunnel: TunnelId,
    /// How it fares.
    pub state: TunnelState,
    /// Where visitors find it.
    pub url: Option<String>,
    /// A stable error code, 0 for none.
    pub code: u16,
    /// A sentence for people.
    pub text: String,
}

/// A sign of life. Without `echo` it is a question, which the other side
/// answers with the question's sequence as `echo`; an answer is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's count of its questions.
    pub sequence: u64,
    /// The question that this answers.
    pub echo: Option<u64>,
}

/// The edge goes away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Seconds until it closes.
    pub seconds: u32,
    /// `host:port` of link doors to go to, at most [`MAX_ADDRESSES`]; they
    /// must pass the same pin. Empty: dial this one again.
    pub addresses: Vec<String>,
}

/// A message of the control channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Publish a tunnel.
    OpenTunnel(OpenTunnel),
    /// End a tunnel.
    CloseTunnel {
        /// Which.
        tunnel: TunnelId,
    },
    /// What became of a tunnel.
    TunnelStatus(TunnelStatus),
    /// A visitor waits: dial a channel for it.
    IncomingConn {
        /// For which tunnel.
        tunnel: TunnelId,
        /// The waiting stream.
        conn: ConnId,
    },
    /// Keep this many idle channels.
    ChannelsWanted {
        /// How many.
        idle: u16,
        /// How many trunks.
        trunks: u16,
    },
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// The edge goes away.
    Drain(Drain),
    /// Another link of this process took over: do not redial.
    Superseded,
    /// Counters.
    Stats(Stats),
    /// Asks for counters.
    StatsWanted,
    /// The link ends because of this.
    Error {
        /// A stable error code.
        code: u16,
        /// A sentence for people.
        text: String,
    },
    /// The agent begins a key epoch.
    Rekey {
        /// The new epoch, one above the last.
        epoch: u32,
        /// X25519 public share.
        share: [u8; 32],
    },
    /// The edge answers; its next frame is under the new keys.
    RekeyAck {
        /// The new epoch.
        epoch: u32,
        /// X25519 public share.
        share: [u8; 32],
    },
    /// The agent's next frame is under the new keys.
    RekeyDone {
        /// The new epoch.
        epoch: u32,
    },
}

impl Message {
    /// The kind of its frame.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        match self {
            Self::OpenTunnel(_) => FrameKind::OPEN_TUNNEL,
            Self::CloseTunnel { .. } => FrameKind::CLOSE_TUNNEL,
            Self::TunnelStatus(_) => FrameKind::TUNNEL_STATUS,
            Self::IncomingConn { .. } => FrameKind::INCOMING_CONN,
            Self::ChannelsWanted { .. } => FrameKind::CHANNELS_WANTED,
            Self::Heartbeat(_) => FrameKind::HEARTBEAT,
            Self::Drain(_) => FrameKind::DRAIN,
            Self::Superseded => FrameKind::SUPERSEDED,
            Self::Stats(_) => FrameKind::STATS,
            Self::StatsWanted => FrameKind::STATS_WANTED,
            Self::Error { .. } => FrameKind::ERROR,
            Self::Rekey { .. } => FrameKind::REKEY,
            Self::RekeyAck { .. } => FrameKind::REKEY_ACK,
            Self::RekeyDone { .. } => FrameKind::REKEY_DONE,
        }
    }

    /// Appends the body. After an error `out` may hold part of it.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        match self {
            Self::OpenTunnel(open) => encode_open(open, out)?,
            Self::CloseTunnel { tunnel } => put_fixed(out, 1, tunnel.0.to_be_bytes()),
            Self::TunnelStatus(status) => encode_status(status, out)?,
            Self::IncomingConn { tunnel, conn } => {
                put_fixed(out, 1, tunnel.0.to_be_bytes());
                put_fixed(out, 2, conn.0.to_be_bytes());
            }
            Self::ChannelsWanted { idle, trunks } => {
                put_fixed(out, 1, idle.to_be_bytes());
                if *trunks > 0 {
                    put_fixed(out, 2, trunks.to_be_bytes());
                }
            }
            Self::Heartbeat(beat) => {
                put_fixed(out, 1, beat.sequence.to_be_bytes());
                if let Some(echo) = beat.echo {
                    put_fixed(out, 2, echo.to_be_bytes());
                }
            }
            Self::Drain(drain) => encode_drain(drain, out)?,
            Self::Superseded | Self::StatsWanted => {}
            Self::Stats(stats) => stats.encode(out)?,
            Self::Error { code, text } => {
                put_fixed(out, 1, code.to_be_bytes());
                put_text(out, 2, text, MAX_TEXT)?;
            }
            Self::Rekey { epoch, share } | Self::RekeyAck { epoch, share } => {
                put_fixed(out, 1, epoch.to_be_bytes());
                put_fixed(out, 2, *share);
            }
            Self::RekeyDone { epoch } => put_fixed(out, 1, epoch.to_be_bytes()),
        }
        if out.len() - start > MAX_PAYLOAD {
            return Err(EncodeError::TooLong);
        }
        Ok(())
    }

    /// Reads the body of a frame of `kind`.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(kind: FrameKind, body: &[u8]) -> Result<Self, DecodeError> {
        match kind {
            FrameKind::OPEN_TUNNEL => decode_open(body).map(Self::OpenTunnel),
            FrameKind::CLOSE_TUNNEL => Ok(Self::CloseTunnel {
                tunnel: TunnelId(number(body)?),
            }),
            FrameKind::TUNNEL_STATUS => decode_status(body).map(Self::TunnelStatus),
            FrameKind::INCOMING_CONN => decode_incoming(body),
            FrameKind::CHANNELS_WANTED => decode_wanted(body),
            FrameKind::HEARTBEAT => decode_heartbeat(body).map(Self::Heartbeat),
            FrameKind::DRAIN => decode_drain(body).map(Self::Drain),
            FrameKind::SUPERSEDED => each(body, |_| Ok(())).map(|()| Self::Superseded),
            FrameKind::STATS => Stats::decode(body).map(Self::Stats),
            FrameKind::STATS_WANTED => each(body, |_| Ok(())).map(|()| Self::StatsWanted),
            FrameKind::ERROR => decode_error(body),
            FrameKind::REKEY => share(body).map(|(epoch, share)| Self::Rekey { epoch, share }),
            FrameKind::REKEY_ACK => {
                share(body).map(|(epoch, share)| Self::RekeyAck { epoch, share })
            }
            FrameKind::REKEY_DONE => Ok(Self::RekeyDone {
                epoch: number(body)?,
            }),
            FrameKind(other) => Err(DecodeError::UnknownKind(other)),
        }
    }
}

fn encode_open(open: &OpenTunnel, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    put_fixed(out, 1, open.tunnel.0.to_be_bytes());
    put_text(out, 2, open.name.as_str(), MAX_LABEL)?;
    put_fixed(out, 3, [open.kind.number()]);
    put_fixed(out, 4, [u8::from(open.exclusive)]);
    if let Some(auth) = &open.auth {
        put_text(out, 5, auth, MAX_TEXT)?;
    }
    if let Some(host) = &open.host_header {
        put_text(out, 6, host, MAX_LABEL)?;
    }
    put_text(out, 7, &open.target, MAX_LABEL)?;
    if let Some(port) = open.port {
        put_fixed(out, 8, port.get().to_be_bytes());
    }
    if let Some(number) = open.compression.number() {
        put_fixed(out, 9, [number]);
    }
    Ok(())
}

fn decode_open(body: &[u8]) -> Result<OpenTunnel, DecodeError> {
    let (mut tunnel, mut name, mut kind, mut exclusive) = (None, None, None, None);
    let (mut auth, mut host_header, mut target, mut port) = (None, None, None, None);
    let mut compression = None;
    each(body, |field| match field.tag {
        1 => once(&mut tunnel, 1, TunnelId(field.u32()?)),
        2 => {
            let parsed = TunnelName::parse(field.text(MAX_LABEL)?);
            once(&mut name, 2, parsed.map_err(|_| DecodeError::Malformed(2))?)
        }
        3 => once(&mut kind, 3, TunnelKind::from_number(field.u8()?)),
        4 => once(&mut exclusive, 4, field.flag()?),
        5 => once(&mut auth, 5, field.string(MAX_TEXT)?),
        6 => once(&mut host_header, 6, field.string(MAX_LABEL)?),
        7 => once(&mut target, 7, field.string(MAX_LABEL)?),
        8 => {
            let parsed = NonZeroU16::new(field.u16()?);
            once(&mut port, 8, parsed.ok_or(DecodeError::Malformed(8))?)
        }
        9 => {
            let known = Compression::from_number(field.u8()?);
            once(&mut compression, 9, known.ok_or(DecodeError::Malformed(9))?)
        }
        _ => Ok(()),
    })?;
    Ok(OpenTunnel {
        tunnel: need(tunnel, 1)?,
        name: need(name, 2)?,
        kind: need(kind, 3)?,
        exclusive: need(exclusive, 4)?,
        auth,
        host_header,
        target: need(target, 7)?,
        port,
        compression: compression.unwrap_or_default(),
    })
}

fn encode_status(status: &TunnelStatus, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    put_fixed(out, 1, status.tunnel.0.to_be_bytes());
    put_fixed(out, 2, [status.state as u8 + 1]);
    if let Some(url) = &status.url {
        put_text(out, 3, url, MAX_TEXT)?;
    }
    put_fixed(out, 4, status.code.to_be_bytes());
    put_text(out, 5, &status.text, MAX_TEXT)
}

fn decode_status(body: &[u8]) -> Result<TunnelStatus, DecodeError> {
    let (mut tunnel, mut state, mut url) = (None, None, None);
    let (mut code, mut text) = (None, None);
    each(body, |field| match field.tag {
        1 => once(&mut tunnel, 1, TunnelId(field.u32()?)),
        2 => {
            let parsed = TunnelState::from_number(field.u8()?);
            once(&mut state, 2, parsed.ok_or(DecodeError::Malformed(2))?)
        }
        3 => once(&mut url, 3, field.string(MAX_TEXT)?),
        4 => once(&mut code, 4, field.u16()?),
        5 => once(&mut text, 5, field.string(MAX_TEXT)?),
        _ => Ok(()),
    })?;
    Ok(TunnelStatus {
        tunnel: need(tunnel, 1)?,
        state: need(state, 2)?,
        url,
        code: need(code, 4)?,
        text: need(text, 5)?,
    })
}

fn decode_incoming(body: &[u8]) -> Result<Message, DecodeError> {
    let (mut tunnel, mut conn) = (None, None);
    each(body, |field| match field.tag {
        1 => once(&mut tunnel, 1, TunnelId(field.u32()?)),
        2 => once(&mut conn, 2, ConnId(field.u64()?)),
        _ => Ok(()),
    })?;
    Ok(Message::IncomingConn {
        tunnel: need(tunnel, 1)?,
        conn: need(conn, 2)?,
    })
}

fn decode_wanted(body: &[u8]) -> Result<Message, DecodeError> {
    let (mut idle, mut trunks) = (None, None);
    each(body, |field| match field.tag {
        1 => once(&mut idle, 1, field.u16()?),
        2 => once(&mut trunks, 2, field.u16()?),
        _ => Ok(()),
    })?;
    Ok(Message::ChannelsWanted {
        idle: need(idle, 1)?,
        trunks: trunks.unwrap_or(0),
    })
}

fn decode_heartbeat(body: &[u8]) -> Result<Heartbeat, DecodeError> {
    let (mut sequence, mut echo) = (None, None);
    each(body, |field| match field.tag {
        1 => once(&mut sequence, 1, field.u64()?),
        2 => once(&mut echo, 2, field.u64()?),
        _ => Ok(()),
    })?;
    Ok(Heartbeat {
        sequence: need(sequence, 1)?,
        echo,
    })
}

fn encode_drain(drain: &Drain, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if drain.addresses.len() > MAX_ADDRESSES {
        return Err(EncodeError::BadField(2));
    }
    put_fixed(out, 1, drain.seconds.to_be_bytes());
    drain
        .addresses
        .iter()
        .try_for_each(|address| put_text(out, 2, address, MAX_LABEL))
}

fn decode_drain(body: &[u8]) -> Result<Drain, DecodeError> {
    let (mut seconds, mut addresses) = (None, Vec::new());
    each(body, |field| match field.tag {
        1 => once(&mut seconds, 1, field.u32()?),
        2 if addresses.len() == MAX_ADDRESSES => Err(DecodeError::TooMany(2)),
        2 => {
            addresses.push(field.string(MAX_LABEL)?);
            Ok(())
        }
        _ => Ok(()),
    })?;
    Ok(Drain {
        seconds: need(seconds, 1)?,
        addresses,
    })
}

fn decode_error(body: &[u8]) -> Result<Message, DecodeError> {
    let (mut code, mut text) = (None, None);
    each(body, |field| match field.tag {
        1 => once(&mut code, 1, field.u16()?),
        2 => once(&mut text, 2, field.string(MAX_TEXT)?),
        _ => Ok(()),
    })?;
    Ok(Message::Error {
        code: need(code, 1)?,
        text: need(text, 2)?,
    })
}

/// A body with one number in field 1.
fn number(body: &[u8]) -> Result<u32, DecodeError> {
    let mut value = None;
    each(body, |field| match field.tag {
        1 => once(&mut value, 1, field.u32()?),
        _ => Ok(()),
    })?;
    need(value, 1)
}

fn share(body: &[u8]) -> Result<(u32, [u8; 32]), DecodeError> {
    let (mut epoch, mut share) = (None, None);
    each(body, |field| match field.tag {
        1 => once(&mut epoch, 1, field.u32()?),
        2 => once(&mut share, 2, field.array()?),
        _ => Ok(()),
    })?;
    Ok((need(epoch, 1)?, need(share, 2)?))
}
