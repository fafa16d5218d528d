//! Where nobody is asked anything: the addresses at which clouds hand a machine's credentials to whoever asks from within. Everything else that an
//! operator configures may be asked, private networks too.
//!
//! What counts is the address that is connected to, whatever name has led there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Of AWS, Google, Azure and others; and AWS's in IPv6.
const METADATA: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254))];

/// An address that is asked nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this address hands out the machine's credentials; nothing is asked there")]
pub struct Forbidden;

fn check(address: IpAddr) -> Result<(), Forbidden> {
    if METADATA.contains(&address.to_canonical()) { Err(Forbidden) } else { Ok(()) }
}

/// Whether this may be asked, as far as an address stands in it; names are looked at when they are resolved.
///
/// # Errors
/// [`Forbidden`].
pub fn check_url(url: &Url) -> Result<(), Forbidden> {
    match url.host() {
        Some(Host::Ipv4(address)) => check(address.into()),
        Some(Host::Ipv6(address)) => check(address.into()),
        Some(Host::Domain(_)) | None => Ok(()),
    }
}

/// Where a host is, without what is asked nothing.
///
/// # Errors
/// When nobody knows the name, or nothing is left.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((host, port)).await?;
    let allowed: Vec<SocketAddr> = found.filter(|address| check(address.ip()).is_ok()).collect();
    if allowed.is_empty() { Err(io::Error::other(Forbidden)) } else { Ok(allowed) }
}

/// The machine's own way to resolve names, without what is asked nothing.
#[derive(Clone, Copy, Debug)]
pub struct Resolver;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move { Ok(Box::new(lookup(name.as_str(), 0).await?.into_iter()) as Addrs) })
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
            assert_eq!(check_url(&url.parse().unwrap()).is_ok(), allowed, "{url}");
        }
    }

    #[tokio::test]
    async fn names_are_resolved_as_ever() {
        let found: Vec<_> = Resolver.resolve("localhost".parse().unwrap()).await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
    }
}
