//! Where nobody is asked anything: the addresses at which clouds hand a machine's credentials to whoever asks from within. Everything else that an
//! operator configures may be asked, private networks too; where an address was told by somebody else, only what all the world can reach.
//!
//! What counts is the address that is connected to, whatever name has led there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Of AWS, Google, Azure and others; and AWS's in IPv6.
const METADATA: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254))];

/// Who has named the addresses that are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The operator.
    Operator,
    /// Somebody else, over HTTP.
    Others,
}

/// An address that is asked nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// See the module.
    #[error("this address hands out the machine's credentials; nothing is asked there")]
    Metadata,
    /// See the module.
    #[error("this address is one of a private network or of this machine; nothing is asked there for others")]
    Private,
}

fn check(address: IpAddr, named_by: NamedBy) -> Result<(), Forbidden> {
    let address = address.to_canonical();
    if METADATA.contains(&address) {
        return Err(Forbidden::Metadata);
    }
    if named_by == NamedBy::Others && !is_public(address) { Err(Forbidden::Private) } else { Ok(()) }
}

/// Whether an address is neither this machine's nor one of a private network, of a link, of a carrier, of a test or of many at once.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let is_of_carrier = first == 100 && (64..128).contains(&second);
            !(address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_broadcast()
                || address.is_documentation()
                || address.is_multicast()
                || is_of_carrier
                || first == 0
                || first >= 240
                || (first, second) == (198, 18)
                || (first, second) == (198, 19)
                || (first, second) == (192, 0))
        }
        // Global addresses are 2000::/3, where 2001::/23, 6to4 (2002::/16) and the documentation's (2001:db8::/32) lead elsewhere.
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            first & 0xe000 == 0x2000 && first != 0x2002 && !(first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        }
    }
}

/// Whether this may be asked, as far as an address stands in it; names are looked at when they are resolved.
///
/// # Errors
/// [`Forbidden`].
pub fn check_url(url: &Url, named_by: NamedBy) -> Result<(), Forbidden> {
    match url.host() {
        Some(Host::Ipv4(address)) => check(address.into(), named_by),
        Some(Host::Ipv6(address)) => check(address.into(), named_by),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

/// Where a host is. One that leads to what is asked nothing as well leads nowhere.
///
/// # Errors
/// When nobody knows the name, or it leads there.
pub async fn lookup(host: &str, port: u16, named_by: NamedBy) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    found.iter().try_for_each(|address| check(address.ip(), named_by)).map_err(io::Error::other)?;
    Ok(found)
}

/// The machine's own way to resolve names, without what is asked nothing.
#[derive(Clone, Copy, Debug)]
pub struct Resolver(pub NamedBy);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(named_by) = *self;
        Box::pin(async move { Ok(Box::new(lookup(name.as_str(), 0, named_by).await?.into_iter()) as Addrs) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_the_machine_are_asked_for_under_no_spelling() {
        for (url, allowed) in [
            ("http://169.254.169.254/latest/meta-data/", false),
            ("http://[::ffff:169.254.169.254]/", false),
            ("http://0xa9fea9fe/", false),
            ("http://2852039166/", false),
            ("http://[fd00:ec2::254]/", false),
            ("http://169.254.169.253/", true),
            ("http://10.0.0.1/", true),
            ("http://127.0.0.1:3000/", true),
            ("http://[::1]/", true),
            ("http://example.com/", true),
        ] {
            assert_eq!(check_url(&url.parse().unwrap(), NamedBy::Operator).is_ok(), allowed, "{url}");
        }
    }

    #[test]
    fn whoever_names_an_address_over_http_gets_no_further_than_from_outside() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "224.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "240.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "2001:db8::1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
        ] {
            assert!(check(address.parse().unwrap(), NamedBy::Others).is_err(), "{address}");
        }
        for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "192.169.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(check(address.parse().unwrap(), NamedBy::Others).is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_none_for_others() {
        let error = Resolver(NamedBy::Others).resolve("localhost".parse().unwrap()).await.err().unwrap();
        assert!(error.to_string().contains("private"), "{error}");
    }

    #[tokio::test]
    async fn names_are_resolved_as_ever() {
        let found: Vec<_> = Resolver(NamedBy::Operator).resolve("localhost".parse().unwrap()).await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}
