//! The declaration of `server.toml`: every key with its kind, default and
//! help. The parser, `adit config schema` and `docs/configuration.md` follow
//! from it.

use adit_config::{
    Choice, Flag, Folder, Key, LOG_FORMAT, LOG_LEVEL, ListOf, Number, Parsed, SecretText,
    SectionSpec, Spec, parse_network,
};
use adit_model::{Domain, HostName, PublicKey, TunnelName};
use adit_routing::{PathPrefix, Redirect, Upgrades, Upstream};
use ipnet::IpNet;

pub use super::certificate::CERTIFICATE;
pub use super::door_keys::DOORS;
pub(super) use super::door_keys::{
    API, HTTP, HTTP_TO_HTTPS, HTTPS, LINK_DOOR, PROXY_PROTOCOL, QUIC, TCP_BIND, TCP_PORTS, TLS,
    TRUSTED,
};
pub use super::limit_keys::LIMITS;
use super::limit_keys::{MEBIBYTES, SECONDS_OR_NONE};
pub use super::rule::{AGENT, TUNNEL};
pub use super::udp::UDP;
use super::{KeyPolicy, PinPolicy, PublicUrl};

/// The whole file.
pub static SPEC: Spec = Spec {
    title: "server.toml",
    help: "What `adit server --config server.toml` reads. Every table and key may be left out.",
    sections: &[
        &SERVER,
        &DOORS,
        &ADMISSION,
        &LINK,
        &LIMITS,
        &UDP,
        &LOG,
        &ROUTE,
        &TUNNEL,
        &AGENT,
        &CERTIFICATE,
    ],
};

/// `[server]`.
pub static SERVER: SectionSpec = SectionSpec {
    name: "server",
    repeated: false,
    help: "The edge itself.",
    keys: &[&DOMAIN, &URL, &PUBLIC, &DATA, &WORKERS, &DRAIN],
};

pub(super) static DOMAIN: Key<Parsed<Domain>> = Key::or(
    "domain",
    Parsed {
        wanted: "a domain",
        example: "example.test",
        parse: |text| Domain::parse(text).map_err(|why| why.to_string()),
    },
    "\"localhost\"",
    "Agents' tunnels appear as `<name>.<domain>`; DNS must lead `*.<domain>` to this machine.",
);
pub(super) static URL: Key<Parsed<PublicUrl>> = Key::optional(
    "url",
    Parsed {
        wanted: "a URL of the domain",
        example: "https://example.test",
        parse: PublicUrl::parse,
    },
    "The domain as visitors reach it, through your TLS proxy say; tunnels' URLs are told accordingly. Default: the HTTPS door, where it is open, else the HTTP door itself.",
);
pub(super) static PUBLIC: Key<Parsed<String>> = Key::optional(
    "public",
    Parsed {
        wanted: "a host and port",
        example: "edge.example.test:7400",
        parse: host_and_port,
    },
    "Where agents reach the link door from outside: what the join string carries. Default: the link door's own address.",
);
pub(super) static DATA: Key<Folder> = Key::optional(
    "data",
    Folder,
    "Folder of identity, secrets and enrolled agents, made when absent. Default: `adit/edge` in the user's data folder.",
);
pub(super) static WORKERS: Key<Number> = Key::or(
    "workers",
    Number::new(0, 1024).zero("one for each core"),
    "0",
    "Worker threads.",
);
pub(super) static DRAIN: Key<Number> = Key::or(
    "drain_seconds",
    Number::new(0, 3600).of("seconds"),
    "30",
    "How long running streams may go on after SIGTERM; nothing new is taken meanwhile.",
);

/// `[admission]`.
pub static ADMISSION: SectionSpec = SectionSpec {
    name: "admission",
    repeated: false,
    help: "Which agents may join.",
    keys: &[&SECRET, &PIN, &KEYS, &ALLOWED, &MAX_AGENTS],
};

