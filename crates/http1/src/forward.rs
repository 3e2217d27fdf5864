//! What a backend is told about the visitor, and who the visitor is.

use std::net::IpAddr;

use crate::host::Authority;
use crate::{Name, Request, fields};

/// The facts that a forwarded request carries besides its own.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// Host for the backend; `None` keeps the visitor's.
    pub host: Option<&'a [u8]>,
    /// The connection's peer address, without port or brackets.
    pub peer: &'a str,
    /// The client's address: the peer's, or what [`client_address`] found.
    pub client: &'a str,
    /// See [`Client::hops`]; 0 where the peer is not trusted.
    pub hops: usize,
    /// Whether the peer is a trusted proxy, whose forwarded fields are kept
    /// and extended; all others' are dropped.
    pub trusted: bool,
    /// The scheme this door speaks, `http` or `https`.
    pub scheme: &'a str,
    /// The request's id.
    pub request_id: &'a [u8],
    /// Pass the upgrade on.
    pub upgrade: bool,
    /// The door has judged Authorization: it is not for the backend.
    pub drop_authorization: bool,
}

impl Forwarding<'_> {
    /// The scheme the visitor used: a trusted proxy's word, else this door's.
    #[must_use]
    pub fn visitor_scheme(&self, request: &Request<'_>) -> &str {
        match last(request, Name::XForwardedProto).filter(|_| self.trusted) {
            Some(b"https") => "https",
            Some(b"http") => "http",
            _ => self.scheme,
        }
    }

    /// The Host the visitor used: a trusted proxy's word, else the field.
    #[must_use]
    pub fn visitor_host<'r>(&self, request: &Request<'r>) -> &'r [u8] {
        last(request, Name::XForwardedHost)
            .filter(|host| self.trusted && Authority::parse(host).is_some())
            .unwrap_or_else(|| request.host())
    }
}

/// The last element of a forwarded list field: the nearest proxy's word.
fn last<'r>(request: &Request<'r>, id: Name) -> Option<&'r [u8]> {
    request
        .fields()
        .rev()
        .filter(|(field, _, _)| field.id == id && !field.listed)
        .find_map(|(_, _, value)| fields::list(value).next_back())
}

/// Who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// How many elements at the end of `X-Forwarded-For` proxies vouch for, its
    /// own first; what stands before them anybody may have written.
    pub hops: usize,
}

/// The client: from the peer backwards along `X-Forwarded-For`, the
/// first address that is not a trusted proxy's; the last one known where the
/// list ends or holds no address.
#[must_use]
pub fn client_address(
    request: &Request<'_>,
    peer: IpAddr,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Client {
    let mut client = Client {
        address: peer,
        hops: 0,
    };
    for hop in hops(request).rev() {
        if !is_trusted(client.address) {
            break;
        }
        match address(hop) {
            Some(address) => client.address = address,
            None => break,
        }
        client.hops += 1;
    }
    client
}

/// The elements of `X-Forwarded-For`, the nearest proxy's last.
pub(crate) fn hops<'r>(request: &Request<'r>) -> impl DoubleEndedIterator<Item = &'r [u8]> {
    request
        .fields()
        .filter(|(field, _, _)| field.id == Name::XForwardedFor && !field.listed)
        .flat_map(|(_, _, value)| fields::list(value))
}

/// An address with or without a port and brackets.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Some(inner) = text.strip_prefix('[') {
        return inner.split(']').next()?.parse().ok();
    }
    text.rsplit_once(':')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, RequestHead};

    #[test]
    fn the_walk_stops_at_the_first_untrusted_hop() {
        let client = |fields: &str, peer: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let mut head = RequestHead::default();
            assert_eq!(head.parse(text.as_bytes(), &Limits::default()), Ok(true));
            let trusted = |ip: IpAddr| ip.to_string().starts_with("10.");
            let peer = peer.parse().unwrap();
            let found = client_address(&head.view(text.as_bytes()), peer, trusted);
            format!("{} {}", found.address, found.hops)
        };
        let list = "X-Forwarded-For: 6.6.6.6, 9.9.9.9\r\nX-Forwarded-For: 10.0.0.2\r\n";
        assert_eq!(client(list, "10.0.0.1"), "9.9.9.9 2");
        assert_eq!(client(list, "8.8.8.8"), "8.8.8.8 0");
        assert_eq!(client("", "10.0.0.1"), "10.0.0.1 0");
        assert_eq!(
            client("X-Forwarded-For: unknown\r\n", "10.0.0.1"),
            "10.0.0.1 0"
        );
        assert_eq!(
            client("X-Forwarded-For: [2001:db8::1]:80\r\n", "10.0.0.1"),
            "2001:db8::1 1"
        );
        assert_eq!(
            client("X-Forwarded-For: 9.9.9.9:1234\r\n", "10.0.0.1"),
            "9.9.9.9 1"
        );
    }
}
