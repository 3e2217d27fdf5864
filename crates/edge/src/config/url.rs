//! How visitors reach the domain.

use adit_model::Domain;

/// Scheme, domain and port of the URL under which tunnels appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    scheme: &'static str,
    domain: Domain,
    /// As the URL has it; `None`: the scheme's own.
    port: Option<u16>,
}

impl PublicUrl {
    /// Reads `https://example.test` or `http://example.test:8080`.
    ///
    /// # Errors
    /// A clause that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, own, rest) = if let Some(rest) = text.strip_prefix("https://") {
            ("https", 443, rest)
        } else if let Some(rest) = text.strip_prefix("http://") {
            ("http", 80, rest)
        } else {
            return Err("it begins with neither https:// nor http://".to_owned());
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err("it has more than scheme, domain and port".to_owned());
        }
        let (domain, port) = match authority.split_once(':') {
            Some((domain, port)) => (domain, Some(super::keys::port_of(port)?)),
            None => (authority, None),
        };
        Ok(Self {
            scheme,
            domain: Domain::parse(domain).map_err(|why| why.to_string())?,
            port: port.filter(|port| *port != own),
        })
    }

    /// The domain under which tunnels have their names.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The port of it, where it is an HTTPS one.
    #[must_use]
    pub fn https_port(&self) -> Option<u16> {
        (self.scheme == "https").then(|| self.port.unwrap_or(443))
    }

    /// `https://{name}.example.test`.
    #[must_use]
    pub fn pattern(&self) -> String {
        let (scheme, host) = (self.scheme, self.domain.host());
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{scheme}://{{name}}.{host}{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_tells_where_tunnels_appear() {
        for (text, pattern) in [
            ("https://example.test", "https://{name}.example.test"),
            ("https://example.test:443/", "https://{name}.example.test"),
            (
                "https://example.test:8443",
                "https://{name}.example.test:8443",
            ),
            ("http://example.test:80", "http://{name}.example.test"),
        ] {
            assert_eq!(PublicUrl::parse(text).unwrap().pattern(), pattern);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "example.test",
            "ftp://example.test",
            "https://",
            "https://example.test/path",
            "https://example.test?q",
            "https://user@example.test",
            "https://example.test:0",
            "https://example.test:x",
            "https://{name}.example.test",
        ] {
            assert!(PublicUrl::parse(text).is_err(), "{text}");
        }
    }
}