pub(super) static SECRET: Key<SecretText> = Key::optional(
    "secret",
    SecretText,
    "The secret shared with agents, 32 random characters or more. Default: made at the first start and kept in the data folder.",
);
pub(super) static PIN: Key<Choice<PinPolicy>> = Key::or(
    "pin",
    Choice(&[
        ("enrol", PinPolicy::Enrol),
        ("every-start", PinPolicy::EveryStart),
        ("off", PinPolicy::Off),
    ]),
    "\"enrol\"",
    "Who is asked for the PIN on the edge's terminal: agents not seen before, every agent after each start, or nobody.",
);
pub(super) static KEYS: Key<Choice<KeyPolicy>> = Key::or(
    "keys",
    Choice(&[
        ("enrolled", KeyPolicy::Enrolled),
        ("listed", KeyPolicy::Listed),
    ]),
    "\"enrolled\"",
    "Which identities may join: each that passes secret and PIN, or those of `allowed_keys` only.",
);
pub(super) static ALLOWED: Key<ListOf<Parsed<PublicKey>>> = Key::or(
    "allowed_keys",
    ListOf(Parsed {
        wanted: "an agent's key",
        example: "ed25519:AbCd…",
        parse: |text| text.parse().map_err(|_| String::new()),
    }),
    "[]",
    "The identities that `keys = \"listed\"` admits, as `adit key show` prints them; with `\"enrolled\"` the list waits unused.",
);
pub(super) static MAX_AGENTS: Key<Number> = Key::or(
    "max_agents",
    Number::new(0, 1_000_000).zero("no limit"),
    "0",
    "Most agents at a time; one more is told so. Other processes of an agent that is connected count with it.",
);

/// `[link]`.
pub static LINK: SectionSpec = SectionSpec {
    name: "link",
    repeated: false,
    help: "The links to agents.",
    keys: &[
        &HEARTBEAT,
        &DEAD,
        &GRACE,
        &IDLE_CHANNELS,
        &MAX_CHANNELS,
        &MAX_TUNNELS,
    ],
};

pub(super) static HEARTBEAT: Key<Number> = Key::or(
    "heartbeat_seconds",
    Number::new(1, 30).of("seconds"),
    "10",
    "Time between heartbeats.",
);
pub(super) static DEAD: Key<Number> = Key::or(
    "dead_seconds",
    Number::new(2, 120).of("seconds"),
    "20",
    "Silence after which the other side counts as gone; above `heartbeat_seconds`.",
);
pub(super) static GRACE: Key<Number> = Key::or(
    "grace_seconds",
    Number::new(0, 3600).of("seconds"),
    "30",
    "How long a dropped link keeps its tunnels' names for its owner.",
);
pub(super) static IDLE_CHANNELS: Key<Number> = Key::or(
    "idle_channels",
    Number::new(0, 1024),
    "32",
    "Most idle channels that an agent keeps ready while there is demand.",
);
pub(super) static MAX_CHANNELS: Key<Number> = Key::or(
    "channels_per_agent",
    Number::new(1, 65_535),
    "4096",
    "Most visitor streams of one agent at a time.",
);
pub(super) static MAX_TUNNELS: Key<Number> = Key::or(
    "tunnels_per_agent",
    Number::new(1, 65_535),
    "256",
    "Most tunnels of one agent.",
);

/// `[log]`.
pub static LOG: SectionSpec = SectionSpec {
    name: "log",
    repeated: false,
    help: "The log, on stderr.",
    keys: &[&LOG_FORMAT, &LOG_LEVEL, &ACCESS, &QUERIES],
};

pub(super) static ACCESS: Key<Flag> = Key::or(
    "access",
    Flag,
    "true",
    "Whether each request, and each visitor of a TCP, TLS, UDP or private tunnel, has a line when it is over, with the backend that served it.",
);

pub(super) static QUERIES: Key<Flag> = Key::or(
    "queries",
    Flag,
    "false",
    "Whether those lines show the query of a URL, where visitors may have passwords and tokens.",
);

/// `[[route]]`.
pub static ROUTE: SectionSpec = SectionSpec {
    name: "route",
    repeated: true,
    help: "A public address of its own. Tunnels need none: they appear under the domain by themselves. Exactly one of `upstream`, `agents` and `redirect`.",
    keys: &[
        &HOST,
        &PATH,
        &UPSTREAM,
        &AGENTS,
        &REDIRECT,
        &EXCLUSIVE,
        &AUTH,
        &HOST_HEADER,
        &REWRITE,
        &UPGRADES,
        &ROUTE_ANSWER,
        &ROUTE_BODY,
    ],
};

