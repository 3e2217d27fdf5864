//! Names, identities, secrets and ids of Adit.
//!
//! Every type is parsed once, at the border, and valid ever after. Nothing in
//! this crate reads a clock, a socket, the environment or a random source:
//! random bytes and times come in as arguments.
//!
//! Invariant: a type that holds secret bytes has neither `Display` nor a
//! `Debug` that shows them.

mod carrier;
mod code;
mod id;
mod identity;
mod join;
mod name;
mod port;
mod secret;

pub use carrier::{Carrier, CarrierDoor, NoCarrier};
pub use code::{Code, Fault};
pub use id::{ConnId, InstanceId, LinkId, TunnelId};
pub use identity::{Identity, IdentityError, PublicKey};
pub use join::{Credential, JoinError, JoinString};
pub use name::{Domain, HostName, NameError, TunnelName};
pub use port::{PortRanges, PortRangesError};
pub use secret::{Pin, Psk, SecretError};
