//! What the command line of the benches knows: loads, subjects, lengths.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Measures Adit beside its peers and prints the table.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench")]
pub(crate) struct Command {
    #[command(subcommand)]
    pub(crate) part: Option<Part>,
    /// Rounds; each figure is the median of them
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Length of each load in seconds
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Loads to run [default: those that the chosen path is for]
    #[arg(long, value_delimiter = ',')]
    loads: Vec<Load>,
    /// Subjects to run [default: those that the chosen path is for]
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<Name>,
    /// The adit program to measure [default: built from this workspace]
    #[arg(long)]
    pub(crate) adit: Option<PathBuf>,
    /// Leave out peers that are not installed instead of installing them
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Put edge and visitors at one end of a long path, agent and service at the
    /// other: 80 ms there and back, 0.1 % loss, 100 Mbit/s
    #[arg(long)]
    pub(crate) far: bool,
    /// Congestion control that the ends of the long path have by default
    #[arg(long, default_value = "cubic")]
    pub(crate) congestion: String,
    /// The words that place a program at the other end, from one end of it
    #[arg(long, hide = true)]
    pub(crate) placed: Option<String>,
    /// Print what a subject's processes say, kept in this folder
    #[arg(long)]
    pub(crate) keep: Option<PathBuf>,
}

impl Command {
    /// Loads to run.
    pub(crate) fn loads(&self) -> &[Load] {
        match (self.loads.is_empty(), self.far) {
            (false, _) => &self.loads,
            (true, false) => &Load::ALL,
            (true, true) => &Load::FAR,
        }
    }

    /// Subjects to run.
    pub(crate) fn subjects(&self) -> &[Name] {
        match (self.subjects.is_empty(), self.far) {
            (false, _) => &self.subjects,
            (true, false) => &Name::DEFAULT,
            (true, true) => &Name::FAR,
        }
    }

    /// Length of each load.
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.1, 600.0))
    }
}

/// What a process of the bench's own does instead of measuring.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Part {
    /// Be many agents: hold idle links, each with one tunnel, until stopped
    #[command(hide = true)]
    Hold {
        /// File with the edge's join string
        join: PathBuf,
        /// Number of links
        count: usize,
    },
    /// Be a UDP service that says everything back, until stopped
    #[command(hide = true)]
    Echo {
        /// Where it listens
        address: SocketAddr,
    },
}

/// One kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Load {
    /// 64 connections, one request after the other, answers of 1 KiB
    Keepalive,
    /// 64 visitors at a time, each on a new connection for its one request
    New,
    /// One download after the other on one connection
    Bulk1,
    /// The same on eight connections
    Bulk8,
    /// As bulk1, but of text, which compresses
    Text1,
    /// Keep-alive on 16 connections: a tenth of the next
    Conns16,
    /// Keep-alive on 160 connections
    Conns160,
    /// Keep-alive on 1,600 connections
    Conns1600,
    /// One download that goes on, from its fourth second (for the long path)
    Stream,
    /// The same, and eight visitors that ask for 1 KiB beside it
    Beside,
    /// UDP: 64 visitors with one question of 64 bytes after the other
    Udp,
    /// UDP: 8 visitors with 8 datagrams of 1 KiB on their way each
    UdpBulk,
    /// 20, 200 and 2,000 idle links, held by another process (Adit only)
    Idle,
}

impl Load {
    /// Whether it is of datagrams.
    pub(crate) const fn is_udp(self) -> bool {
        matches!(self, Self::Udp | Self::UdpBulk)
    }

    /// Those of the long path.
    const FAR: [Self; 2] = [Self::Stream, Self::Beside];

    /// The loads of a run that names none.
    const ALL: [Self; 7] = [
        Self::Keepalive,
        Self::New,
        Self::Bulk1,
        Self::Bulk8,
        Self::Udp,
        Self::UdpBulk,
        Self::Idle,
    ];
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Name {
    /// No tunnel: what the machine and the origin can do
    Direct,
    /// Adit, encrypted, limits off
    Adit,
    /// Adit with its limits, deadlines and access log at their defaults
    AditDefault,
    /// Adit's TCP tunnel, which knows no HTTP, as the peers know none
    AditTcp,
    /// The same with its compression off
    AditTcpOff,
    /// rathole, unencrypted
    Rathole,
    /// rathole over Noise
    RatholeNoise,
    /// bore, unencrypted
    Bore,
    /// OpenSSH, ssh -R
    Ssh,
    /// HAProxy in TCP mode: one process between visitor and service, no tunnel
    Hop,
}

impl Name {
    /// Those of the long path: what carries bytes and can be placed apart.
    const FAR: [Self; 5] = [
        Self::Direct,
        Self::AditTcp,
        Self::Rathole,
        Self::RatholeNoise,
        Self::Ssh,
    ];

    /// The subjects of a run that names none.
    const DEFAULT: [Self; 6] = [
        Self::Direct,
        Self::Adit,
        Self::Rathole,
        Self::RatholeNoise,
        Self::Bore,
        Self::Ssh,
    ];

    /// How the table calls it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Direct => "direct (no tunnel)",
            Self::Adit => "**adit** (AES-256-GCM)",
            Self::AditDefault => "adit, default limits and access log",
            Self::AditTcp => "adit, TCP tunnel",
            Self::AditTcpOff => "adit, TCP tunnel, compression off",
            Self::Rathole => "rathole, plain",
            Self::RatholeNoise => "rathole, Noise",
            Self::Bore => "bore, plain",
            Self::Ssh => "OpenSSH -R (aes128-gcm)",
            Self::Hop => "HAProxy, one hop, no tunnel",
        }
    }
}

macro_rules! display_as_argument {
    ($($kind:ty),+) => {$(
        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.to_possible_value() {
                    Some(value) => f.write_str(value.get_name()),
                    None => Ok(()),
                }
            }
        }
    )+};
}
display_as_argument!(Load, Name);
