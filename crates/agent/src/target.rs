//! Where a tunnel leads on the agent's side: parsed once, shown in one
//! spelling.
//!
//! Forms: `3000`, `host:port`, `[::1]:3000`, `http://host[:port]`,
//! `https://host[:port]`, `unix:/path`. A bare port means `localhost`, which
//! is both loopback addresses (RFC 6761 §6.3). A path, a query or a user name
//! is refused: an agent carries bytes and rewrites none. What is reached in
//! plain TCP has the forms without a scheme.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use adit_model::HostName;

/// Why a target was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Nothing but spaces.
    #[error("target is empty: give a port, host:port, a URL or unix:/path")]
    Empty,
    /// Neither a port nor any of the other forms.
    #[error("target {0:?} is not a port, host:port, http:// or https:// URL, or unix:/path")]
    NotATarget(String),
    /// None of the forms of a place whose bytes are carried as they are.
    #[error("target {0:?} is not a port, host:port or unix:/path")]
    NotAPlace(String),
    /// Whether the last group is the port nobody can tell.
    #[error("target {0:?}: an IPv6 address stands in brackets, as in [::1]:3000")]
    Brackets(String),
    /// A URL where no protocol is spoken.
    #[error("a TCP tunnel carries bytes as they are: write host:port, not {0:?}")]
    NotBytes(String),
    /// A URL or a Unix socket where datagrams are carried.
    #[error("a UDP tunnel carries datagrams: write a port or host:port, not {0:?}")]
    NotDatagrams(String),
    /// A scheme that no local service is reached by.
    #[error("target scheme {0:?} is not known: use http://, https:// or unix:")]
    Scheme(String),
    /// The port is missing, zero or above 65535.
    #[error("target {0:?} needs a port between 1 and 65535")]
    Port(String),
    /// The host is no name and no address.
    #[error("target host {0:?} is not a host name or an address")]
    Host(String),
    /// A path, query, fragment or user name stands in the URL.
    #[error("target {0:?} may hold no path, query or user name: only where to connect")]
    MoreThanAPlace(String),
    /// A Unix socket is named by an absolute path.
    #[error("a Unix socket target is written unix:/absolute/path")]
    SocketPath,
    /// This platform has no Unix sockets.
    #[error("Unix socket targets work on Unix systems only")]
    NoUnixSockets,
    /// Longer than a status can show.
    #[error("target is longer than 256 characters")]
    TooLong,
}

/// Longest label that is sent to an edge.
const MAX_LABEL: usize = 256;

/// A local service that speaks HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target(Place);

/// A local service whose bytes are carried as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpTarget(Place);

/// A local service that takes datagrams.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UdpTarget(Place);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Plain or TLS over TCP.
    Tcp { host: Host, port: u16, tls: bool },
    /// A Unix domain socket.
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Address(IpAddr),
    Name(HostName),
}

impl Target {
    pub(crate) fn place(&self) -> &Place {
        &self.0
    }

    /// Whether the agent speaks TLS to it.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.0, Place::Tcp { tls: true, .. })
    }

    /// The target as people write it, at most 256 characters.
    #[must_use]
    pub fn label(&self) -> String {
        self.to_string()
    }

    fn checked(self) -> Result<Self, TargetError> {
        if self.label().len() > MAX_LABEL {
            return Err(TargetError::TooLong);
        }
        Ok(self)
    }
}

impl TcpTarget {
    pub(crate) fn place(&self) -> &Place {
        &self.0
    }

    /// The target as people write it, at most 256 characters.
    #[must_use]
    pub fn label(&self) -> String {
        self.to_string()
    }
}

impl UdpTarget {
    pub(crate) fn place(&self) -> &Place {
        &self.0
    }

    /// The target as people write it, at most 256 characters.
    #[must_use]
    pub fn label(&self) -> String {
        self.to_string()
    }
}

/// What `localhost` means, whatever a resolver says (RFC 6761 §6.3).
pub(crate) const LOOPBACK: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

impl Host {
    /// Its addresses, where no resolver has a say.
    pub(crate) fn known_addresses(&self) -> Option<Vec<IpAddr>> {
        match self {
            Self::Address(address) => Some(vec![*address]),
            Self::Name(name) => (name.as_str() == "localhost").then(|| LOOPBACK.into()),
        }
    }

