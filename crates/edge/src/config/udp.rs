//! `[udp]`: what flows of UDP tunnels may cost; and where their ports stand,
//! which `[doors]` says.

use std::net::IpAddr;
use std::time::Duration;

use adit_config::{Key, Number, Parsed, Section, SectionSpec};
use adit_model::PortRanges;

/// `[udp]`.
pub static UDP: SectionSpec = SectionSpec {
    name: "udp",
    repeated: false,
    help: "Flows of UDP tunnels: what one visitor's address and port say to a public port. Each is a connection for the rules of `[[tunnel]]`; what finds no room is dropped and counted.",
    keys: &[&IDLE, &ANSWERED, &FLOWS, &PER_PORT, &PER_ADDRESS],
};

pub(super) static UDP_PORTS: Key<Parsed<PortRanges>> = Key::or(
    "udp_ports",
    Parsed {
        wanted: "ports and ranges, separated by commas",
        example: "5000-5999, 53",
        parse: |text| PortRanges::parse(text).map_err(|why| why.to_string()),
    },
    "\"\"",
    "Ports that may be opened for UDP tunnels, each when an agent asks for it. Empty: this edge has no UDP tunnels.",
);
pub(super) static UDP_BIND: Key<Parsed<IpAddr>> = Key::or(
    "udp_bind",
    Parsed {
        wanted: "an address of this machine",
        example: "0.0.0.0",
        parse: |text| text.parse().map_err(|_| String::new()),
    },
    "\"127.0.0.1\"",
    "Where those ports stand: `0.0.0.0` or `::` for everybody. An answer leaves from the address that its visitor wrote to.",
);
static IDLE: Key<Number> = Key::or(
    "idle_seconds",
    Number::new(1, 86_400).of("seconds"),
    "60",
    "Time without a datagram after which a flow is over.",
);
static ANSWERED: Key<Number> = Key::or(
    "answered_seconds",
    Number::new(1, 86_400).of("seconds"),
    "15",
    "The same, where shorter, for a visitor that sent one datagram and was answered, as DNS does: most have nothing more to say, and a flow costs a channel.",
);
static FLOWS: Key<Number> = Key::or(
    "flows",
    Number::new(1, 10_000_000),
    "4096",
    "Most flows at a time; never more than half of all visitors, because anybody can begin one in anybody's name.",
);
static PER_PORT: Key<Number> = Key::or(
    "flows_per_port",
    Number::new(1, 10_000_000),
    "1024",
    "Most flows of one port.",
);
static PER_ADDRESS: Key<Number> = Key::or(
    "flows_per_address",
    Number::new(0, 10_000_000).zero("no limit"),
    "256",
    "Most flows of one address (IPv6: one /64), on all ports.",
);

/// What flows may cost.
#[derive(Clone, Copy, Debug)]
pub struct Udp {
    /// Time without a datagram after which a flow is over.
    pub idle: Duration,
    /// The same for one that was answered once.
    pub answered: Duration,
    /// Most flows.
    pub flows: u32,
    /// Most flows of one port.
    pub per_port: u32,
    /// Most flows of one address; 0 = no limit.
    pub per_address: u32,
}

/// `None` when something is wrong.
pub(super) fn udp(section: &Section<'_>) -> Option<Udp> {
    let number = |key: &Key<Number>| section.get(key);
    let seconds = |key| number(key).map(|n| Duration::from_secs(u64::from(n)));
    Some(Udp {
        idle: seconds(&IDLE)?,
        answered: seconds(&ANSWERED)?,
        flows: number(&FLOWS)?,
        per_port: number(&PER_PORT)?,
        per_address: number(&PER_ADDRESS)?,
    })
}
