//! The owner's rules for tunnels: `[[tunnel]]`.

use std::collections::HashMap;

use adit_config::{Document, Flag, Key, ListOf, Number, Parsed, Place, Section, SectionSpec};
use adit_model::{Code, PortRanges, PublicKey, TunnelName};
use ipnet::IpNet;

use super::Doors;
use super::keys::network;
use crate::rules::{AgentSpec, RuleSpec};

/// `[[tunnel]]`.
pub static TUNNEL: SectionSpec = SectionSpec {
    name: "tunnel",
    repeated: true,
    help: "What the owner of the edge says about agents' tunnels, whatever their agents ask for. A tunnel needs no such table. A visitor is a connection; at the HTTP and HTTPS doors a request under way, of a UDP tunnel a flow, of a private tunnel a stream of another agent, whose address is the one that its link comes from.",
    keys: &[
        &NAME,
        &MAX_AGENTS,
        &GUESTS_ONLY,
        &ALLOW,
        &DENY,
        &CONNECTIONS,
        &PER_ADDRESS,
        &PER_SECOND,
        &BYTES,
    ],
};

const COUNT: Number = Number::new(0, 10_000_000).zero("no limit");

static NAME: Key<Parsed<Option<TunnelName>>> = Key::required(
    "name",
    Parsed {
        wanted: "a tunnel's name or \"*\"",
        example: "ssh",
        parse: |text| match text {
            "*" => Ok(None),
            name => TunnelName::parse(name)
                .map(Some)
                .map_err(|why| why.to_string()),
        },
    },
    "The tunnel's name; `*` for every tunnel that has no table of its own, each counted on its own.",
);
static MAX_AGENTS: Key<Number> = Key::or(
    "max_agents",
    Number::new(0, 1024).zero("no limit"),
    "0",
    "Most agents behind the name; with 1 a newer process of the same agent takes over, others are refused.",
);
static GUESTS_ONLY: Key<Flag> = Key::or(
    "guests_only",
    Flag,
    "false",
    "Closed but for addresses (IPv6: the /64 of one) that were let in for a while: `adit guests add`. What is open then goes on when that time is over.",
);
static ALLOW: Key<ListOf<Parsed<IpNet>>> = Key::or(
    "allow",
    ListOf(NETWORK),
    "[]",
    "Addresses and networks that may visit; empty: everybody.",
);
static DENY: Key<ListOf<Parsed<IpNet>>> = Key::or(
    "deny",
    ListOf(NETWORK),
    "[]",
    "Addresses and networks that may not, whatever `allow` says.",
);
static CONNECTIONS: Key<Number> = Key::or("connections", COUNT, "0", "Most visitors at a time.");
static PER_ADDRESS: Key<Number> = Key::or(
    "connections_per_address",
    COUNT,
    "0",
    "Most visitors of one address (IPv6: one /64) at a time.",
);
static PER_SECOND: Key<Number> = Key::or(
    "connections_per_second",
    COUNT,
    "0",
    "New visitors a second, on average; a second's worth may come at once.",
);
static BYTES: Key<Number> = Key::or(
    "bytes_per_second",
    Number::new(0, 4_000_000_000).of("bytes").zero("no limit"),
    "0",
    "Bytes a second each way, of all visitors together; over HTTP, bodies of requests and answers.",
);

const NETWORK: Parsed<IpNet> = Parsed {
    wanted: "an address or network (CIDR)",
    example: "192.0.2.0/24",
    parse: network,
};

/// `[[agent]]`.
pub static AGENT: SectionSpec = SectionSpec {
    name: "agent",
    repeated: true,
    help: "What the owner of the edge says about one agent, with all its tunnels together. Agents need no such table.",
    keys: &[
        &AGENT_KEY,
        &AGENT_PORTS,
        &AGENT_UDP_PORTS,
        &AGENT_TUNNELS,
        &AGENT_FORWARD,
        &AGENT_CONNECTIONS,
        &AGENT_BYTES,
    ],
};

static AGENT_KEY: Key<Parsed<PublicKey>> = Key::required(
    "key",
    Parsed {
        wanted: "an agent's key",
        example: "ed25519:AbCd…",
        parse: |text| text.parse().map_err(|_| String::new()),
    },
    "Its identity, as `adit key show` prints it there and `adit agents list` here.",
);
static AGENT_PORTS: Key<Parsed<PortRanges>> = Key::optional(
    "tcp_ports",
    Parsed {
        wanted: "ports and ranges, separated by commas",
        example: "2000-2009",
        parse: |text| PortRanges::parse(text).map_err(|why| why.to_string()),
    },
    "The ports that its TCP tunnels may have, among those of `[doors]`; empty: none. Default: all of them.",
);
static AGENT_UDP_PORTS: Key<Parsed<PortRanges>> = Key::optional(
    "udp_ports",
    Parsed {
        wanted: "ports and ranges, separated by commas",
        example: "5000-5009",
        parse: |text| PortRanges::parse(text).map_err(|why| why.to_string()),
    },
    "The ports that its UDP tunnels may have, among those of `[doors]`; empty: none. Default: all of them.",
);
static AGENT_TUNNELS: Key<Number> = Key::or(
    "max_tunnels",
    Number::new(0, 1_000_000).zero("no limit"),
    "0",
    "Most tunnels of it at a time.",
);
static AGENT_FORWARD: Key<ListOf<Parsed<TunnelName>>> = Key::optional(
    "forward",
    ListOf(Parsed {
        wanted: "the name of a tunnel",
        example: "db",
        parse: |text| TunnelName::parse(text).map_err(|why| why.to_string()),
    }),
    "The private tunnels of other agents that it may reach (`adit forward`); empty: none. Default: all of its owner, as far as their agents let it in.",
);
static AGENT_CONNECTIONS: Key<Number> = Key::or(
    "connections",
    COUNT,
    "0",
    "Most visitors of its tunnels at a time, its own streams to private tunnels of others (`adit forward`) among them.",
);
static AGENT_BYTES: Key<Number> = Key::or(
    "bytes_per_second",
    Number::new(0, 4_000_000_000).of("bytes").zero("no limit"),
    "0",
    "Bytes a second each way, of all these together; over HTTP, bodies of requests and answers.",
);

