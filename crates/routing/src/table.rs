//! Routes and their table.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adit_model::{Domain, HostName, NameError, TunnelName};

use crate::path::{PathPrefix, normal_path, prefixes};

/// A TCP address behind the edge that speaks plain HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// A host name or an address literal.
    pub host: HostName,
    /// The port.
    pub port: u16,
}

/// Why an upstream was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// Not `http://host` with an optional port.
    #[error("an upstream is written http://host:port")]
    Form,
    /// The host is no host.
    #[error(transparent)]
    Host(#[from] NameError),
}

impl Upstream {
    /// Parses `http://host[:port]`, with or without a slash at the end.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub fn parse(text: &str) -> Result<Self, UpstreamError> {
        let rest = text.strip_prefix("http://").ok_or(UpstreamError::Form)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| UpstreamError::Form)?)
            }
            _ => (rest, 80),
        };
        if port == 0 {
            return Err(UpstreamError::Form);
        }
        Ok(Self {
            host: HostName::parse(host)?,
            port,
        })
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// An answer that sends the visitor elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    to: Box<str>,
    keeps_path: bool,
}

impl Redirect {
    /// Parses an absolute URL. One without a path takes over the visitor's
    /// path and query.
    ///
    /// # Errors
    /// [`UpstreamError::Form`] when it is no `http` or `https` URL of
    /// printable ASCII.
    pub fn parse(text: &str) -> Result<Self, UpstreamError> {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or(UpstreamError::Form)?;
        if rest.is_empty() || !rest.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UpstreamError::Form);
        }
        Ok(Self {
            to: text.into(),
            keeps_path: !rest.contains(['/', '?', '#']),
        })
    }

    /// Appends where a request for `path` and `query` goes.
    pub fn write(&self, out: &mut Vec<u8>, path: &[u8], query: Option<&[u8]>) {
        out.extend_from_slice(self.to.as_bytes());
        if self.keeps_path {
            out.extend_from_slice(if path == b"*" { b"/" } else { path });
            if let Some(query) = query {
                out.push(b'?');
                out.extend_from_slice(query);
            }
        }
    }
}

/// What a route leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The live tunnels of a name.
    Tunnel(TunnelName),
    /// An address behind the edge.
    Upstream(Upstream),
    /// Elsewhere.
    Redirect(Redirect),
}

/// Which upgrades a route lets through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrades {
    /// None.
    None,
    /// WebSocket (RFC 6455).
    #[default]
    WebSocket,
    /// Any protocol.
    Any,
}

/// What a route asks of the door besides its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOptions {
    /// `user:hash` that basic authentication is checked against.
    pub auth: Option<Arc<str>>,
    /// The Host that the backend gets in place of the visitor's.
    pub host_header: Option<Arc<str>>,
    /// Whether the backend's own address is taken out of answers.
    pub rewrite: bool,
    /// Upgrades that pass.
    pub upgrades: Upgrades,
    /// Longest wait for the head of an answer; `None` waits for ever.
    pub response_timeout: Option<Duration>,
    /// Most bytes of a request body.
    pub body_limit: Option<u64>,
    /// One agent at a time may hold the name.
    pub exclusive: bool,
}

impl Default for RouteOptions {
    fn default() -> Self {
        Self {
            auth: None,
            host_header: None,
            rewrite: true,
            upgrades: Upgrades::default(),
            response_timeout: None,
            body_limit: None,
            exclusive: false,
        }
    }
}

/// A public address and what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host, exactly.
    pub host: HostName,
    /// The path prefix; empty for the whole host.
    pub path: PathPrefix,
    /// Where it leads.
    pub target: Target,
    /// The rest.
    pub options: RouteOptions,
}

/// Why a table could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Two routes have one host and one path.
    #[error("two routes lead from {host}{path}")]
    Twice {
        /// Their host.
        host: HostName,
        /// Their path.
        path: String,
    },
}

/// The routes of one host.
#[derive(Debug, Default)]
struct HostRoutes {
    by_prefix: HashMap<PathPrefix, Arc<Route>>,
    deepest: usize,
}

/// An immutable table of routes.
#[derive(Debug)]
pub struct RouteTable {
    domain: Domain,
    hosts: HashMap<HostName, HostRoutes>,
}

