//! `[[tunnel]]`: what each kind has, and what no two of them may share.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;
use std::num::NonZeroU16;

use adit_config::{Document, Place, Section};
use adit_model::{Code, TunnelName};

use super::keys::{self, Kind};
use crate::allowed::AllowedTargets;
use crate::settings::{By, Carries, ForwardSettings, Login, TunnelSettings};
use crate::target::{Target, TcpTarget, UdpTarget};

/// `None` when one of them is wrong. Without `allowed` no target is judged.
pub(super) fn tunnels(
    document: &Document<'_>,
    allowed: Option<&AllowedTargets>,
) -> Option<Vec<TunnelSettings>> {
    let mut names = Seen::new(document, "tunnel", "name");
    let mut ports = Seen::new(document, "port", "port");
    let mut udp_ports = Seen::new(document, "port", "port");
    let mut tunnels = Some(Vec::new());
    for section in document.sections(&keys::TUNNEL) {
        let name = section.get(&keys::NAME);
        if let Some(name) = &name {
            names.add(&section, name.clone());
        }
        let tunnel = tunnel(document, &section, name);
        if let Some(tunnel) = &tunnel {
            match tunnel.carries {
                Carries::Bytes {
                    by: By::Port(Some(port)),
                    ..
                } => ports.add(&section, port),
                Carries::Datagrams {
                    port: Some(port), ..
                } => udp_ports.add(&section, port),
                _ => {}
            }
            within(document, &section, &tunnel.carries, allowed);
        }
        match (&mut tunnels, tunnel) {
            (Some(all), Some(tunnel)) => all.push(tunnel),
            (all, _) => *all = None,
        }
    }
    tunnels
}

/// What may stand once, and where it stood first.
struct Seen<'d, T> {
    document: &'d Document<'d>,
    what: &'static str,
    key: &'static str,
    places: HashMap<T, Place>,
}

impl<'d, T: Eq + Hash + Display> Seen<'d, T> {
    fn new(document: &'d Document<'d>, what: &'static str, key: &'static str) -> Self {
        Self {
            document,
            what,
            key,
            places: HashMap::new(),
        }
    }

    fn add(&mut self, section: &Section<'_>, one: T) {
        let Some(first) = self.places.get(&one) else {
            self.places.insert(one, section.place_of(self.key));
            return;
        };
        let line = self.document.line_of(first).unwrap_or_default();
        let (what, key) = (self.what, self.key);
        let sentence = format!("the {what} `{one}` stands twice, first in line {line}");
        // A tunnel is told by its name, all else by what it is.
        let other = if key == "name" { key } else { what };
        let help = format!("give one of both another {other}");
        section.complain(Code::CONFIG_DUPLICATE, key, &sentence, Some(&help));
    }
}

/// The agent's own list: a target that it can never allow is a mistake.
fn within(
    document: &Document<'_>,
    section: &Section<'_>,
    carries: &Carries,
    allowed: Option<&AllowedTargets>,
) {
    if allowed.is_none_or(|allowed| allowed.may_lead_to(carries)) {
        return;
    }
    let list = document.section(&keys::AGENT).place_of("allowed_targets");
    let line = document.line_of(&list);
    let line = line.map_or_else(String::new, |line| format!(" of line {line}"));
    let place = carries.place();
    let sentence = format!("`target` leads to {place}, which `allowed_targets`{line} forbids");
    let help = format!("add \"{place}\" to allowed_targets under [agent], or take another target");
    section.complain(Code::CONFIG_CONFLICT, "target", &sentence, Some(&help));
}

fn tunnel(
    document: &Document<'_>,
    section: &Section<'_>,
    name: Option<TunnelName>,
) -> Option<TunnelSettings> {
    let exclusive = section.get(&keys::EXCLUSIVE);
    let carries = match section.get(&keys::KIND) {
        Some(Kind::Http) => {
            let help = "remove it, or write kind = \"tcp\"";
            misplaced(section, &["port", "proxy_protocol"], "http", help);
            let help = "remove it, or write kind = \"private\"";
            misplaced(section, &["peers"], "http", help);
            http(document, section)
        }
        Some(Kind::Tcp) => {
            let help = "remove it: a TCP tunnel carries bytes as they are";
            let keys = ["host_header", "insecure_target", "auth", "peers"];
            misplaced(section, &keys, "tcp", help);
            bytes(document, section, "tcp")
        }
        Some(Kind::Udp) => {
            let help = "remove it: a UDP tunnel carries datagrams as they are";
            let of_bytes = ["proxy_protocol", "compression", "peers"];
            let keys = [&["host_header", "insecure_target", "auth"], &of_bytes[..]].concat();
            misplaced(section, &keys, "udp", help);
            datagrams(document, section)
        }
        Some(Kind::Tls) => {
            let help = "remove it: a TLS tunnel is passed on by name as it is";
            let keys = ["host_header", "insecure_target", "auth", "port", "peers"];
            misplaced(section, &keys, "tls", help);
            bytes(document, section, "tls")
        }
        Some(Kind::Private) => {
            let help = "remove it: only other agents come in, and the edge reads nothing";
            let keys = [
                "host_header",
                "insecure_target",
                "auth",
                "port",
                "proxy_protocol",
                "compression",
            ];
            misplaced(section, &keys, "private", help);
            private(document, section)
        }
        // The other mistakes are told beside that of the kind.
        None => login(document, section).and(None),
    };
    Some(TunnelSettings {
        name,
        carries: carries?,
        exclusive: exclusive?,
        compression: section.get(&keys::COMPRESSION),
    })
}

