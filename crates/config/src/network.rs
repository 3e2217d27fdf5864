//! Addresses and networks as people write them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Parses an address or a network (CIDR). IPv4 that is written as IPv6 is IPv4
/// (RFC 4291 §2.5.5.2), as are the addresses that networks are compared with.
#[must_use]
pub fn parse_network(text: &str) -> Option<IpNet> {
    let network = match text.trim().parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.trim().parse::<IpNet>().ok()?.trunc(),
    };
    let IpNet::V6(v6) = network else {
        return Some(network);
    };
    let inner = v6.addr().to_ipv4_mapped();
    let length = v6.prefix_len().checked_sub(96);
    let v4 = inner
        .zip(length)
        .and_then(|(ip, length)| Ipv4Net::new(ip, length).ok());
    Some(v4.map_or(network, IpNet::V4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_has_one_form() {
        let read = |text| parse_network(text).map(|network| network.to_string());
        for (text, wanted) in [
            ("192.0.2.7", "192.0.2.7/32"),
            (" 10.1.2.3/8 ", "10.0.0.0/8"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            // Wider than what holds IPv4 alone.
            ("::ffff:0.0.0.0/90", "::ffc0:0:0/90"),
        ] {
            assert_eq!(read(text).as_deref(), Some(wanted), "{text}");
        }
        for text in ["", "a", "10.0.0.0/33", "10.0.0", "10.0.0.1:80"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
