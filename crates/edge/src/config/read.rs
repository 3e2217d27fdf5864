//! From the declared keys to an [`EdgeConfig`], and what no single key can
//! know: settings that contradict each other.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use adit_config::{
    Document, Input, Key, LOG_FORMAT, LOG_LEVEL, Mistakes, Number, Section, default_data,
};
use adit_model::{Code, Psk, SecretError};

use super::certificate::certificates;
use super::route::routes;
use super::rule::{agents, rules};
use super::udp;
use super::{Admission, Doors, EdgeConfig, KeyPolicy, Limits, Link, Log, Server, keys, limit_keys};

pub(super) fn edge(input: Input<'_>) -> Result<EdgeConfig, Mistakes> {
    let document = Document::read(&keys::SPEC, input);
    // Each part reports its own mistakes before any of them ends the whole.
    let server = server(&document);
    let doors = doors(&document.section(&keys::DOORS));
    let admission = admission(&document);
    let link = link(&document.section(&keys::LINK));
    let limits = limits(&document.section(&keys::LIMITS));
    let udp = udp::udp(&document.section(&keys::UDP));
    let log = log(&document.section(&keys::LOG));
    let routes = routes(&document, limits.as_ref());
    let rules = rules(&document);
    let agents = agents(&document, doors.as_ref());
    let certificates = certificates(&document);
    let config = (|| {
        Some(EdgeConfig {
            server: server?,
            doors: doors?,
            admission: admission?,
            link: link?,
            limits: limits?,
            udp: udp?,
            log: log?,
            routes: routes?,
            rules: rules?,
            agents: agents?,
            certificates: certificates?,
        })
    })();
    document.finish(config)
}

fn server(document: &Document<'_>) -> Option<Server> {
    let section = document.section(&keys::SERVER);
    let data = match section.given(&keys::DATA) {
        Some(given) => Some(document.path(&given.value, &given.place)),
        None if section.is_given("data") => None,
        None => default_data(&|name| document.variable(name), "edge").or_else(|| {
            let sentence = "no data folder: neither `data` nor HOME is set";
            let help = Some("set data = \"/var/lib/adit\" under [server]");
            section.complain(Code::CONFIG_MISSING, "data", sentence, help);
            None
        }),
    };
    let url = section.get(&keys::URL);
    let domain = match &url {
        Some(url) if !section.is_given("domain") => Some(url.domain().clone()),
        _ => section.get(&keys::DOMAIN),
    };
    if let (Some(domain), Some(url)) = (&domain, &url)
        && url.domain() != domain
    {
        let (own, other) = (domain.host(), url.domain().host());
        let sentence = format!("`url` is of {other}, and tunnels appear under {own}");
        let help = format!("set domain = \"{other}\", or `url` to one of {own}");
        section.complain(Code::CONFIG_CONFLICT, "url", &sentence, Some(&help));
    }
    Some(Server {
        domain: domain?,
        url,
        public: section.get(&keys::PUBLIC),
        data: data?,
        workers: NonZeroUsize::new(number(&section, &keys::WORKERS)? as usize),
        drain: seconds(&section, &keys::DRAIN)?,
    })
}

fn doors(section: &Section<'_>) -> Option<Doors> {
    let http = section.get(&keys::HTTP).flatten();
    let link = section.get(&keys::LINK_DOOR).flatten();
    let api = section.get(&keys::API);
    let tls = section.get(&keys::TLS);
    let https = section.get(&keys::HTTPS);
    let to_https = section.get(&keys::HTTP_TO_HTTPS);
    let named = [
        ("http", http),
        ("tls", tls.flatten()),
        ("https", https.flatten()),
        ("link", link),
        ("api", api.flatten()),
    ];
    for (at, (name, address)) in named.iter().enumerate() {
        let Some(address) = address else { continue };
        let same = named[..at]
            .iter()
            .find(|(_, other)| other.is_some_and(|other| overlap(other, *address)));
        if let Some((other, _)) = same {
            let sentence = format!("the doors `{other}` and `{name}` share the address {address}");
            let help = Some("give each door its own port");
            section.complain(Code::CONFIG_DUPLICATE, name, &sentence, help);
        }
    }
    if let Some(Some(address)) = api
        && !address.ip().is_loopback()
    {
        let sentence =
            format!("the API door asks for no login, so {address} would show it to others");
        let help = format!("use \"127.0.0.1:{}\" or \"off\"", address.port());
        section.complain(Code::CONFIG_CONFLICT, "api", &sentence, Some(&help));
    }
    if let (Some(None), Some(true)) = (https, to_https) {
        let sentence = "`http_to_https` sends visitors to a door that is switched off";
        let help = "open it: https = \"0.0.0.0:443\"";
        section.complain(Code::CONFIG_CONFLICT, "http_to_https", sentence, Some(help));
    }
    Some(Doors {
        http: http?,
        https: https?,
        http_to_https: to_https?,
        link: link?,
        quic: match section.given(&keys::QUIC) {
            Some(given) => given.value,
            None if section.is_given("quic") => return None,
            None => link,
        },
        api: api?,
        tls: tls?,
        tcp_ports: section.get(&keys::TCP_PORTS)?,
        tcp_bind: section.get(&keys::TCP_BIND)?,
        udp_ports: section.get(&udp::UDP_PORTS)?,
        udp_bind: section.get(&udp::UDP_BIND)?,
        proxy_protocol: section.get(&keys::PROXY_PROTOCOL)?,
        trusted_proxies: section.get(&keys::TRUSTED)?,
    })
}