/// A `[[tunnel]]`; without a name it is for all others.
#[derive(Clone, Debug)]
pub struct TunnelRule {
    /// Whose rule it is.
    pub name: Option<TunnelName>,
    /// What it says.
    pub spec: RuleSpec,
}

/// Reads all of them; `None` when one is wrong.
pub(super) fn rules(document: &Document<'_>) -> Option<Vec<TunnelRule>> {
    let mut seen: HashMap<Option<TunnelName>, Place> = HashMap::new();
    let mut rules = Some(Vec::new());
    for section in document.sections(&TUNNEL) {
        let read = rule(&section);
        if let Some(TunnelRule { name, .. }) = &read {
            if let Some(first) = seen.get(name) {
                let line = document.line_of(first).unwrap_or_default();
                let name = name.as_ref().map_or("*", TunnelName::as_str);
                let sentence =
                    format!("the tunnel `{name}` has a second table, the first is in line {line}");
                let help = Some("put everything into one of them");
                section.complain(Code::CONFIG_DUPLICATE, "name", &sentence, help);
            } else {
                seen.insert(name.clone(), section.place_of("name"));
            }
        }
        match (&mut rules, read) {
            (Some(all), Some(rule)) => all.push(rule),
            (all, _) => *all = None,
        }
    }
    rules
}

fn rule(section: &Section<'_>) -> Option<TunnelRule> {
    let number = |key: &Key<Number>| section.get(key);
    let spec = (|| {
        Some(RuleSpec {
            allow: section.get(&ALLOW)?,
            deny: section.get(&DENY)?,
            connections: number(&CONNECTIONS)?,
            connections_per_address: number(&PER_ADDRESS)?,
            connections_per_second: number(&PER_SECOND)?,
            bytes_per_second: number(&BYTES)?.into(),
            guests_only: section.get(&GUESTS_ONLY)?,
            max_agents: number(&MAX_AGENTS)?,
        })
    })();
    Some(TunnelRule {
        name: section.get(&NAME)?,
        spec: spec?,
    })
}

/// Reads the rules for agents, of whose ports some are to be among those of the
/// doors; `None` when one is wrong.
pub(super) fn agents(document: &Document<'_>, doors: Option<&Doors>) -> Option<Vec<AgentSpec>> {
    let mut seen: HashMap<PublicKey, Place> = HashMap::new();
    let mut agents = Some(Vec::new());
    for section in document.sections(&AGENT) {
        let read = agent(&section);
        if let (Some(agent), Some(doors)) = (&read, doors) {
            meets(
                &section,
                "tcp_ports",
                agent.ports.as_ref(),
                &doors.tcp_ports,
            );
            meets(
                &section,
                "udp_ports",
                agent.udp_ports.as_ref(),
                &doors.udp_ports,
            );
        }
        if let Some(AgentSpec { key, .. }) = &read {
            if let Some(first) = seen.get(key) {
                let line = document.line_of(first).unwrap_or_default();
                let sentence = format!("the agent has a second table, the first is in line {line}");
                let help = Some("put everything into one of them");
                section.complain(Code::CONFIG_DUPLICATE, "key", &sentence, help);
            } else {
                seen.insert(*key, section.place_of("key"));
            }
        }
        match (&mut agents, read) {
            (Some(all), Some(agent)) => all.push(agent),
            (all, _) => *all = None,
        }
    }
    agents
}

/// An agent's ports that the edge never opens are a mistake.
fn meets(section: &Section<'_>, key: &str, ports: Option<&PortRanges>, all: &PortRanges) {
    if ports.is_some_and(|ports| !ports.is_empty() && !all.meets(ports)) {
        let sentence = format!("`{key}` holds none of the ports that the edge opens");
        let help = format!("take some of {key} under [doors], or \"\" for none");
        section.complain(Code::CONFIG_CONFLICT, key, &sentence, Some(&help));
    }
}

/// The outer `None`: they are wrong.
fn ports(section: &Section<'_>, key: &Key<Parsed<PortRanges>>) -> Option<Option<PortRanges>> {
    match section.get(key) {
        None if section.is_given(key.name) => None,
        ports => Some(ports),
    }
}

fn agent(section: &Section<'_>) -> Option<AgentSpec> {
    let tcp_ports = ports(section, &AGENT_PORTS);
    let udp_ports = ports(section, &AGENT_UDP_PORTS);
    let rule = (|| {
        Some(RuleSpec {
            connections: section.get(&AGENT_CONNECTIONS)?,
            bytes_per_second: section.get(&AGENT_BYTES)?.into(),
            ..RuleSpec::default()
        })
    })();
    let max_tunnels = section.get(&AGENT_TUNNELS);
    let forward = match section.get(&AGENT_FORWARD) {
        None if section.is_given("forward") => None,
        forward => Some(forward),
    };
    Some(AgentSpec {
        key: section.get(&AGENT_KEY)?,
        ports: tcp_ports?,
        udp_ports: udp_ports?,
        max_tunnels: max_tunnels? as usize,
        forward: forward?,
        rule: rule?,
    })
}
