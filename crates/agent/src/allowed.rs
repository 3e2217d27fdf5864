//! The agent's own list of where its streams may ever lead (pure).
//!
//! It stands beside the tunnels' targets: those say where a stream is to lead,
//! this says where none may. A target's name is looked up by a resolver that
//! others may control, so each address is judged again before it is connected.
//!
//! Invariant: what no entry allows is forbidden; without a list, what the
//! tunnels name is allowed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use adit_config::parse_network;
use adit_model::HostName;
use ipnet::IpNet;

use crate::settings::Carries;
use crate::target::{Host, LOOPBACK, Place, parse_path};

/// Where an agent's streams may lead, whatever its tunnels name.
#[derive(Clone, Debug, Default)]
pub struct AllowedTargets(Option<Arc<[AllowedTarget]>>);

/// One entry: a host, an address or a network, each with its ports, or a Unix
/// socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedTarget(Entry);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Name(HostName, Ports),
    Network(IpNet, Ports),
    Socket(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports {
    from: u16,
    to: u16,
}

/// Why an entry was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllowedError {
    /// A URL.
    #[error("entries have no scheme")]
    Scheme,
    /// Nothing but a port.
    #[error("a port alone does not say where, as localhost:3000 does")]
    PortAlone,
    /// What stands behind the colon.
    #[error("ports are written 22 or 5000-5010, from 1 to 65535")]
    Ports,
    /// Colons that could be the address's or the port's.
    #[error("an IPv6 address or network is written [fd00::/8]:22 before a port")]
    Brackets,
    /// What stands before the colon.
    #[error("it begins with no host name, address or network")]
    Place,
    /// A path that is none.
    #[error("a Unix socket is written unix:/absolute/path")]
    SocketPath,
}

impl AllowedTargets {
    /// These and nothing else.
    #[must_use]
    pub fn only(entries: Vec<AllowedTarget>) -> Self {
        Self(Some(entries.into()))
    }

    /// Whether a tunnel could ever be of use: its target is allowed, or it has
    /// a name that may turn out to have an address that is.
    #[must_use]
    pub fn may_lead_to(&self, carries: &Carries) -> bool {
        let Some(entries) = &self.0 else { return true };
        match carries.place() {
            Place::Unix(path) => self.allows_socket(path),
            Place::Tcp { host, port, .. } => match host.known_addresses() {
                Some(known) => {
                    let mut known = known.into_iter().map(|ip| SocketAddr::new(ip, *port));
                    known.any(|address| self.allows(host, address))
                }
                None => entries.iter().any(|entry| entry.may_hold(host, *port)),
            },
        }
    }

    /// Whether a stream may be led to this address of a host.
    pub(crate) fn allows(&self, host: &Host, address: SocketAddr) -> bool {
        let Some(entries) = &self.0 else { return true };
        entries.iter().any(|entry| entry.holds(host, address))
    }

    /// Whether a stream may be led to this Unix socket.
    pub(crate) fn allows_socket(&self, path: &Path) -> bool {
        let Some(entries) = &self.0 else { return true };
        let is_it = |entry: &AllowedTarget| matches!(&entry.0, Entry::Socket(held) if held == path);
        entries.iter().any(is_it)
    }
}

impl AllowedTarget {
    fn holds(&self, host: &Host, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        match &self.0 {
            Entry::Name(name, ports) => {
                // `localhost` is an address as much as a name (RFC 6761 §6.3).
                let is_loopback = name.as_str() == "localhost" && LOOPBACK.contains(&ip);
                ports.hold(address.port()) && (host.is_named(name) || is_loopback)
            }
            Entry::Network(network, ports) => ports.hold(address.port()) && network.contains(&ip),
            Entry::Socket(_) => false,
        }
    }

    /// For a host whose addresses are not known yet.
    fn may_hold(&self, host: &Host, port: u16) -> bool {
        match &self.0 {
            Entry::Name(name, ports) => {
                ports.hold(port) && (host.is_named(name) || name.as_str() == "localhost")
            }
            Entry::Network(_, ports) => ports.hold(port),
            Entry::Socket(_) => false,
        }
    }
}

impl Ports {
    const ALL: Self = Self {
        from: 1,
        to: u16::MAX,
    };

    fn hold(self, port: u16) -> bool {
        (self.from..=self.to).contains(&port)
    }
}

impl FromStr for AllowedTarget {
    type Err = AllowedError;

    fn from_str(text: &str) -> Result<Self, AllowedError> {
        let text = text.trim();
        if let Some(path) = text.strip_prefix("unix:") {
            let path = parse_path(path).map_err(|_| AllowedError::SocketPath)?;
            return Ok(Self(Entry::Socket(path)));
        }
        if text.contains("://") {
            return Err(AllowedError::Scheme);
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AllowedError::PortAlone);
        }
        let (place, ports) = split(text)?;
        let ports = ports.map_or(Some(Ports::ALL), parse_ports);
        let ports = ports.ok_or(AllowedError::Ports)?;
        if let Some(network) = parse_network(place) {
            return Ok(Self(Entry::Network(network, ports)));
        }
        let name = HostName::parse(place)
            .ok()
            .filter(|name| !looks_numeric(name));
        let name = name.ok_or(AllowedError::Place)?;
        Ok(Self(Entry::Name(name, ports)))
    }
}

