//! Where a private service listens: scheme, host and port.

use std::fmt;

use adit_model::HostName;

/// A service's address, as an agent's target or an edge's upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether it speaks TLS (`https://`).
    pub tls: bool,
    /// A host name or address; an IPv6 address without brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

impl Origin {
    /// Reads `3000`, `:3000`, `host:3000`, `[::1]:3000`, `http://host[:port]`
    /// or `https://host[:port]`. A bare port is one of `localhost`, so that
    /// a service that listens on one family of addresses only is found.
    ///
    /// # Errors
    /// A clause that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (tls, rest, default) = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest, Some(80)),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest, Some(443)),
            Some((scheme, _)) => return Err(format!("`{scheme}` is neither http nor https")),
            None => (false, text, None),
        };
        let rest = match rest.split_once(['/', '?', '#']) {
            Some((host, "")) if default.is_some() => host,
            Some(_) => return Err("it has a path, and requests bring their own".to_owned()),
            None => rest,
        };
        if rest.contains('@') {
            return Err("it has a user name".to_owned());
        }
        let (host, port) = split_port(rest, default)?;
        Ok(Self {
            tls,
            host: host_of(host)?,
            port,
        })
    }

    /// `host:port`, an IPv6 address in brackets.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

fn split_port(rest: &str, default: Option<u16>) -> Result<(&str, u16), String> {
    if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) && default.is_none() {
        return Ok(("localhost", port_of(rest)?));
    }
    let colon = rest.rfind(':').filter(|at| !rest[*at..].contains(']'));
    match (colon, default) {
        (Some(0), None) => Ok(("localhost", port_of(&rest[1..])?)),
        (Some(at), _) => Ok((&rest[..at], port_of(&rest[at + 1..])?)),
        (None, Some(port)) => Ok((rest, port)),
        (None, None) => Err("it has no port".to_owned()),
    }
}

fn port_of(text: &str) -> Result<u16, String> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
        .ok_or_else(|| format!("`{text}` is not a port from 1 to 65535"))
}

fn host_of(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err("it has no host".to_owned());
    }
    if host.contains(':') && !host.starts_with('[') {
        return Err("an IPv6 address stands in brackets".to_owned());
    }
    let name = HostName::parse(host).map_err(|_| format!("`{host}` is not a host name"))?;
    let name = name.as_str();
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    Ok(bare.unwrap_or(name).to_owned())
}

/// Checks the value of a `Host` header: a host name and perhaps a port
/// (RFC 9110 §7.2).
///
/// # Errors
/// A clause that says what is wrong.
pub fn host_header(text: &str) -> Result<String, String> {
    let colon = text.rfind(':').filter(|at| !text[*at..].contains(']'));
    let (host, port) = match colon {
        Some(at) => (&text[..at], Some(port_of(&text[at + 1..])?)),
        None => (text, None),
    };
    let host = HostName::parse(host).map_err(|why| why.to_string())?;
    Ok(match port {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_target_is_read() {
        let cases = [
            ("3000", "http://localhost:3000"),
            (":3000", "http://localhost:3000"),
            ("127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("nas.lan:5000", "http://nas.lan:5000"),
            ("[::1]:3000", "http://[::1]:3000"),
            ("http://NAS.lan", "http://nas.lan:80"),
            ("http://nas.lan/", "http://nas.lan:80"),
            ("https://localhost", "https://localhost:443"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("HTTPS://localhost:8443", "https://localhost:8443"),
        ];
        for (text, wanted) in cases {
            assert_eq!(Origin::parse(text).unwrap().to_string(), wanted, "{text}");
        }
    }

    #[test]
    fn each_wrong_target_is_refused_with_its_reason() {
        let cases = [
            ("", "it has no port"),
            ("localhost", "it has no port"),
            ("0", "`0` is not a port from 1 to 65535"),
            ("70000", "`70000` is not a port from 1 to 65535"),
            ("localhost:+80", "`+80` is not a port from 1 to 65535"),
            ("localhost:http", "`http` is not a port from 1 to 65535"),
            ("tcp://localhost:22", "`tcp` is neither http nor https"),
            ("http://", "it has no host"),
            ("http://a b:80", "`a b` is not a host name"),
            (
                "http://localhost:80/app",
                "it has a path, and requests bring their own",
            ),
            ("http://ann:pw@localhost", "it has a user name"),
            ("::1:3000", "an IPv6 address stands in brackets"),
        ];
        for (text, wanted) in cases {
            assert_eq!(Origin::parse(text).unwrap_err(), wanted, "{text}");
        }
    }

    #[test]
    fn a_host_header_is_a_host_and_perhaps_a_port() {
        assert_eq!(host_header("App.Test:8080").unwrap(), "app.test:8080");
        assert_eq!(host_header("app.test").unwrap(), "app.test");
        assert_eq!(host_header("[::1]:80").unwrap(), "[::1]:80");
        for bad in [
            "",
            "a b",
            "app.test:",
            "app.test:x",
            "http://app.test",
            "a\r\nb",
        ] {
            assert!(host_header(bad).is_err(), "{bad:?}");
        }
    }
}
