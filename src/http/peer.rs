//! Who is at the other end of a request: its address and whether its way here is encrypted.
//!
//! A proxy's word (`X-Forwarded-For` and `X-Forwarded-Proto`, else `Forwarded` of RFC 7239) counts only if the proxy is a configured one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// One end of an accepted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// Whether what it sends is encrypted on its way.
    pub encrypted: bool,
}

impl Peer {
    /// Whoever connects over a unix socket is on this machine.
    pub const LOCAL: Self = Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), encrypted: false };

    /// The client itself, if this peer is a trusted proxy that names it.
    #[must_use]
    pub fn behind_proxies(self, headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
        if !is_trusted(self.address) {
            return self;
        }
        let last = |name: &'static str| {
            let values = headers.get_all(HeaderName::from_static(name)).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).map(|part| part.trim().to_owned()).collect::<Vec<_>>()
        };
        let standard = last("forwarded");
        let of_standard =
            |name: &str| standard.iter().filter_map(|element| parameter(element, name)).collect::<Vec<_>>();
        // Each proxy adds the address it saw at the end; the first from there that is no proxy of ours is the client.
        let mut named = last("x-forwarded-for");
        if named.is_empty() {
            named = of_standard("for");
        }
        let known = named.iter().rev().map_while(|part| address_of(part));
        let mut address = self.address;
        for candidate in known {
            address = candidate.to_canonical();
            if !is_trusted(address) {
                break;
            }
        }
        let proto = last("x-forwarded-proto").pop().or_else(|| of_standard("proto").pop());
        let encrypted = match proto.as_deref() {
            Some("https" | "wss") => true,
            Some(_) => false,
            None => self.encrypted,
        };
        Self { address, encrypted }
    }
}

/// A parameter of an element of `Forwarded`, such as `for="[2001:db8::1]:80";proto=https`.
fn parameter(element: &str, name: &str) -> Option<String> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(known, _)| known.trim().eq_ignore_ascii_case(name))?.1.trim();
    Some(value.trim_matches('"').to_ascii_lowercase())
}

/// An address as proxies write it: alone, in brackets, or with the port that the client used.
fn address_of(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_s_header_counts_where_there_is_no_other() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let proxy = Peer { address: "10.0.0.1".parse().unwrap(), encrypted: false };
        for (forwarded, expected) in [
            ("for=203.0.113.9;proto=https", ("203.0.113.9", true)),
            ("For=\"[2001:db8::1]:4711\";Proto=HTTPS, for=10.2.3.4;proto=https", ("2001:db8::1", true)),
            ("for=1.2.3.4, for=203.0.113.9;by=10.0.0.1", ("203.0.113.9", false)),
            ("for=_hidden", ("10.0.0.1", false)),
            ("nothing", ("10.0.0.1", false)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("forwarded", forwarded.parse().unwrap());
            let client = proxy.behind_proxies(&headers, &trusted);
            assert_eq!((client.address.to_string().as_str(), client.encrypted), expected, "{forwarded}");
            headers.insert("x-forwarded-for", "192.0.2.7".parse().unwrap());
            assert_eq!(proxy.behind_proxies(&headers, &trusted).address.to_string(), "192.0.2.7");
        }
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1/32".parse().unwrap()];
        let peer = |address: &str| Peer { address: address.parse().unwrap(), encrypted: false };
        for (from, forwarded_for, proto, expected) in [
            ("10.0.0.1", "203.0.113.9", "https", ("203.0.113.9", true)),
            ("10.0.0.1", "1.2.3.4, 203.0.113.9, 10.9.9.9", "http", ("203.0.113.9", false)),
            ("10.0.0.1", "evil, 10.1.1.1", "https", ("10.1.1.1", true)),
            ("192.0.2.1", "203.0.113.9", "https", ("192.0.2.1", false)),
            ("::ffff:10.0.0.1", "2001:db8::1", "wss", ("2001:db8::1", true)),
            ("10.0.0.1", "203.0.113.9:51234", "http", ("203.0.113.9", false)),
            ("10.0.0.1", "[2001:db8::1]:51234, 10.9.9.9:80", "http", ("2001:db8::1", false)),
            ("10.0.0.1", "[2001:db8::1]", "http", ("2001:db8::1", false)),
            ("10.0.0.1", "203.0.113.9, unknown", "http", ("10.0.0.1", false)),
            ("10.0.0.1", "", "", ("10.0.0.1", false)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded_for.parse().unwrap());
            headers.insert("x-forwarded-proto", proto.parse().unwrap());
            let client = peer(from).behind_proxies(&headers, &trusted);
            assert_eq!((client.address.to_string().as_str(), client.encrypted), expected, "{from} {forwarded_for}");
        }
    }
}