/// What a lookup found.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A route of the table.
    Route(&'a Arc<Route>),
    /// No route, but a name below the domain: the tunnel of this label, if one
    /// is live.
    Tunnel(&'a str),
}

impl RouteTable {
    /// Builds a table.
    ///
    /// # Errors
    /// [`TableError::Twice`].
    pub fn new(domain: Domain, routes: Vec<Route>) -> Result<Self, TableError> {
        let mut hosts: HashMap<HostName, HostRoutes> = HashMap::new();
        for route in routes {
            let host = hosts.entry(route.host.clone()).or_default();
            host.deepest = host.deepest.max(route.path.depth());
            let (path, route) = (route.path.clone(), Arc::new(route));
            if let Some(first) = host.by_prefix.insert(path, route) {
                return Err(TableError::Twice {
                    host: first.host.clone(),
                    path: String::from_utf8_lossy(first.path.as_bytes()).into_owned(),
                });
            }
        }
        Ok(Self { domain, hosts })
    }

    /// The domain that tunnels' names lie below.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// All routes, in no order.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.hosts.values().flat_map(|h| h.by_prefix.values())
    }

    /// The route of a host and a path as it stands in the request.
    #[must_use]
    pub fn lookup<'a>(&'a self, host: &'a HostName, path: &[u8]) -> Option<Found<'a>> {
        self.hosts
            .get(host)
            .and_then(|routes| {
                let path = normal_path(path);
                prefixes(&path, routes.deepest).find_map(|p| routes.by_prefix.get(p))
            })
            .map(Found::Route)
            .or_else(|| self.domain.label_of(host).map(Found::Tunnel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    fn route(at: &str, path: &str, port: u16) -> Route {
        Route {
            host: host(at),
            path: PathPrefix::parse(path).unwrap(),
            target: Target::Upstream(Upstream {
                host: host("127.0.0.1"),
                port,
            }),
            options: RouteOptions::default(),
        }
    }

    fn table() -> RouteTable {
        let routes = vec![
            route("shop.test", "/", 1),
            route("shop.test", "/api", 2),
            route("shop.test", "/api/v2", 3),
            route("app.example.test", "/api", 4),
        ];
        RouteTable::new(Domain::parse("example.test").unwrap(), routes).unwrap()
    }

    fn port(table: &RouteTable, at: &str, path: &str) -> String {
        match table.lookup(&host(at), path.as_bytes()) {
            Some(Found::Route(route)) => match &route.target {
                Target::Upstream(upstream) => upstream.port.to_string(),
                other => format!("{other:?}"),
            },
            Some(Found::Tunnel(label)) => label.to_owned(),
            None => String::new(),
        }
    }

    #[test]
    fn the_longest_prefix_wins_at_segments() {
        let table = table();
        for (path, expected) in [
            ("/", "1"),
            ("/apix", "1"),
            ("/ap", "1"),
            ("/api", "2"),
            ("/api/", "2"),
            ("/api/v1", "2"),
            ("/api/v2", "3"),
            ("/api/v2/x/y/z", "3"),
            ("/api/v22", "2"),
            ("//api//v2", "3"),
            ("/%61pi/v2;x", "3"),
            ("/api%2Fv2", "1"),
            ("*", "1"),
        ] {
            assert_eq!(port(&table, "shop.test", path), expected, "{path}");
        }
    }

    #[test]
    fn names_below_the_domain_lead_to_tunnels() {
        let table = table();
        assert_eq!(port(&table, "web.example.test", "/"), "web");
        assert_eq!(port(&table, "app.example.test", "/api/x"), "4");
        assert_eq!(port(&table, "app.example.test", "/other"), "app");
        assert_eq!(port(&table, "example.test", "/"), "");
        assert_eq!(port(&table, "a.b.example.test", "/"), "");
        assert_eq!(port(&table, "other.test", "/"), "");
    }

    #[test]
    fn one_address_has_one_route() {
        let routes = vec![route("a.test", "/x/", 1), route("A.test.", "//%78", 2)];
        let error = RouteTable::new(Domain::parse("d.test").unwrap(), routes).unwrap_err();
        assert_eq!(error.to_string(), "two routes lead from a.test/x");
    }

    #[test]
    fn upstreams_and_redirects_are_read() {
        let parse = |text| Upstream::parse(text).map(|u| u.to_string());
        assert_eq!(
            parse("http://127.0.0.1:3000").as_deref(),
            Ok("127.0.0.1:3000")
        );
        assert_eq!(parse("http://[::1]/").as_deref(), Ok("[::1]:80"));
        assert_eq!(parse("http://[::1]:8000/").as_deref(), Ok("[::1]:8000"));
        for bad in [
            "127.0.0.1:80",
            "https://a",
            "http://a:0",
            "http://a:x",
            "http://a/b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let go = |to: &str| {
            let mut out = Vec::new();
            Redirect::parse(to)
                .unwrap()
                .write(&mut out, b"/p", Some(b"q"));
            String::from_utf8(out).unwrap()
        };
        assert_eq!(go("https://new.test"), "https://new.test/p?q");
        assert_eq!(go("https://new.test/"), "https://new.test/");
        assert_eq!(go("https://new.test/a?b"), "https://new.test/a?b");
        for bad in ["new.test", "ftp://a", "https://", "https://a b"] {
            assert!(Redirect::parse(bad).is_err(), "{bad}");
        }
    }
}