/// Whether two doors would want the same address; port 0 never does.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = a.ip().is_unspecified() || b.ip().is_unspecified() || a.ip() == b.ip();
    a.port() == b.port() && a.port() != 0 && covers
}

fn admission(document: &Document<'_>) -> Option<Admission> {
    let section = document.section(&keys::ADMISSION);
    let policy = section.get(&keys::KEYS);
    let allowed = section.get(&keys::ALLOWED);
    let secret = secret(document, &section);
    if let (Some(KeyPolicy::Listed), Some([])) = (policy, allowed.as_deref()) {
        let sentence = "`keys = \"listed\"` with no `allowed_keys` admits nobody";
        let help = "add allowed_keys = [\"ed25519:…\"], as `adit key show` prints it on the agent";
        section.complain(Code::CONFIG_CONFLICT, "keys", sentence, Some(help));
    }
    Some(Admission {
        secret: secret?,
        pin: section.get(&keys::PIN)?,
        keys: policy?,
        allowed_keys: allowed?,
        max_agents: number(&section, &keys::MAX_AGENTS)?,
    })
}

/// The outer `None`: a mistake was recorded.
fn secret(document: &Document<'_>, section: &Section<'_>) -> Option<Option<Psk>> {
    let Some(given) = section.given(&keys::SECRET) else {
        return (!section.is_given("secret")).then_some(None);
    };
    let text = document.reveal("secret", &given)?;
    match Psk::parse(&text) {
        Ok(psk) => Some(Some(psk)),
        Err(why) => {
            let help = match why {
                SecretError::TooLong => "keep it to 1024 bytes",
                _ => {
                    "leave `secret` out and one is made, or take the output of: openssl rand -hex 32"
                }
            };
            document.complain(
                Code::SECRET_WEAK,
                &given.place,
                &format!("`secret` is refused: {why}"),
                Some(help),
            );
            None
        }
    }
}

fn link(section: &Section<'_>) -> Option<Link> {
    let heartbeat = seconds(section, &keys::HEARTBEAT);
    let dead = seconds(section, &keys::DEAD);
    if let (Some(heartbeat), Some(dead)) = (heartbeat, dead)
        && dead <= heartbeat
    {
        let sentence = format!(
            "`dead_seconds` ({}) is not above `heartbeat_seconds` ({})",
            dead.as_secs(),
            heartbeat.as_secs()
        );
        let help = Some("twice the heartbeat is a good value");
        section.complain(Code::CONFIG_CONFLICT, "dead_seconds", &sentence, help);
    }
    Some(Link {
        heartbeat: heartbeat?,
        dead: dead?,
        grace: seconds(section, &keys::GRACE)?,
        idle_channels: small(section, &keys::IDLE_CHANNELS)?,
        max_channels: small(section, &keys::MAX_CHANNELS)?,
        max_tunnels: number(section, &keys::MAX_TUNNELS)?,
    })
}

fn limits(section: &Section<'_>) -> Option<Limits> {
    let n = |key| number(section, key);
    Some(Limits {
        connections: n(&limit_keys::ALL_CONNECTIONS)?,
        connections_per_address: n(&limit_keys::CONNECTIONS)?,
        requests_per_second: n(&limit_keys::REQUESTS)?,
        request_burst: n(&limit_keys::BURST)?,
        trusted_factor: n(&limit_keys::FACTOR)?,
        refusals_before_ban: n(&limit_keys::REFUSALS)?,
        pins_before_ban: n(&limit_keys::PINS)?,
        proofs_before_ban: n(&limit_keys::PROOFS)?,
        logins_before_ban: n(&limit_keys::LOGINS)?,
        handshakes_before_ban: n(&limit_keys::HANDSHAKES)?,
        ban_window: seconds(section, &limit_keys::WINDOW)?,
        ban: seconds(section, &limit_keys::BAN)?,
        addresses: n(&limit_keys::ADDRESSES)?,
        unproved: n(&limit_keys::UNPROVED)?,
        head: seconds(section, &limit_keys::HEAD)?,
        head_bytes: n(&limit_keys::HEAD_BYTES)?,
        idle: seconds(section, &limit_keys::IDLE)?,
        body_bytes: nonzero_mebibytes(n(&limit_keys::BODY_BYTES)?),
        body_rate: n(&limit_keys::BODY_RATE)?,
        answer: nonzero_seconds(n(&limit_keys::ANSWER)?),
    })
}

fn log(section: &Section<'_>) -> Option<Log> {
    Some(Log {
        format: section.get(&LOG_FORMAT)?,
        level: section.get(&LOG_LEVEL)?,
        access: section.get(&keys::ACCESS)?,
        queries: section.get(&keys::QUERIES)?,
    })
}

pub(super) fn nonzero_mebibytes(count: u32) -> Option<u64> {
    (count > 0).then_some(u64::from(count) << 20)
}

pub(super) fn nonzero_seconds(count: u32) -> Option<Duration> {
    (count > 0).then_some(Duration::from_secs(u64::from(count)))
}

fn number(section: &Section<'_>, key: &Key<Number>) -> Option<u32> {
    section.get(key)
}

fn small(section: &Section<'_>, key: &Key<Number>) -> Option<u16> {
    number(section, key).and_then(|n| u16::try_from(n).ok())
}

fn seconds(section: &Section<'_>, key: &Key<Number>) -> Option<Duration> {
    number(section, key).map(|n| Duration::from_secs(u64::from(n)))
}
