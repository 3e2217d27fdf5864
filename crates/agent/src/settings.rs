//! What an agent is told to do: values that are valid already.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use adit_link::agent::PinSource;
use adit_model::{JoinString, Pin, PublicKey, TunnelName};
use adit_wire::Compression;
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;
use zeroize::Zeroizing;

use crate::allowed::AllowedTargets;
use crate::announce::ProxyProtocol;
use crate::ladder::Carriage;
use crate::random;
use crate::target::{HostHeader, Place, Target, TcpTarget, UdpTarget};

/// Everything that [`crate::run()`] needs.
#[derive(Debug)]
pub struct AgentSettings {
    /// The edge to dial; `None` means the one that was joined before.
    pub join: Option<JoinString>,
    /// The data folder, made when absent.
    pub data: PathBuf,
    /// What to publish.
    pub tunnels: Vec<TunnelSettings>,
    /// Private tunnels of other agents to reach.
    pub forwards: Vec<ForwardSettings>,
    /// Where streams may lead at all.
    pub allowed_targets: AllowedTargets,
    /// How the edge is reached.
    pub carriage: Carriage,
    /// Where the edge's PIN comes from, should it want one.
    pub pin: PinFrom,
    /// Threads that carry visitors' streams; 0 carries them on the runtime
    /// that calls.
    pub workers: usize,
    /// How long streams may go on after the agent was told to stop.
    pub drain: Duration,
}

/// One tunnel.
#[derive(Debug)]
pub struct TunnelSettings {
    /// Its name; `None` for a random one that is remembered for the target.
    pub name: Option<TunnelName>,
    /// What it carries, and where to.
    pub carries: Carries,
    /// Refuse to share the name with another agent.
    pub exclusive: bool,
    /// Whether frames of its streams may be compressed; `None`: as its kind
    /// has it, see [`Carries::compression`].
    pub compression: Option<Compression>,
}

/// What a tunnel carries, and where to: each kind with what it alone has.
#[derive(Debug)]
pub enum Carries {
    /// Requests for a host name.
    Http {
        /// Where its streams lead.
        target: Target,
        /// Take any certificate of an `https://` target.
        insecure_target: bool,
        /// The `Host` header that the service wants to see.
        host_header: Option<HostHeader>,
        /// What visitors must give.
        auth: Option<Login>,
    },
    /// Bytes as they are.
    Bytes {
        /// Where its streams lead.
        target: TcpTarget,
        /// Where visitors come in.
        by: By,
        /// How the target is told of its visitor before the first byte.
        proxy_protocol: Option<ProxyProtocol>,
    },
    /// Datagrams of a public port.
    Datagrams {
        /// Where its flows lead.
        target: UdpTarget,
        /// The public port; `None`: one that the edge chooses.
        port: Option<NonZeroU16>,
    },
}

/// Where visitors of bytes come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// At a public port; `None`: one that the edge chooses.
    Port(Option<NonZeroU16>),
    /// At the edge's TLS door, by the name that their TLS asks for.
    TlsName,
    /// At no door: from other agents, which prove who they are.
    Agents(Peers),
}

/// Which other agents may come in to a private tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Those of these identities.
    Only(Vec<PublicKey>),
    /// All that the edge admits and that belong to this agent's owner.
    Any,
}

impl Peers {
    /// Whether an identity is among them.
    #[must_use]
    pub fn admit(&self, identity: &PublicKey) -> bool {
        match self {
            Self::Only(listed) => listed.contains(identity),
            Self::Any => true,
        }
    }
}

/// One of [`Peers`] as people write it: a key, or `*` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// This identity.
    Key(PublicKey),
    /// All.
    Any,
}

/// The text is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an agent is named by its key, as `adit key show` prints it there, or * for all")]
pub struct NoPeer;

impl FromStr for Peer {
    type Err = NoPeer;

    fn from_str(text: &str) -> Result<Self, NoPeer> {
        if text == "*" {
            return Ok(Self::Any);
        }
        text.parse().map(Self::Key).map_err(|_| NoPeer)
    }
}

impl FromIterator<Peer> for Peers {
    fn from_iter<I: IntoIterator<Item = Peer>>(peers: I) -> Self {
        let keys = peers.into_iter().map(|peer| match peer {
            Peer::Key(key) => Some(key),
            Peer::Any => None,
        });
        keys.collect::<Option<Vec<_>>>()
            .map_or(Self::Any, Self::Only)
    }
}

/// A local door to a private tunnel of another agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardSettings {
    /// The tunnel's name.
    pub name: TunnelName,
    /// Where this machine's programs reach it.
    pub listen: SocketAddr,
    /// Who must answer at the other end.
    pub peer: PublicKey,
}

impl Carries {
    /// Requests, with nothing special about them.
    #[must_use]
    pub const fn http(target: Target) -> Self {
        Self::Http {
            target,
            insecure_target: false,
            host_header: None,
            auth: None,
        }
    }

    /// The bytes of a public port, with nothing special about them.
    #[must_use]
    pub const fn tcp(target: TcpTarget, port: Option<NonZeroU16>) -> Self {
        Self::Bytes {
            target,
            by: By::Port(port),
            proxy_protocol: None,
        }
    }

