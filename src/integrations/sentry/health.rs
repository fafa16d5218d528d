//! Whether Sentry can be reached (section 4.3): a connection to where reports go, with TLS if they go so, and nothing sent over it. A test event
//! would be one more issue for somebody to look at.

use std::sync::Arc;
use std::time::Duration;

use ::sentry::types::{Dsn, Scheme};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::outgoing::address::{self, NamedBy};
use crate::outgoing::install_crypto;

/// How long it may take, all together (section 7).
const WITHIN: Duration = Duration::from_secs(2);

/// Why Sentry cannot be reached; more is nobody's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It took too long.
    #[error("it cannot be reached in time")]
    Timeout,
    /// Its name is not known.
    #[error("its name cannot be resolved")]
    Dns,
    /// Nobody takes the connection.
    #[error("nobody takes the connection")]
    Connect,
    /// Its certificate is not the right one, or it speaks no TLS.
    #[error("there is no TLS with it")]
    Tls,
}

impl Unreachable {
    /// The `code` of section 7.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
        }
    }
}

/// Connects, and hangs up.
///
/// # Errors
/// See [`Unreachable`].
pub async fn check(dsn: &Dsn) -> Result<(), Unreachable> {
    timeout(WITHIN, connect(dsn)).await.unwrap_or(Err(Unreachable::Timeout))
}

async fn connect(dsn: &Dsn) -> Result<(), Unreachable> {
    let host = dsn.host().trim_start_matches('[').trim_end_matches(']'); // an address of IPv6
    let found = address::lookup(host, dsn.port(), NamedBy::Operator).await.map_err(|_| Unreachable::Dns)?;
    let stream = TcpStream::connect(&*found).await.map_err(|_| Unreachable::Connect)?;
    if dsn.scheme() == Scheme::Http {
        return Ok(());
    }
    install_crypto();
    let config = ClientConfig::with_platform_verifier().map_err(|_| Unreachable::Tls)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Unreachable::Tls)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|_| Unreachable::Tls)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn checked(dsn: &str) -> Result<(), &'static str> {
        check(&dsn.parse().unwrap()).await.map_err(Unreachable::code)
    }

    #[tokio::test]
    async fn whoever_listens_can_be_reached() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(checked(&format!("http://key@{address}/1")).await, Ok(()));
        assert_eq!(checked(&format!("http://key@localhost:{}/1", address.port())).await, Ok(()));
    }

    #[tokio::test]
    async fn why_it_cannot_be_reached_is_one_word() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dsn = format!("https://key@{address}/1");
        let (checked_tls, ()) = tokio::join!(checked(&dsn), async {
            drop(listener.accept().await.unwrap()); // hangs up before it says anything
        });
        assert_eq!(checked_tls, Err("tls"));
        drop(listener);
        assert_eq!(checked(&format!("http://key@{address}/1")).await, Err("connect"));
        assert_eq!(checked("http://key@no-such-host.invalid/1").await, Err("dns"));
    }

    #[tokio::test]
    async fn one_that_hangs_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(checked(&format!("https://key@{address}/1")).await, Err("timeout"));
    }
}