/// The place, and the text of its ports. Brackets hold IPv6 and nothing else.
fn split(text: &str) -> Result<(&str, Option<&str>), AllowedError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest.split_once(']').ok_or(AllowedError::Brackets)?;
        if !inner.contains(':') || parse_network(inner).is_none() {
            return Err(AllowedError::Brackets);
        }
        return match after.strip_prefix(':') {
            Some(ports) => Ok((inner, Some(ports))),
            None if after.is_empty() => Ok((inner, None)),
            None => Err(AllowedError::Brackets),
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((_, rest)) if rest.contains(':') => match parse_network(text) {
            Some(_) => Ok((text, None)),
            None => Err(AllowedError::Brackets),
        },
        Some((place, ports)) => Ok((place, Some(ports))),
    }
}

fn parse_ports(text: &str) -> Option<Ports> {
    let port = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|port| digits && *port != 0)
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (port(from)?, port(to)?);
    (from <= to).then_some(Ports { from, to })
}

/// No host name ends in a number: it is an address that was mistyped.
fn looks_numeric(name: &HostName) -> bool {
    let last = name.as_str().rsplit('.').next().unwrap_or_default();
    last.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TcpTarget;

    fn list(entries: &[&str]) -> AllowedTargets {
        let parse = |entry: &&str| entry.parse().unwrap_or_else(|e| panic!("{entry}: {e}"));
        AllowedTargets::only(entries.iter().map(parse).collect())
    }

    fn tunnel(target: &str) -> Carries {
        let target = target.parse::<TcpTarget>().unwrap();
        Carries::tcp(target, None)
    }

    fn host(target: &str) -> Host {
        match tunnel(target).place() {
            Place::Tcp { host, .. } => host.clone(),
            Place::Unix(_) => panic!("a host"),
        }
    }

    #[track_caller]
    fn judged(entries: &[&str], yes: &[&str], no: &[&str]) {
        let allowed = list(entries);
        for (targets, want) in [(yes, true), (no, false)] {
            for target in targets {
                let told = allowed.may_lead_to(&tunnel(target));
                assert_eq!(told, want, "{entries:?} {target}");
            }
        }
    }

    #[test]
    fn each_form_holds_what_it_says() {
        judged(
            &["127.0.0.1"],
            &[
                "127.0.0.1:1",
                "127.0.0.1:65535",
                "[::ffff:127.0.0.1]:80",
                "3000",
            ],
            &["127.0.0.2:1", "[::1]:80", "unix:/run/app.sock"],
        );
        judged(
            &["192.168.1.0/24:22"],
            &["192.168.1.0:22", "192.168.1.255:22"],
            &["192.168.1.5:23", "192.168.2.1:22", "3000"],
        );
        judged(
            &["nas.lan:5000-5010"],
            &["NAS.lan:5000", "nas.lan:5010"],
            &[
                "nas.lan:4999",
                "nas.lan:5011",
                "other.lan:5000",
                "10.0.0.1:5000",
            ],
        );
        judged(
            &["[fd00::/8]:22", "::1", "[::ffff:10.0.0.0/104]:80"],
            &["[fd12::1]:22", "[::1]:9", "22", "10.9.8.7:80"],
            &["[fd12::1]:23", "[fe80::1]:22", "10.9.8.7:81", "11.0.0.1:80"],
        );
        judged(
            &["localhost:3000"],
            &["3000", "127.0.0.1:3000", "[::1]:3000"],
            &["3001", "127.0.0.2:3000"],
        );
        judged(
            &["unix:/run/app.sock"],
            &["unix:/run/app.sock"],
            &["unix:/run/b.sock", "80"],
        );
        judged(&[], &[], &["3000", "unix:/run/app.sock"]);
    }

    #[test]
    fn without_a_list_the_tunnels_alone_decide() {
        let allowed = AllowedTargets::default();
        for target in ["3000", "nas.lan:1", "unix:/run/app.sock"] {
            assert!(allowed.may_lead_to(&tunnel(target)), "{target}");
        }
    }

    #[test]
    fn a_name_is_judged_again_by_each_address_that_it_has() {
        let allowed = list(&["192.168.1.0/24:22", "db.lan"]);
        assert!(allowed.may_lead_to(&tunnel("nas.lan:22")));
        assert!(!allowed.may_lead_to(&tunnel("nas.lan:23")));
        let to =
            |target: &str, address: &str| allowed.allows(&host(target), address.parse().unwrap());
        assert!(to("nas.lan:22", "192.168.1.9:22"));
        assert!(!to("nas.lan:22", "127.0.0.1:22"));
        assert!(!to("nas.lan:22", "[::ffff:127.0.0.1]:22"));
        // Whoever allows a name allows what it leads to.
        assert!(to("db.lan:1", "127.0.0.1:1"));
    }

    #[test]
    fn what_is_no_entry_is_told_apart() {
        let refused = |text: &str| text.parse::<AllowedTarget>().unwrap_err();
        assert_eq!(refused("http://nas.lan"), AllowedError::Scheme);
        assert_eq!(refused("3000"), AllowedError::PortAlone);
        for text in [
            "a:",
            "a:0",
            "a:70000",
            "a:9-1",
            "a:1-",
            "a:-5",
            "a:+5",
            "10.0.0.0/8:x",
        ] {
            assert_eq!(refused(text), AllowedError::Ports, "{text}");
        }
        for text in [
            "fd00::/8:22",
            "[::1",
            "[::1]22",
            "[10.0.0.1]:22",
            "[nas.lan]:22",
            "a:1:2",
        ] {
            assert_eq!(refused(text), AllowedError::Brackets, "{text}");
        }
        for text in [
            "",
            ":22",
            "a b",
            "*.lan",
            "10.0.0.0/33",
            "192.168.1.300",
            "10.0.0:22",
        ] {
            assert_eq!(refused(text), AllowedError::Place, "{text}");
        }
        assert_eq!(refused("unix:app.sock"), AllowedError::SocketPath);
    }
}
