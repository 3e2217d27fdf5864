//! The agent: dials an edge, keeps a link to it and serves the link's streams
//! from local targets.
//!
//! [`run()`] is the whole agent, [`join`] proves a join string once and
//! remembers the edge, [`DataFolder`] is what stays on disk. What happens is
//! told as [`AgentEvent`]s; nothing is printed here, and what is told is not
//! logged above debug a second time.
//!
//! Invariant: an agent connects to the targets that its own settings name and
//! allow, and to nothing else; no message of an edge and no answer of a
//! resolver can widen that.

pub mod config;

mod agent;
mod allowed;
mod announce;
mod backoff;
mod climb;
mod connect;
mod datagrams;
#[cfg(unix)]
mod desk;
mod error;
mod events;
mod forgotten;
mod forward;
mod forwards;
mod known;
mod ladder;
mod link;
mod local;
mod network;
mod pin;
mod pump;
mod random;
mod reach;
mod run;
mod rungs;
mod settings;
mod standing;
mod state;
mod status;
mod target;
mod tls;
mod tunnels;
#[cfg(test)]
mod whole;

pub use adit_wire::Compression;
pub use allowed::{AllowedError, AllowedTarget, AllowedTargets};
pub use announce::ProxyProtocol;
#[cfg(unix)]
pub use desk::{Agents, agents};
pub use error::AgentError;
pub use events::{AgentEvent, Refusal, RefusalKind, Visitor, VisitorChange};
pub use ladder::{Carriage, WebProxy};
pub use run::{join, run};
pub use settings::{
    AgentSettings, By, Carries, ForwardSettings, Login, LoginError, NoPeer, Peer, Peers, PinFrom,
    TunnelSettings,
};
pub use state::{DataFolder, EdgeRecord, HeldName, Joining, StateError};
pub use status::{AgentReport, EdgeReport, LocalPort, OwnTunnel, TroubleReport};
pub use target::{HostHeader, Target, TargetError, TcpTarget, UdpTarget};
