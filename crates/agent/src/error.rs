//! Why an agent ended, and who must act.

use std::io;
use std::net::SocketAddr;

use adit_link::agent::Way;
use adit_model::{Code, PublicKey};

use crate::events::Refusal;
use crate::settings::LoginError;
use crate::state::StateError;

/// Why [`crate::run()`] or [`crate::join`] did not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Something in the data folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// No join string was given and none is remembered.
    #[error("this machine has not joined an edge: run adit join with a join string, or give one")]
    NotJoined,
    /// A login for visitors cannot be used.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// TLS cannot be used on this machine.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// A local port to another agent's tunnel cannot be opened.
    #[error("{address} cannot be opened on this machine: {why}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The system's words.
        why: io::Error,
    },
    /// The system gave no thread, no event queue or no random bytes.
    #[error("a worker could not be started: {0}")]
    Worker(#[from] io::Error),
    /// The edge did not admit this agent.
    #[error("the edge refused this agent; {}", causes(.0))]
    Refused(Refusal),
    /// The edge wants its PIN and none was given.
    #[error("the edge wants its PIN: read it on the edge's console and give it")]
    PinAbsent,
    /// Another edge answered than the one that is pinned.
    #[error(
        "the edge proved the key {presented}, but {expected} is pinned: if its owner has changed the key, run adit edge forget and join again"
    )]
    WrongEdge {
        /// The pinned key.
        expected: PublicKey,
        /// The key that was proved.
        presented: PublicKey,
    },
    /// The owner of the edge has revoked this agent: its secret is of no more
    /// use.
    #[error("the edge has revoked this agent")]
    Revoked,
    /// Another process has taken this agent's place.
    #[error("another process has taken this agent's place")]
    Superseded,
    /// The edge was forgotten on this machine while the agent ran.
    #[error(
        "adit edge forget was run on this machine: the link to {0} and its open streams were ended"
    )]
    Forgotten(PublicKey),
    /// Joining only, which tries once: no address answered.
    #[error("{why}")]
    Unreachable {
        /// [`Code::EDGE_UNREACHABLE`], or [`Code::EDGE_NAME_UNKNOWN`] where no
        /// name has an address.
        code: Code,
        /// Each address with its reason.
        why: String,
    },
    /// Joining only: the other side broke the protocol.
    #[error("the edge at that address could not be understood: {0}")]
    Broken(String),
}

fn causes(refusal: &Refusal) -> String {
    format!("possible causes: {}", refusal.causes().join("; "))
}

impl AgentError {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::State(error) => error.code(),
            Self::Listen { .. } => Code::LISTEN_FAILED,
            Self::NotJoined => Code::JOIN_ABSENT,
            Self::Login(_) => Code::BAD_AUTH,
            Self::Tls(_) | Self::Worker(_) => Code::RUNTIME_FAILED,
            Self::Refused(refusal) => refusal.code(),
            Self::PinAbsent => Code::PIN_ABSENT,
            Self::WrongEdge { .. } => Code::WRONG_EDGE,
            Self::Forgotten(_) => Code::EDGE_FORGOTTEN,
            Self::Revoked => Code::REVOKED,
            Self::Superseded => Code::SUPERSEDED,
            Self::Unreachable { code, .. } => *code,
            Self::Broken(_) => Code::PROTOCOL,
        }
    }
}

/// The code of a dial that reached nobody.
pub(crate) fn unreached(way: Way) -> Code {
    match way {
        Way::Unresolved => Code::EDGE_NAME_UNKNOWN,
        Way::Unanswered | Way::Refused => Code::EDGE_UNREACHABLE,
    }
}

impl StateError {
    /// Its stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Folder { source, .. }
            | Self::Read { source, .. }
            | Self::Write { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::DISK_FULL,
                io::ErrorKind::PermissionDenied => Code::DATA_FORBIDDEN,
                _ => Code::DATA_UNREADABLE,
            },
            Self::Damaged { .. } => Code::DATA_DAMAGED,
            Self::Exposed { .. } => Code::DATA_EXPOSED,
            Self::Interrupted | Self::Random => Code::RUNTIME_FAILED,
        }
    }
}