    pub(crate) fn is_named(&self, name: &HostName) -> bool {
        matches!(self, Self::Name(own) if own == name)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(v6)) => write!(f, "[{v6}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Place::Tcp { tls: true, .. } => "https://",
            Place::Tcp { tls: false, .. } => "http://",
            Place::Unix(_) => "",
        })?;
        self.0.fmt(f)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path)?.checked();
        }
        let target = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                tcp(text, rest, Some(80), false)
            }
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                tcp(text, rest, Some(443), true)
            }
            Some((scheme, _)) => Err(TargetError::Scheme(scheme.to_owned())),
            None if text.bytes().all(|b| b.is_ascii_digit()) => {
                tcp(text, &format!("localhost:{text}"), None, false)
            }
            None => tcp(text, text, None, false),
        };
        target?.checked()
    }
}

impl fmt::Display for TcpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Target> for TcpTarget {
    /// The same place, whatever is spoken there.
    fn from(target: Target) -> Self {
        Self(target.0)
    }
}

impl FromStr for TcpTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let text = text.trim();
        if text.contains("://") && !text.starts_with("unix:") {
            return Err(TargetError::NotBytes(shortened(text)));
        }
        match text.parse::<Target>() {
            Ok(Target(place)) => Ok(Self(place)),
            Err(TargetError::Empty | TargetError::NotATarget(_)) => {
                Err(TargetError::NotAPlace(shortened(text)))
            }
            Err(other) => Err(other),
        }
    }
}

impl fmt::Display for UdpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UdpTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.parse::<TcpTarget>() {
            Ok(TcpTarget(place @ Place::Tcp { .. })) => Ok(Self(place)),
            Ok(_) | Err(TargetError::NotBytes(_) | TargetError::NotAPlace(_)) => {
                Err(TargetError::NotDatagrams(shortened(text.trim())))
            }
            Err(other) => Err(other),
        }
    }
}

fn unix(path: &str) -> Result<Target, TargetError> {
    Ok(Target(Place::Unix(parse_path(path)?)))
}

/// The path behind `unix:`.
pub(crate) fn parse_path(path: &str) -> Result<PathBuf, TargetError> {
    let path = Path::new(path.strip_prefix("//").unwrap_or(path));
    if !cfg!(unix) {
        return Err(TargetError::NoUnixSockets);
    }
    let unprintable = |text: &str| text.contains(char::is_control);
    if !path.is_absolute() || path.to_str().is_none_or(unprintable) {
        return Err(TargetError::SocketPath);
    }
    Ok(path.to_owned())
}

fn tcp(whole: &str, rest: &str, default: Option<u16>, tls: bool) -> Result<Target, TargetError> {
    // One trailing slash is how browsers write a URL without a path.
    let authority = if default.is_some() {
        rest.strip_suffix('/').unwrap_or(rest)
    } else {
        rest
    };
    if authority.contains(['/', '?', '#', '@']) {
        return Err(TargetError::MoreThanAPlace(whole.to_owned()));
    }
    let (host, port) = split_port(authority).ok_or_else(|| not_a_target(whole))?;
    let port = match (port, default) {
        (Some(port), _) => parse_port(port).ok_or_else(|| TargetError::Port(whole.to_owned()))?,
        (None, Some(default)) => default,
        (None, None) => return Err(not_a_target(whole)),
    };
    let host = parse_host(host).ok_or_else(|| TargetError::Host(host.to_owned()))?;
    Ok(Target(Place::Tcp { host, port, tls }))
}

fn not_a_target(text: &str) -> TargetError {
    let has_groups = text.matches(':').count() > 1 && !text.contains('[');
    let what = if has_groups {
        TargetError::Brackets
    } else {
        TargetError::NotATarget
    };
    what(shortened(text))
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_LABEL).collect()
}

/// Host (brackets of an IPv6 literal kept) and port text of an authority.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, after) = authority.split_at(end);
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None if after.is_empty() => Some((host, None)),
            None => None,
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

fn parse_host(text: &str) -> Option<Host> {
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return inner.parse().ok().map(|v6| Host::Address(IpAddr::V6(v6)));
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Host::Address(address));
    }
    HostName::parse(text).ok().map(Host::Name)
}

/// The `Host` header that a service wants to see: a host, perhaps with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostHeader(String);

