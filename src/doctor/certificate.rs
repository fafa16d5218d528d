//! Certificates: those of the configuration, and the one that the world is shown.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{Findings, Patient};
use crate::tls::Tls;

/// With so few days left somebody should know.
const SOON: i64 = 14;

/// What `tls.cert` and `tls.key` hold.
pub(super) async fn files(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let options = &patient.config().tls;
    if let Err(error) = Tls::load(options) {
        findings.wrong(format!("{error:#}"), "both must be PEM, and belong together");
        return findings;
    }
    let Some(path) = &options.cert else { return findings };
    let Some(chain) = read(path) else { return findings };
    let host = patient.public.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    if let Some(own) = chain.first() {
        served(own, host, &mut findings);
        // One that signs itself has no chain.
        let is_alone = chain.len() == 1;
        let issued = X509Certificate::from_der(own).is_ok_and(|(_, own)| own.issuer() != own.subject());
        if is_alone && issued {
            let text = "tls.cert has no intermediate certificate: many clients will not find who issued it";
            findings.hint(text, "put the chain into it, the server's own first (fullchain.pem)");
        }
    }
    findings
}

fn read(path: &Path) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path).ok()?.collect::<Result<_, _>>().ok()
}

/// Whether it is valid, for how long, and for this host, if one is known.
pub(super) fn served(der: &[u8], host: &str, findings: &mut Findings) {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return findings.wrong("the certificate cannot be read", "have it issued anew");
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    let days = (validity.not_after.timestamp() - now).div_euclid(24 * 60 * 60);
    if days < 0 {
        findings.wrong(format!("the certificate has expired {} days ago", -days), mend("Expired"));
    } else if validity.not_before.timestamp() > now {
        findings.wrong("the certificate is not valid yet", "look at this machine's clock, or have it issued anew");
    } else if days < SOON {
        findings.hint(format!("the certificate expires in {days} days"), mend("Expired"));
    } else {
        findings.ok(format!("the certificate is valid for {days} days"));
    }
    let is_name = host.parse::<std::net::IpAddr>().is_err() && !host.is_empty() && !host.starts_with('[');
    if is_name && !names(&certificate).iter().any(|name| covers(name, host)) {
        let text = format!("the certificate is for {}, not for {host}", names(&certificate).join(", "));
        findings.wrong(text, mend("NotValidForName"));
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten().map(|names| &names.value.general_names);
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    };
    names.into_iter().flatten().filter_map(name).collect()
}

fn covers(name: &str, host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    match name.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
        None => name == host,
    }
}

/// What to do about a certificate that was refused for this reason.
pub(super) fn mend(why: &str) -> String {
    if why.contains("NotValidForName") || why.contains("not valid for name") {
        "have it issued for that name, or use the name that it is for".to_owned()
    } else if why.contains("Expired") || why.contains("expired") {
        "renew it, and send Herald or its proxy SIGHUP".to_owned()
    } else {
        "have it issued by somebody whom browsers trust, and serve the whole chain".to_owned()
    }
}