fn misplaced(section: &Section<'_>, keys: &[&str], kind: &str, help: &str) {
    for key in keys.iter().filter(|key| section.is_given(key)) {
        let sentence = format!("`{key}` has no meaning with kind = \"{kind}\"");
        section.complain(Code::CONFIG_CONFLICT, key, &sentence, Some(help));
    }
}

fn http(document: &Document<'_>, section: &Section<'_>) -> Option<Carries> {
    let auth = login(document, section);
    let target = section.get(&keys::TARGET);
    let target = target.and_then(|text| text.parse::<Target>().ok());
    let insecure_target = section.get(&keys::INSECURE);
    if let (Some(target), Some(true)) = (&target, insecure_target)
        && !target.is_tls()
    {
        let sentence = "`insecure_target` has a meaning for https:// targets only";
        let help = Some("remove it, or write https:// before the target");
        section.complain(Code::CONFIG_CONFLICT, "insecure_target", sentence, help);
    }
    Some(Carries::Http {
        target: target?,
        insecure_target: insecure_target?,
        host_header: section.get(&keys::HOST_HEADER),
        auth: auth?,
    })
}

fn bytes(document: &Document<'_>, section: &Section<'_>, kind: &str) -> Option<Carries> {
    let given = section.given(&keys::TARGET)?;
    let Ok(target) = given.value.parse::<TcpTarget>() else {
        let url = &given.value;
        let sentence = format!(
            "`target` wants a port, host:port or unix:/path with kind = \"{kind}\", not `{url}`: \
             it carries bytes as they are"
        );
        let place = url.parse::<Target>().map(TcpTarget::from).ok()?;
        let help = format!("write \"{place}\"");
        document.complain(Code::CONFIG_BAD_VALUE, &given.place, &sentence, Some(&help));
        return None;
    };
    let port = port(section);
    Some(Carries::Bytes {
        target,
        by: match kind {
            "tls" => By::TlsName,
            _ => By::Port(port),
        },
        proxy_protocol: section.get(&keys::PROXY_PROTOCOL)?,
    })
}

fn port(section: &Section<'_>) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(section.get(&keys::PORT)?).ok()?)
}

fn datagrams(document: &Document<'_>, section: &Section<'_>) -> Option<Carries> {
    let given = section.given(&keys::TARGET)?;
    let Ok(target) = given.value.parse::<UdpTarget>() else {
        let value = &given.value;
        let sentence = format!(
            "`target` wants a port or host:port with kind = \"udp\", not `{value}`: it carries \
             datagrams"
        );
        let place = value.parse::<Target>().map(TcpTarget::from);
        let place = place.ok().and_then(|place| place.to_string().parse().ok());
        let help = place.map(|place: UdpTarget| format!("write \"{place}\""));
        document.complain(
            Code::CONFIG_BAD_VALUE,
            &given.place,
            &sentence,
            help.as_deref(),
        );
        return None;
    };
    Some(Carries::Datagrams {
        target,
        port: port(section),
    })
}

/// Nobody comes in who is not named.
fn private(document: &Document<'_>, section: &Section<'_>) -> Option<Carries> {
    let carries = bytes(document, section, "private");
    let peers = section.get(&keys::PEERS);
    if !section.is_given("peers") {
        let sentence = "a private tunnel has no `peers`: nobody could come in";
        let help = "add peers = [\"ed25519:…\"], the keys that `adit key show` prints on the agents that may";
        section.complain(Code::CONFIG_MISSING, "kind", sentence, Some(help));
    }
    let (peers, Carries::Bytes { target, .. }) = (peers?, carries?) else {
        return None;
    };
    Some(Carries::Bytes {
        target,
        by: By::Agents(peers.into_iter().collect()),
        proxy_protocol: None,
    })
}

/// `None` when one of them is wrong.
pub(super) fn forwards(document: &Document<'_>) -> Option<Vec<ForwardSettings>> {
    let mut listens = Seen::new(document, "address", "listen");
    let mut forwards = Some(Vec::new());
    for section in document.sections(&keys::FORWARD) {
        let name = section.get(&keys::FORWARD_NAME);
        let listen = section.get(&keys::FORWARD_LISTEN);
        let peer = section.get(&keys::FORWARD_PEER);
        if let Some(listen) = listen.filter(|listen| listen.port() != 0) {
            listens.add(&section, listen);
        }
        let forward = name
            .zip(listen)
            .zip(peer)
            .map(|((name, listen), peer)| ForwardSettings { name, listen, peer });
        match (&mut forwards, forward) {
            (Some(all), Some(forward)) => all.push(forward),
            (all, _) => *all = None,
        }
    }
    forwards
}

/// The outer `None`: a mistake was recorded.
fn login(document: &Document<'_>, section: &Section<'_>) -> Option<Option<Login>> {
    let Some(given) = section.given(&keys::AUTH) else {
        return (!section.is_given("auth")).then_some(None);
    };
    let text = document.reveal("auth", &given)?;
    match Login::parse(&text) {
        Ok(login) => Some(Some(login)),
        Err(why) => {
            let sentence = format!("`auth` is refused: {why}");
            document.complain(Code::BAD_AUTH, &given.place, &sentence, None);
            None
        }
    }
}