pub(super) static HOST: Key<Parsed<HostName>> = Key::required(
    "host",
    Parsed {
        wanted: "a host name",
        example: "app.example.test",
        parse: |text| HostName::parse(text).map_err(|why| why.to_string()),
    },
    "The host name that visitors ask for.",
);
pub(super) static PATH: Key<Parsed<PathPrefix>> = Key::or(
    "path",
    Parsed {
        wanted: "a path",
        example: "/api",
        parse: |text| PathPrefix::parse(text).map_err(|why| why.to_string()),
    },
    "\"/\"",
    "Beginning of the paths that this route takes; the longest one that fits is chosen.",
);
pub(super) static UPSTREAM: Key<Parsed<Upstream>> = Key::optional(
    "upstream",
    Parsed {
        wanted: "an HTTP service that the edge reaches",
        example: "http://127.0.0.1:3000",
        parse: upstream,
    },
    "A service that the edge itself reaches.",
);
pub(super) static AGENTS: Key<Parsed<TunnelName>> = Key::optional(
    "agents",
    Parsed {
        wanted: "the name of a tunnel",
        example: "app",
        parse: |text| TunnelName::parse(text).map_err(|why| why.to_string()),
    },
    "The agents that have a tunnel of this name open.",
);
pub(super) static REDIRECT: Key<Parsed<Redirect>> = Key::optional(
    "redirect",
    Parsed {
        wanted: "a URL",
        example: "https://www.example.test",
        parse: redirect,
    },
    "Where visitors are sent instead; a URL without a path takes over theirs.",
);
pub(super) static EXCLUSIVE: Key<Flag> = Key::or(
    "exclusive",
    Flag,
    "false",
    "With `agents`: one agent at a time, others are refused.",
);
pub(super) static AUTH: Key<SecretText> = Key::optional(
    "auth",
    SecretText,
    "`user:password` that visitors must give; the password may be an Argon2id hash (`$argon2id$…`).",
);
pub(super) static HOST_HEADER: Key<Parsed<String>> = Key::optional(
    "host_header",
    Parsed {
        wanted: "a host name, perhaps with a port",
        example: "localhost:3000",
        parse: host_header,
    },
    "The `Host` that the service is shown instead of the visitor's.",
);

pub(super) static REWRITE: Key<Flag> = Key::or(
    "rewrite",
    Flag,
    "true",
    "Whether the service's own address is taken out of its answers (`Location`, cookie domains, `Server`).",
);
pub(super) static UPGRADES: Key<Choice<Upgrades>> = Key::or(
    "upgrades",
    Choice(&[
        ("websocket", Upgrades::WebSocket),
        ("any", Upgrades::Any),
        ("none", Upgrades::None),
    ]),
    "\"websocket\"",
    "Which protocol upgrades pass.",
);
pub(super) static ROUTE_ANSWER: Key<Number> = Key::optional(
    "answer_seconds",
    SECONDS_OR_NONE,
    "Time for this service to begin its answer. Default: that of `[limits]`.",
);
pub(super) static ROUTE_BODY: Key<Number> = Key::optional(
    "body_megabytes",
    MEBIBYTES,
    "Most of a request's body to this service. Default: that of `[limits]`.",
);

/// `host:port`, an IPv6 address in brackets (RFC 3986 §3.2.2).
fn host_and_port(text: &str) -> Result<String, String> {
    let text = text.trim();
    let colon = text.rfind(':').filter(|at| !text[*at..].contains(']'));
    let at = colon.ok_or("it has no port")?;
    let (host, port) = (&text[..at], &text[at + 1..]);
    let host = HostName::parse(host).map_err(|why| why.to_string())?;
    Ok(format!("{host}:{}", port_of(port)?))
}

pub(super) fn port_of(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse::<u16>().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| format!("`{text}` is not a port from 1 to 65535"))
}

/// A `Host` header's value (RFC 9110 §7.2).
fn host_header(text: &str) -> Result<String, String> {
    if text.contains(':') && !text.ends_with(']') {
        return host_and_port(text);
    }
    HostName::parse(text)
        .map(|host| host.to_string())
        .map_err(|why| why.to_string())
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    parse_network(text).ok_or_else(String::new)
}

fn upstream(text: &str) -> Result<Upstream, String> {
    if text.starts_with("https://") {
        return Err("the edge reaches upstreams in plain HTTP only; an agent beside the service can speak HTTPS to it".to_owned());
    }
    if text
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .contains('/')
    {
        return Err("it has a path, and requests bring their own".to_owned());
    }
    Upstream::parse(text).map_err(|why| why.to_string())
}

fn redirect(text: &str) -> Result<Redirect, String> {
    Redirect::parse(text).map_err(|_| String::new())
}
