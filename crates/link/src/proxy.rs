//! The ways out of a network that lets nothing out directly: HTTP proxies by
//! `CONNECT` (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928, RFC 1929).
//!
//! A proxy sees whom the agent calls and how much is said, never what: the
//! link's handshake runs through it end to end.

use std::fmt;
use std::io;
use std::str::FromStr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;
use zeroize::Zeroizing;

/// Most bytes of a proxy's answer that are looked at.
const MAX_ANSWER: usize = 8 * 1024;
/// Most fields in it.
const MAX_FIELDS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Socks5,
}

/// A proxy: `http://proxy.lan:3128`, `socks5://user:password@10.0.0.1:1080`.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    login: Option<(String, Zeroizing<String>)>,
}

/// The text is no proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a proxy is written http://host:port or socks5://host:port, perhaps with user:password@")]
pub struct NoProxy;

impl FromStr for Proxy {
    type Err = NoProxy;

    fn from_str(text: &str) -> Result<Self, NoProxy> {
        let url = url::Url::parse(text).map_err(|_| NoProxy)?;
        let (kind, port) = match url.scheme() {
            "http" => (Kind::Http, 80),
            "socks5" | "socks5h" => (Kind::Socks5, 1080),
            _ => return Err(NoProxy),
        };
        let is_bare = matches!(url.path(), "" | "/") && url.query().is_none();
        let host = url.host_str().filter(|host| !host.is_empty());
        let (Some(host), true) = (host, is_bare) else {
            return Err(NoProxy);
        };
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => Some((
                decoded(user)?,
                Zeroizing::new(decoded(password.unwrap_or_default())?),
            )),
        };
        Ok(Self {
            kind,
            host: host.to_owned(),
            port: url.port().unwrap_or(port),
            login,
        })
    }
}

/// Undoes percent-encoding (RFC 3986 §2.1).
fn decoded(text: &str) -> Result<String, NoProxy> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    let text = decoded.map_err(|_| NoProxy)?;
    if text.chars().any(char::is_control) {
        return Err(NoProxy);
    }
    Ok(text.into_owned())
}

impl fmt::Display for Proxy {
    /// Without its login.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Socks5 => "socks5",
        };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl Proxy {
    /// `host:port` of the proxy itself.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A connection to `target` (`host:port`, resolved by the proxy).
    ///
    /// # Errors
    /// The socket's, and the proxy's refusal in words.
    pub async fn connect(&self, target: &str) -> io::Result<TcpStream> {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let mut socket = TcpStream::connect((host, self.port)).await?;
        socket.set_nodelay(true)?;
        match self.kind {
            Kind::Http => {
                self.ask_http(&mut socket, target).await?;
                Ok(socket)
            }
            Kind::Socks5 => self.ask_socks(socket, target).await,
        }
    }

    async fn ask_socks(&self, socket: TcpStream, target: &str) -> io::Result<TcpStream> {
        let asked = match &self.login {
            None => Socks5Stream::connect_with_socket(socket, target).await,
            Some((user, password)) => {
                Socks5Stream::connect_with_password_and_socket(socket, target, user, password).await
            }
        };
        match asked {
            Ok(stream) => Ok(stream.into_inner()),
            Err(tokio_socks::Error::Io(error)) => Err(error),
            Err(error) => Err(refused(self, &error.to_string())),
        }
    }

    async fn ask_http(&self, socket: &mut TcpStream, target: &str) -> io::Result<()> {
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some((user, password)) = &self.login {
            let login = Zeroizing::new(format!("{user}:{}", password.as_str()));
            let login = data_encoding::BASE64.encode(login.as_bytes());
            request.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
        }
        request.push_str("\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::with_capacity(512);
        loop {
            if socket.read_buf(&mut answer).await? == 0 {
                return Err(refused(self, "it closed the connection"));
            }
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut head = httparse::Response::new(&mut fields);
            let parsed = head.parse(&answer);
            let Ok(parsed) = parsed else {
                return Err(refused(self, "its answer is not HTTP"));
            };
            if parsed.is_partial() {
                if answer.len() >= MAX_ANSWER {
                    return Err(refused(self, "its answer is too long"));
                }
                continue;
            }
            return match head.code {
                // Whoever is behind it speaks second: nothing can follow yet.
                Some(200..=299) if parsed == httparse::Status::Complete(answer.len()) => Ok(()),
                Some(200..=299) => Err(refused(self, "it sent more than its answer")),
                code => Err(refused(
                    self,
                    &format!(
                        "{} {}",
                        code.unwrap_or_default(),
                        head.reason.unwrap_or_default()
                    ),
                )),
            };
        }
    }
}

fn refused(proxy: &Proxy, why: &str) -> io::Error {
    let kind = io::ErrorKind::PermissionDenied;
    io::Error::new(kind, format!("proxy {proxy} refused: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_and_never_shows_its_login() {
        let proxy: Proxy = "http://ann:p%40ss@proxy.lan:3128".parse().unwrap();
        assert_eq!(proxy.to_string(), "http://proxy.lan:3128");
        assert!(!format!("{proxy:?}").contains("p@ss"));
        let (user, password) = proxy.login.unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("ann", "p@ss"));
        assert_eq!(
            "socks5://10.0.0.1".parse::<Proxy>().unwrap().to_string(),
            "socks5://10.0.0.1:1080"
        );
        for wrong in [
            "proxy.lan:3128",
            "ftp://x",
            "http://",
            "http://x/path",
            "http://a%0d@x",
        ] {
            assert_eq!(wrong.parse::<Proxy>(), Err(NoProxy), "{wrong}");
        }
    }
}
