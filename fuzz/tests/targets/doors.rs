//! What strangers send first at the edge's doors for bytes.

use adit_edge::announced::source;
use adit_edge::sni::asked_name;
use adit_fuzz::target;

/// Whatever a name is read from, a shorter beginning names nothing else.
#[test]
fn client_hello() {
    target("client-hello", |input| {
        let Ok(Some(name)) = asked_name(input) else {
            return;
        };
        for end in [1, 5, input.len() / 2, input.len().saturating_sub(1)] {
            let shorter = input.get(..end).unwrap_or_default();
            let read = asked_name(shorter).expect("the beginning of a good message");
            assert!(read.is_none_or(|other| other == name), "{end}");
        }
    });
}

#[test]
fn proxy_header() {
    target("proxy-header", |input| {
        if let Ok(Some(visitor)) = source(input) {
            assert!(input.starts_with(b"PROXY ") || input.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
            assert!(visitor.is_ipv4() || visitor.is_ipv6());
        }
    });
}
