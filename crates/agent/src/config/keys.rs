//! The declaration of `client.toml`: every key with its kind, default and
//! help. The parser, `adit config schema` and `docs/configuration.md` follow
//! from it.

use std::net::{Ipv4Addr, SocketAddr};

use adit_config::{
    Choice, Flag, Folder, Key, LOG_FORMAT, LOG_LEVEL, ListOf, Number, Parsed, SecretText,
    SectionSpec, Spec,
};
use adit_model::{Carrier, PublicKey, TunnelName};
use adit_wire::Compression;

use crate::allowed::{AllowedError, AllowedTarget};
use crate::announce::ProxyProtocol;
use crate::settings::{NoPeer, Peer};
use crate::target::{HostHeader, Target, TargetError};

/// The whole file.
pub static SPEC: Spec = Spec {
    title: "client.toml",
    help: "What `adit client --config client.toml` reads: one agent, any number of tunnels.",
    sections: &[&AGENT, &TUNNEL, &FORWARD, &LOG],
};

/// `[agent]`.
pub static AGENT: SectionSpec = SectionSpec {
    name: "agent",
    repeated: false,
    help: "The agent itself.",
    keys: &[
        &EDGE, &DATA, &PIN, &ALLOWED, &CARRIER, &PROXY, &WORKERS, &DRAIN,
    ],
};

pub(super) static EDGE: Key<SecretText> = Key::optional(
    "edge",
    SecretText,
    "The join string (`adit1…`) that the edge prints. Default: the edge that `adit join` remembered.",
);
pub(super) static DATA: Key<Folder> = Key::optional(
    "data",
    Folder,
    "Folder of identity, edges and names, made when absent. Default: `adit/agent` in the user's data folder.",
);
pub(super) static PIN: Key<SecretText> = Key::optional(
    "pin",
    SecretText,
    "The PIN on the edge's terminal, read only when the edge wants it. Default: asked for at the terminal.",
);
pub(super) static ALLOWED: Key<ListOf<Parsed<AllowedTarget>>> = Key::optional(
    "allowed_targets",
    ListOf(Parsed {
        wanted: "a host, address, network or unix:/path",
        example: "192.168.1.0/24:22",
        parse: |text| text.parse().map_err(|why: AllowedError| why.to_string()),
    }),
    "Where streams may ever lead, whatever tunnels and edges say: `nas.lan`, `127.0.0.1`, `192.168.1.0/24:22`, `[fd00::/8]:5000-5010`, `unix:/path`. A name that is not listed itself is judged by its address, at each connect. Default: the targets of the tunnels.",
);

pub(super) static CARRIER: Key<Choice<Option<Carrier>>> = Key::or(
    "carrier",
    Choice(&[
        ("auto", None),
        ("tcp", Some(Carrier::Tcp)),
        ("quic", Some(Carrier::Quic)),
        ("websocket", Some(Carrier::WebSocket)),
    ]),
    "\"auto\"",
    "What the link's bytes travel in. `auto` tries what the edge has, remembers what worked on each network and looks for a better one now and then.",
);
pub(super) static PROXY: Key<SecretText> = Key::optional(
    "proxy",
    SecretText,
    "The way out of this network for TCP and WebSockets: `http://host:port` or `socks5://host:port`, perhaps with `user:password@`. Default: none; a WebSocket goes by HTTPS_PROXY or ALL_PROXY where those are set.",
);
pub(super) static WORKERS: Key<Number> = Key::or(
    "workers",
    Number::new(0, 1024).zero("one for each core"),
    "2",
    "Threads that carry visitors' streams.",
);
pub(super) static DRAIN: Key<Number> = Key::or(
    "drain_seconds",
    Number::new(0, 3600).of("seconds"),
    "10",
    "How long open streams may go on after SIGTERM.",
);

/// `[[tunnel]]`.
pub static TUNNEL: SectionSpec = SectionSpec {
    name: "tunnel",
    repeated: true,
    help: "One private service that is published.",
    keys: &[
        &NAME,
        &KIND,
        &TARGET,
        &PORT,
        &PEERS,
        &PROXY_PROTOCOL,
        &HOST_HEADER,
        &INSECURE,
        &AUTH,
        &EXCLUSIVE,
        &COMPRESSION,
    ],
};

pub(super) static NAME: Key<Parsed<TunnelName>> = Key::optional(
    "name",
    Parsed {
        wanted: "a name",
        example: "app",
        parse: |text| TunnelName::parse(text).map_err(|why| why.to_string()),
    },
    "First label of the public host name; a TCP or UDP tunnel has it only to be called by. Default: a random one, remembered for the target.",
);
/// What a tunnel carries, by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Http,
    Tcp,
    Udp,
    Tls,
    Private,
}

