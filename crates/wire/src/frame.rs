//! The layout of a frame and the kinds of frames.

/// Bytes of the length in front of a frame.
pub const LENGTH: usize = 4;
/// Bytes of plaintext in front of the payload: type, flags, stream id.
pub const INNER: usize = 6;
/// Bytes in front of the payload of a frame in its buffer.
pub const HEAD: usize = LENGTH + INNER;
/// Bytes of the authentication tag behind the payload.
pub const TAG: usize = 16;
/// Bytes that a frame adds to its payload.
pub const FRAME_OVERHEAD: usize = HEAD + TAG;
/// Most bytes of payload in one frame.
pub const MAX_PAYLOAD: usize = 65_536;
/// Most bytes of a whole frame.
pub const MAX_FRAME: usize = MAX_PAYLOAD + FRAME_OVERHEAD;
/// Flag bit 0: the payload is an LZ4 block behind its plain length.
pub const FLAG_LZ4: u8 = 1;

/// What a frame is: handshake, control and data kinds in one number space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameKind(pub u8);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {
        impl FrameKind {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The name that the protocol page uses.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// Handshake: identity, signature, finished MAC; body [`crate::Hello`].
    HELLO = 0x01;
    /// Handshake: the edge asks for the PIN; empty.
    PIN_WANTED = 0x02;
    /// Handshake: the agent's 32-byte proof of the PIN.
    PIN_PROOF = 0x03;
    /// Handshake: one byte, see [`crate::Verdict`].
    VERDICT = 0x04;
    /// First frame under the session keys; body [`crate::AuthOk`].
    AUTH_OK = 0x05;

    /// Control, agent: [`crate::OpenTunnel`].
    OPEN_TUNNEL = 0x10;
    /// Control, agent: ends a tunnel.
    CLOSE_TUNNEL = 0x11;
    /// Control, both: [`crate::TunnelStatus`].
    TUNNEL_STATUS = 0x12;
    /// Control, edge: a visitor waits and no idle channel is left.
    INCOMING_CONN = 0x13;
    /// Control, edge: how many idle channels to keep.
    CHANNELS_WANTED = 0x14;
    /// Control, both: [`crate::Heartbeat`].
    HEARTBEAT = 0x15;
    /// Control, edge: [`crate::Drain`].
    DRAIN = 0x16;
    /// Control, edge: another link took these names over; do not redial.
    SUPERSEDED = 0x17;
    /// Control, both: [`crate::Stats`].
    STATS = 0x18;
    /// Control, both: asks for `STATS`.
    STATS_WANTED = 0x19;
    /// Control, both: a code and a text; the link ends.
    ERROR = 0x1a;
    /// Control, agent: a fresh X25519 share for the next epoch.
    REKEY = 0x1b;
    /// Control, edge: the answering share; the last frame of the edge's old key.
    REKEY_ACK = 0x1c;
    /// Control, agent: the last frame of the agent's old key.
    REKEY_DONE = 0x1d;

    /// Data, edge: [`crate::Start`], a visitor stream begins.
    START = 0x20;
    /// Data, agent: the stream was taken and its target answers; empty.
    ACCEPTED = 0x21;
    /// Data, both: bytes of the stream.
    DATA = 0x22;
    /// Data, both: the sender will send no more bytes of this stream; empty.
    FIN = 0x23;
    /// Data, both: everything received was handed on; empty.
    DONE = 0x24;
    /// Data, both: [`crate::Reset`].
    RESET = 0x25;
    /// Data, both: the reset was seen, the channel may be used again; empty.
    RESET_ACK = 0x26;
    /// Data, both, stream 0: is the idle channel alive; empty.
    PING = 0x27;
    /// Data, both, stream 0: the answer; empty.
    PONG = 0x28;
    /// Data, both: one datagram of a stream that carries datagrams.
    DATAGRAM = 0x29;
    /// Data, agent, stream 0: [`crate::DataConnReady`].
    DATA_CONN_READY = 0x2a;
    /// Data, agent: [`crate::Forward`], a stream to a private tunnel begins.
    FORWARD = 0x2b;
}

impl std::fmt::Debug for FrameKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {:#04x}", self.0),
        }
    }
}

/// The plaintext in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: FrameKind,
    /// Flag bits, as [`FLAG_LZ4`].
    pub flags: u8,
    /// Which stream of the channel; 0 for the channel itself.
    pub stream: u32,
}

impl Header {
    /// Its six bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; INNER] {
        let [a, b, c, d] = self.stream.to_be_bytes();
        [self.kind.0, self.flags, a, b, c, d]
    }

    /// Reads six bytes; every value is a header.
    #[must_use]
    pub fn from_bytes([kind, flags, a, b, c, d]: [u8; INNER]) -> Self {
        Self {
            kind: FrameKind(kind),
            flags,
            stream: u32::from_be_bytes([a, b, c, d]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_one_layout() {
        let header = Header {
            kind: FrameKind::DATA,
            flags: 1,
            stream: 0x0102_0304,
        };
        assert_eq!(header.to_bytes(), [0x22, 1, 1, 2, 3, 4]);
        assert_eq!(Header::from_bytes(header.to_bytes()), header);
        assert_eq!(format!("{:?}", FrameKind(0xee)), "kind 0xee");
        assert_eq!(format!("{:?}", FrameKind::START), "START");
    }
}