    /// Whether frames are compressed where nobody says it. Not those of HTTP:
    /// where secrets and text of an attacker's choice share a frame, its length
    /// tells of the secrets. Not what is encrypted already.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        match self {
            Self::Bytes {
                by: By::Port(_), ..
            } => Compression::Auto,
            _ => Compression::Off,
        }
    }

    /// Of a private tunnel: who may come in.
    pub(crate) fn peers(&self) -> Option<&Peers> {
        match self {
            Self::Bytes {
                by: By::Agents(peers),
                ..
            } => Some(peers),
            _ => None,
        }
    }

    /// The target as people write it.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Http { target, .. } => target.label(),
            Self::Bytes { target, .. } => target.label(),
            Self::Datagrams { target, .. } => target.label(),
        }
    }

    pub(crate) fn place(&self) -> &Place {
        match self {
            Self::Http { target, .. } => target.place(),
            Self::Bytes { target, .. } => target.place(),
            Self::Datagrams { target, .. } => target.place(),
        }
    }

    /// Whether the agent speaks TLS to the target, and if so, whether it takes
    /// any certificate.
    pub(crate) fn insecure_tls(&self) -> Option<bool> {
        match self {
            Self::Http {
                target,
                insecure_target,
                ..
            } => target.is_tls().then_some(*insecure_target),
            Self::Bytes { .. } | Self::Datagrams { .. } => None,
        }
    }
}

/// Where the edge's PIN comes from.
#[derive(Clone)]
pub enum PinFrom {
    /// Nowhere: an edge that wants one ends the agent.
    Nowhere,
    /// A fixed value, offered once a dial.
    Fixed(Pin),
    /// Asked of a person, and again when it was wrong.
    Asked(PinSource),
}

impl fmt::Debug for PinFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nowhere => "Nowhere",
            Self::Fixed(_) => "Fixed(hidden)",
            Self::Asked(_) => "Asked",
        })
    }
}

/// Why a login was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// No colon between two parts.
    #[error("a login is written user:password")]
    NotALogin,
    /// One of the parts is empty.
    #[error("user and password may not be empty")]
    Empty,
    /// A part is longer than a request could carry in comfort.
    #[error("user and password may have 256 bytes each")]
    TooLong,
    /// A control character, which basic authentication forbids (RFC 7617 §2).
    #[error("user and password may hold no control characters")]
    Control,
    /// The password could not be hashed.
    #[error("password cannot be hashed")]
    Hash,
}

const MAX_PART: usize = 256;

/// A user and a password that visitors must give (RFC 7617). Only a hash of
/// the password ever leaves the process.
pub struct Login {
    user: String,
    password: Zeroizing<String>,
}

impl Login {
    /// Takes `user:password`; the password may hold colons.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub fn parse(text: &str) -> Result<Self, LoginError> {
        let (user, password) = text.split_once(':').ok_or(LoginError::NotALogin)?;
        if user.is_empty() || password.is_empty() {
            return Err(LoginError::Empty);
        }
        if user.len() > MAX_PART || password.len() > MAX_PART {
            return Err(LoginError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(LoginError::Control);
        }
        Ok(Self {
            user: user.to_owned(),
            password: Zeroizing::new(password.to_owned()),
        })
    }

    /// `user:` and the PHC string of the password's Argon2id hash. Takes tens
    /// of milliseconds of one core and 19 MiB.
    ///
    /// # Errors
    /// [`LoginError::Hash`].
    pub fn hash(&self) -> Result<String, LoginError> {
        let salt = random::bytes::<16>().map_err(|_| LoginError::Hash)?;
        let hash = Argon2::default()
            .hash_password_with_salt(self.password.as_bytes(), &salt)
            .map_err(|_| LoginError::Hash)?;
        Ok(format!("{}:{hash}", self.user))
    }
}

impl FromStr for Login {
    type Err = LoginError;

    fn from_str(text: &str) -> Result<Self, LoginError> {
        Self::parse(text)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({}, password hidden)", self.user)
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordVerifier, phc::PasswordHash};

    use super::*;

    #[test]
    fn a_login_leaves_as_a_hash() {
        let login = Login::parse("ann:se:cret").unwrap();
        let (a, b) = (login.hash().unwrap(), login.hash().unwrap());
        assert_ne!(a, b, "each with its own salt");
        let (user, phc) = a.split_once(':').unwrap();
        assert_eq!(user, "ann");
        let phc = PasswordHash::new(phc).unwrap();
        let verify = |password: &[u8]| Argon2::default().verify_password(password, &phc);
        assert!(verify(b"se:cret").is_ok());
        assert!(verify(b"secret").is_err());
        assert!(!format!("{login:?}").contains("cret"));
    }

    #[test]
    fn what_is_no_login_is_told_apart() {
        let refused = |text: &str| Login::parse(text).map(|_| ()).unwrap_err();
        assert_eq!(refused("ann"), LoginError::NotALogin);
        assert_eq!(refused(":x"), LoginError::Empty);
        assert_eq!(refused("ann:"), LoginError::Empty);
        assert_eq!(refused("ann:a\nb"), LoginError::Control);
        assert_eq!(
            refused(&format!("ann:{}", "x".repeat(257))),
            LoginError::TooLong
        );
    }
}
