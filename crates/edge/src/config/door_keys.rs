//! The declaration of `[doors]`.

use std::net::IpAddr;

use adit_config::{Address, Flag, Key, ListOf, Parsed, SectionSpec};
use adit_model::PortRanges;
use ipnet::IpNet;

use super::keys::network;
use super::udp::{UDP_BIND, UDP_PORTS};

/// `[doors]`.
pub static DOORS: SectionSpec = SectionSpec {
    name: "doors",
    repeated: false,
    help: "Where the edge listens. Port 0 takes a free one.",
    keys: &[
        &HTTP,
        &TLS,
        &HTTPS,
        &HTTP_TO_HTTPS,
        &LINK_DOOR,
        &QUIC,
        &API,
        &TCP_PORTS,
        &TCP_BIND,
        &UDP_PORTS,
        &UDP_BIND,
        &PROXY_PROTOCOL,
        &TRUSTED,
    ],
};

pub(super) static HTTP: Key<Address> = Key::or(
    "http",
    Address { optional: false },
    "\"127.0.0.1:8080\"",
    "Visitors, in plain HTTP: put it behind your TLS proxy.",
);
pub(super) static TLS: Key<Address> = Key::or(
    "tls",
    Address { optional: true },
    "\"off\"",
    "Visitors over TLS that is passed on as it is, by the name it asks for, to tunnels of the kind `tls`: the services end it, the edge reads nothing of it but the name.",
);
pub(super) static HTTPS: Key<Address> = Key::or(
    "https",
    Address { optional: true },
    "\"off\"",
    "Visitors over HTTPS, `\"0.0.0.0:443\"` say. TLS ends here with the certificate of the name that is asked for (`[[certificate]]`, else one that the edge makes itself); names of tunnels of the kind `tls` are passed on as at the door `tls`. Agents come in here by WebSocket where a network lets nothing else through.",
);
pub(super) static HTTP_TO_HTTPS: Key<Flag> = Key::or(
    "http_to_https",
    Flag,
    "false",
    "Whether the HTTP door sends visitors to the same address by HTTPS (308), but for those whom a trusted proxy says to have come by it.",
);
pub(super) static LINK_DOOR: Key<Address> = Key::or(
    "link",
    Address { optional: false },
    "\"127.0.0.1:7400\"",
    "Agents. Silent to whoever proves no secret.",
);
pub(super) static QUIC: Key<Address> = Key::optional(
    "quic",
    Address { optional: true },
    "Agents over QUIC (UDP), or \"off\". Silent to whoever proves no secret. Default: as `link`.",
);
pub(super) static API: Key<Address> = Key::or(
    "api",
    Address { optional: true },
    "\"127.0.0.1:9090\"",
    "Metrics, health and letting guests in, on a loopback address only, because it asks for no login.",
);
pub(super) static TCP_PORTS: Key<Parsed<PortRanges>> = Key::or(
    "tcp_ports",
    Parsed {
        wanted: "ports and ranges, separated by commas",
        example: "2000-2999, 5432",
        parse: |text| PortRanges::parse(text).map_err(|why| why.to_string()),
    },
    "\"\"",
    "Ports that may be opened for TCP tunnels, each when an agent asks for it. Empty: this edge has no TCP tunnels.",
);
pub(super) static TCP_BIND: Key<Parsed<IpAddr>> = Key::or(
    "tcp_bind",
    Parsed {
        wanted: "an address of this machine",
        example: "0.0.0.0",
        parse: |text| text.parse().map_err(|_| String::new()),
    },
    "\"127.0.0.1\"",
    "Where those ports stand: `0.0.0.0` or `::` for everybody.",
);
pub(super) static PROXY_PROTOCOL: Key<ListOf<Parsed<IpNet>>> = Key::or(
    "proxy_protocol",
    ListOf(Parsed {
        wanted: "an address or network (CIDR)",
        example: "10.0.0.5",
        parse: network,
    }),
    "[]",
    "Load balancers whose connections to the HTTP, HTTPS and TLS doors and to TCP ports each begin with a PROXY protocol header (version 1 or 2) that names the visitor.",
);
pub(super) static TRUSTED: Key<ListOf<Parsed<IpNet>>> = Key::or(
    "trusted_proxies",
    ListOf(Parsed {
        wanted: "an address or network (CIDR)",
        example: "10.0.0.0/8",
        parse: network,
    }),
    "[]",
    "Proxies whose word about the visitor is believed (`X-Forwarded-For`, `-Proto`, `-Host`) or passed on (`Forwarded`); from everybody else these headers are dropped.",
);