pub(super) static KIND: Key<Choice<Kind>> = Key::or(
    "kind",
    Choice(&[
        ("http", Kind::Http),
        ("tcp", Kind::Tcp),
        ("udp", Kind::Udp),
        ("tls", Kind::Tls),
        ("private", Kind::Private),
    ]),
    "\"http\"",
    "What the tunnel carries: requests for a host name, the bytes or the datagrams of a public port, TLS for a host name, passed on as it is, or the bytes of other agents, through no public door.",
);
// As text, because each kind takes it its own way. What TCP takes is a part of
// what HTTP takes.
pub(super) static TARGET: Key<Parsed<String>> = Key::required(
    "target",
    Parsed {
        wanted: "a service's port, host:port or URL",
        example: "127.0.0.1:3000",
        parse: |text| {
            let target = text.parse::<Target>().map_err(|why| reason(&why));
            target.map(|_| text.to_owned())
        },
    },
    "The private service, seen from the agent: `3000`, `host:port`, `http://…`, `https://…` or `unix:/path`; with `kind = \"tcp\"` no URL, with `\"udp\"` no path either.",
);
pub(super) static PORT: Key<Number> = Key::optional(
    "port",
    Number::new(1, u16::MAX as u32),
    "With `kind = \"tcp\"` or `\"udp\"`: the public port on the edge. Default: one that the edge chooses.",
);
pub(super) static PEERS: Key<ListOf<Parsed<Peer>>> = Key::optional(
    "peers",
    ListOf(Parsed {
        wanted: "an agent's key",
        example: "ed25519:AbCd…",
        parse: |text| text.parse().map_err(|_: NoPeer| String::new()),
    }),
    "With `kind = \"private\"`, which must have it: the agents that may come in, by the keys that `adit key show` prints there; `*` for all of the same owner.",
);
pub(super) static PROXY_PROTOCOL: Key<Choice<Option<ProxyProtocol>>> = Key::or(
    "proxy_protocol",
    Choice(&[
        ("off", None),
        ("v1", Some(ProxyProtocol::V1)),
        ("v2", Some(ProxyProtocol::V2)),
    ]),
    "\"off\"",
    "With `kind = \"tcp\"` or `\"tls\"`: the header that tells the target its visitor's address before the first byte. The target must expect it.",
);
pub(super) static HOST_HEADER: Key<Parsed<HostHeader>> = Key::optional(
    "host_header",
    Parsed {
        wanted: "a host name, perhaps with a port",
        example: "localhost:3000",
        parse: |text| text.parse().map_err(|_| String::new()),
    },
    "The `Host` that the service is shown instead of the visitor's.",
);
pub(super) static INSECURE: Key<Flag> = Key::or(
    "insecure_target",
    Flag,
    "false",
    "With an `https://` target: its certificate goes unchecked (self-signed, on your own network).",
);
pub(super) static AUTH: Key<SecretText> = Key::optional(
    "auth",
    SecretText,
    "`user:password` that visitors must give to the edge; it is hashed before it leaves the agent.",
);
pub(super) static EXCLUSIVE: Key<Flag> = Key::or(
    "exclusive",
    Flag,
    "false",
    "Whether no other agent may share the name.",
);

pub(super) static COMPRESSION: Key<Choice<Compression>> = Key::optional(
    "compression",
    Choice(&[
        ("off", Compression::Off),
        ("auto", Compression::Auto),
        ("always", Compression::Always),
    ]),
    "Whether streams are compressed (LZ4) between agent and edge: never, where it is likely to pay, or each frame. Default: `auto` with `kind = \"tcp\"`, else `off`. A length tells of secrets that share a frame with text of an attacker's choice: leave it off where requests carry both.",
);

/// `[[forward]]`.
pub static FORWARD: SectionSpec = SectionSpec {
    name: "forward",
    repeated: true,
    help: "A local port that leads to a private tunnel of another agent.",
    keys: &[&FORWARD_NAME, &FORWARD_LISTEN, &FORWARD_PEER],
};
pub(super) static FORWARD_NAME: Key<Parsed<TunnelName>> = Key::required(
    "name",
    Parsed {
        wanted: "a name",
        example: "db",
        parse: |text| TunnelName::parse(text).map_err(|why| why.to_string()),
    },
    "The tunnel's name.",
);
pub(super) static FORWARD_LISTEN: Key<Parsed<SocketAddr>> = Key::required(
    "listen",
    Parsed {
        wanted: "a port, or an address with a port",
        example: "127.0.0.1:5432",
        parse: |text| listen(text).ok_or_else(String::new),
    },
    "Where programs of this machine reach it; a port alone is one of 127.0.0.1.",
);
pub(super) static FORWARD_PEER: Key<Parsed<PublicKey>> = Key::required(
    "peer",
    Parsed {
        wanted: "an agent's key",
        example: "ed25519:AbCd…",
        parse: |text| text.parse().map_err(|_| String::new()),
    },
    "The key of the agent that has the tunnel, as `adit key show` prints it there. Whoever else answers is refused.",
);

/// A local address: a port alone is one of the loopback interface.
#[must_use]
pub fn listen(text: &str) -> Option<SocketAddr> {
    match text.parse::<u16>() {
        Ok(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => text.parse().ok(),
    }
}

/// `[log]`.
pub static LOG: SectionSpec = SectionSpec {
    name: "log",
    repeated: false,
    help: "The log, on stderr.",
    keys: &[&LOG_FORMAT, &LOG_LEVEL],
};

/// What a refused target says beyond what the key wants.
fn reason(why: &TargetError) -> String {
    match why {
        TargetError::Empty | TargetError::NotATarget(_) => String::new(),
        TargetError::Scheme(scheme) => format!("the scheme `{scheme}` is not known"),
        TargetError::Port(_) => "a port is a number from 1 to 65535".to_owned(),
        TargetError::Host(host) => format!("`{host}` is not a host name"),
        TargetError::MoreThanAPlace(_) => {
            "it has a path, a query or a user name, and requests bring their own".to_owned()
        }
        TargetError::Brackets(_) => {
            "an IPv6 address stands in brackets, as in [::1]:3000".to_owned()
        }
        TargetError::SocketPath
        | TargetError::NoUnixSockets
        | TargetError::TooLong
        | TargetError::NotAPlace(_)
        | TargetError::NotBytes(_)
        | TargetError::NotDatagrams(_) => why.to_string(),
    }
}