impl HostHeader {
    /// The header's value.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostHeader {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let refused = || TargetError::Host(shortened(text));
        let (host, port) = split_port(text.trim()).ok_or_else(refused)?;
        let host = parse_host(host).ok_or_else(refused)?;
        let port = port
            .map(|port| parse_port(port).ok_or_else(|| TargetError::Port(text.to_owned())))
            .transpose()?;
        let value = port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
        if value.len() > MAX_LABEL {
            return Err(TargetError::TooLong);
        }
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> String {
        text.parse::<Target>().unwrap().label()
    }

    #[test]
    fn every_form_has_one_spelling() {
        let cases = [
            ("3000", "http://localhost:3000"),
            (" 127.0.0.1:3000 ", "http://127.0.0.1:3000"),
            ("[::1]:3000", "http://[::1]:3000"),
            ("Box.Local:80", "http://box.local:80"),
            ("http://box.local", "http://box.local:80"),
            ("http://box.local/", "http://box.local:80"),
            ("HTTPS://[fe80::1]", "https://[fe80::1]:443"),
            ("https://box:8443/", "https://box:8443"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("unix:///run/app.sock", "unix:/run/app.sock"),
        ];
        for (text, want) in cases {
            assert_eq!(label(text), want, "{text}");
            assert_eq!(label(want), want, "a label parses as itself");
        }
        assert!("https://a".parse::<Target>().unwrap().is_tls());
        assert!(!"3000".parse::<Target>().unwrap().is_tls());
    }

    #[test]
    fn what_is_reached_in_plain_tcp_has_no_scheme() {
        let cases = [
            ("22", "localhost:22"),
            (" 192.168.1.5:22 ", "192.168.1.5:22"),
            ("[::1]:22", "[::1]:22"),
            ("Nas.Lan:5432", "nas.lan:5432"),
            ("unix:///run/db.sock", "unix:/run/db.sock"),
        ];
        for (text, want) in cases {
            let label = |text: &str| text.parse::<TcpTarget>().unwrap().label();
            assert_eq!(label(text), want, "{text}");
            assert_eq!(label(want), want, "a label parses as itself");
        }
        let refused = |text: &str| text.parse::<TcpTarget>().unwrap_err();
        for text in ["http://nas.lan:22", "HTTPS://nas.lan", "tcp://localhost:22"] {
            assert_eq!(refused(text), TargetError::NotBytes(text.to_owned()));
        }
        for text in ["", "localhost", "[::1"] {
            assert_eq!(refused(text), TargetError::NotAPlace(text.to_owned()));
        }
        assert!(matches!(refused("localhost:0"), TargetError::Port(_)));
        assert!(matches!(refused("a b:22"), TargetError::Host(_)));
        assert_eq!(refused("unix:db.sock"), TargetError::SocketPath);
    }

    #[test]
    fn a_host_header_is_a_host_and_perhaps_a_port() {
        let cases = [
            ("App.Test", "app.test"),
            ("app.test:8080", "app.test:8080"),
            ("[::1]:80", "[::1]:80"),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<HostHeader>().unwrap().as_str(), want);
        }
        for text in ["", "a b", "a/b", "a:0", "a:b", "a\r\nX: y"] {
            assert!(text.parse::<HostHeader>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_target_is_told_apart() {
        let refused = |text: &str| text.parse::<Target>().unwrap_err();
        assert_eq!(refused("  "), TargetError::Empty);
        for text in ["::1:3000", "2001:db8::7"] {
            assert!(matches!(refused(text), TargetError::Brackets(_)), "{text}");
        }
        for text in ["app", "[::1", "[::1]x:1"] {
            assert!(
                matches!(refused(text), TargetError::NotATarget(_)),
                "{text}"
            );
        }
        for text in [
            "0",
            "65536",
            "host:",
            "host:http",
            "http://host:0",
            "host:+80",
        ] {
            assert!(matches!(refused(text), TargetError::Port(_)), "{text}");
        }
        for text in ["a b:1", ":80", "http://", "[1.2.3.4]:80", "-a:80"] {
            assert!(matches!(refused(text), TargetError::Host(_)), "{text}");
        }
        for text in ["http://a/b", "http://a?x", "https://u:p@a", "a:80/"] {
            assert!(
                matches!(refused(text), TargetError::MoreThanAPlace(_)),
                "{text}"
            );
        }
        assert_eq!(refused("ftp://a"), TargetError::Scheme("ftp".into()));
        assert_eq!(refused("unix:run/app"), TargetError::SocketPath);
        let long = format!("unix:/{}", "a".repeat(256));
        assert_eq!(refused(&long), TargetError::TooLong);
    }
}
