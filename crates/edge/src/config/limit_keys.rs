//! The declaration of `[limits]`.

use adit_config::{Key, Number, SectionSpec};

/// `[limits]`.
pub static LIMITS: SectionSpec = SectionSpec {
    name: "limits",
    repeated: false,
    help: "What one address (IPv6: one /64) may do, and how long things may take. Loopback and trusted proxies are limited, never banned.",
    keys: &[
        &ALL_CONNECTIONS,
        &CONNECTIONS,
        &REQUESTS,
        &BURST,
        &FACTOR,
        &REFUSALS,
        &PINS,
        &PROOFS,
        &LOGINS,
        &HANDSHAKES,
        &WINDOW,
        &BAN,
        &ADDRESSES,
        &UNPROVED,
        &HEAD,
        &HEAD_BYTES,
        &IDLE,
        &BODY_BYTES,
        &BODY_RATE,
        &ANSWER,
    ],
};

/// A size for which 0 switches the limit off.
pub(super) const MEBIBYTES: Number = Number::new(0, 16_777_216).of("MiB").zero("no limit");
/// A time for which 0 switches the limit off.
pub(super) const SECONDS_OR_NONE: Number = Number::new(0, 86_400).of("seconds").zero("no limit");
/// Counts for which 0 switches the limit off.
const COUNT: Number = Number::new(0, 10_000_000).zero("no limit");
/// Failures for which 0 means that they never ban.
const STRIKES: Number = Number::new(0, 1_000_000).zero("never");

pub(super) static ALL_CONNECTIONS: Key<Number> = Key::or(
    "connections",
    Number::new(0, 10_000_000).zero("as many as the system's limit of open files allows"),
    "0",
    "Open connections of all visitors; more are closed at once.",
);
pub(super) static CONNECTIONS: Key<Number> = Key::or(
    "connections_per_address",
    COUNT,
    "2048",
    "Open connections of one address. Channels of agents do not count.",
);
pub(super) static REQUESTS: Key<Number> = Key::or(
    "requests_per_second",
    COUNT,
    "1000",
    "Requests of one address, on average; above it visitors get 429. A TLS handshake counts as one, and is refused above it.",
);
pub(super) static BURST: Key<Number> = Key::or(
    "request_burst",
    Number::new(0, 10_000_000).zero("one second's worth"),
    "0",
    "Requests of one address that may come at once after a pause.",
);
pub(super) static FACTOR: Key<Number> = Key::or(
    "trusted_factor",
    Number::new(1, 10_000),
    "16",
    "So many times more may come through a trusted proxy.",
);
pub(super) static REFUSALS: Key<Number> = Key::or(
    "refusals_before_ban",
    STRIKES,
    "1000",
    "Refused connections and requests of one address within `ban_window_seconds` that ban it.",
);
pub(super) static PINS: Key<Number> = Key::or(
    "pins_before_ban",
    STRIKES,
    "5",
    "Wrong PINs from one address that ban it.",
);
pub(super) static PROOFS: Key<Number> = Key::or(
    "proofs_before_ban",
    STRIKES,
    "30",
    "First messages at the link door without a known secret that ban their address.",
);
pub(super) static LOGINS: Key<Number> = Key::or(
    "logins_before_ban",
    STRIKES,
    "20",
    "Wrong user names or passwords of a route that ban their address.",
);
pub(super) static HANDSHAKES: Key<Number> = Key::or(
    "handshakes_before_ban",
    STRIKES,
    "200",
    "Connections to the HTTPS door that are no TLS, or whose handshake fails or never ends, that ban their address.",
);
pub(super) static WINDOW: Key<Number> = Key::or(
    "ban_window_seconds",
    Number::new(1, 86_400).of("seconds"),
    "600",
    "Over which time failures are counted.",
);
pub(super) static BAN: Key<Number> = Key::or(
    "ban_seconds",
    Number::new(1, 604_800).of("seconds"),
    "600",
    "How long a ban lasts; `adit bans` lists, speaks and lifts them. A banned address begins nothing at any door: no connection, request, flow or link, no stream to a private tunnel. Datagrams of its flows are dropped; streams that are open go on.",
);
pub(super) static ADDRESSES: Key<Number> = Key::or(
    "tracked_addresses",
    Number::new(1024, 10_000_000),
    "65536",
    "Most addresses remembered at a time, which bounds the memory; the stalest goes first.",
);
pub(super) static UNPROVED: Key<Number> = Key::or(
    "unproved_connections",
    Number::new(1, 1_000_000),
    "1024",
    "Connections at the link door that have proved no secret yet; one more pushes out the oldest.",
);
pub(super) static HEAD: Key<Number> = Key::or(
    "head_seconds",
    Number::new(1, 300).of("seconds"),
    "10",
    "Time for a request's whole head.",
);
pub(super) static HEAD_BYTES: Key<Number> = Key::or(
    "head_bytes",
    Number::new(1024, 65_536).of("bytes"),
    "65536",
    "Most bytes of a request's head.",
);
pub(super) static IDLE: Key<Number> = Key::or(
    "idle_seconds",
    Number::new(1, 3600).of("seconds"),
    "60",
    "How long a kept-alive connection may be silent between requests.",
);
pub(super) static BODY_BYTES: Key<Number> = Key::or(
    "body_megabytes",
    MEBIBYTES,
    "0",
    "Most of a request's body; above it visitors get 413.",
);
pub(super) static BODY_RATE: Key<Number> = Key::or(
    "body_bytes_per_second",
    COUNT,
    "500",
    "A request's body that comes slower is cut off.",
);
pub(super) static ANSWER: Key<Number> = Key::or(
    "answer_seconds",
    SECONDS_OR_NONE,
    "300",
    "Time for a service to begin its answer; above it visitors get 504.",
);
