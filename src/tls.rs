//! Certificates of the main listener, read again on SIGHUP.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsOptions;
use crate::outgoing::install_crypto;

/// The certificate in use; who is connected keeps the one it began with.
#[derive(Debug)]
pub struct Tls {
    options: TlsOptions,
    current: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the certificate and its key; `None` if there are none to read.
    ///
    /// # Errors
    /// Names the option and the file that cannot be used.
    pub fn load(options: &TlsOptions) -> anyhow::Result<Option<Self>> {
        let (Some(cert), Some(key)) = (&options.cert, &options.key) else { return Ok(None) };
        install_crypto();
        Ok(Some(Self { options: options.clone(), current: ArcSwap::from(read(cert, key)?) }))
    }

    /// Reads the files again; when they cannot be used, what was read before stays.
    pub fn reload(&self) {
        let (Some(cert), Some(key)) = (&self.options.cert, &self.options.key) else { return };
        match read(cert, key) {
            Ok(config) => {
                self.current.store(config);
                tracing::info!("the certificate was read again; new connections get it");
            }
            Err(error) => tracing::error!(error = format!("{error:#}"), "the certificate stays as it was"),
        }
    }

    /// For one handshake.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }
}

fn read(cert: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let (chain, private) = match (read_chain(cert), read_key(key)) {
        (Ok(chain), Ok(private)) => (chain, private),
        (Err(cert), Err(key)) => anyhow::bail!("{cert:#}\n{key:#}"), // all problems at once
        (Err(problem), Ok(_)) | (Ok(_), Err(problem)) => return Err(problem),
    };
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .context("tls.cert and tls.key do not belong together")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn read_chain(cert: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let problem = || format!("tls.cert: {} cannot be used: it must hold certificates as PEM", cert.display());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(cert).with_context(problem)?.collect();
    let chain = chain.with_context(problem)?;
    anyhow::ensure!(!chain.is_empty(), problem());
    Ok(chain)
}

fn read_key(key: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let problem = || format!("tls.key: {} cannot be used: it must hold a private key as PEM", key.display());
    PrivateKeyDer::from_pem_file(key).with_context(problem)
}
