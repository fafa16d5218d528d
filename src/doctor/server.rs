//! Whether the server is there and is this one, seen from this machine and from where the world sees it.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, header};
use futures_util::StreamExt as _;
use herald_protocol::signature::request_string;
use serde_json::Value;
use tokio::net::TcpListener;
use url::Url;

use super::{Answer, Findings, Patient, certificate};
use crate::config::{AppOptions, Listen};
use crate::http::origin_matches;

/// What says how to pass WebSockets on.
const PROXY: &str =
    "docs/deploying.md has what a proxy needs; config/nginx.conf and config/Caddyfile are ready to be copied";

/// On this machine.
pub(super) async fn here(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let config = patient.config();
    let Listen::Tcp(mut address) = config.server.listen.clone() else {
        let Listen::Unix(path) = &config.server.listen else { return findings };
        match tokio::net::UnixStream::connect(path).await {
            Ok(_) => findings.ok(format!("something listens on unix:{}", path.display())),
            Err(error) => findings.hint(format!("unix:{}: {error}", path.display()), "start it: herald"),
        }
        return findings;
    };
    if address.port() == 0 {
        findings.hint("it takes any free port", "name one in server.listen (HERALD_LISTEN)");
        return findings;
    }
    let told = address;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    if let Err(error) = tokio::net::TcpStream::connect(address).await {
        match TcpListener::bind(told).await {
            Ok(_) => findings.hint(format!("nothing listens on {told}"), "start it: herald"),
            Err(_) => findings.wrong(
                format!("nothing answers on {address} ({error}), and it cannot be listened on"),
                "server.listen (HERALD_LISTEN) must be an address of this machine, and a port above 1023 for who is not root",
            ),
        }
        return findings;
    }
    if config.tls.cert.is_some() {
        // Its certificate is for the name that the world knows it by: asked there.
        findings.ok(format!("something listens on {told}, with TLS"));
        return findings;
    }
    look(patient, &format!("http://{address}"), &mut findings).await;
    findings
}

/// Whether Herald answers at `base`, is ready, is this version, and knows the apps.
async fn look(patient: &Patient, base: &str, findings: &mut Findings) {
    let config = patient.config();
    let prefix = &config.server.path_prefix;
    let described = match patient.get(&format!("{base}{prefix}/openapi.json"), HeaderMap::new()).await {
        Ok(answer) => answer,
        Err(why) => return findings.wrong(format!("{base} does not answer: {why}"), "look into Herald's log there"),
    };
    let Some(version) = version(&described) else {
        let text = format!("what answers at {base}{prefix} is not Herald (status {})", described.status.as_u16());
        return findings.wrong(text, "another program has that address, or server.path_prefix is another one there");
    };
    if version != env!("CARGO_PKG_VERSION") {
        let text = format!("the server at {base} is version {version}, this is {}", env!("CARGO_PKG_VERSION"));
        findings.hint(text, "restart it after an update");
    }
    for app in &config.apps {
        let name = format!("app {:?}", app.id);
        match knows(patient, base, app).await {
            Ok(200) => findings.ok(format!("Herald {version} at {base} serves {name}")),
            Ok(404) => findings.wrong(
                format!("the server at {base} has no {name}"),
                "it runs with another configuration: send it SIGHUP, or restart it",
            ),
            Ok(401) => findings.wrong(
                format!("the server at {base} has another key or secret for {name}"),
                "it runs with another configuration: send it SIGHUP, or restart it",
            ),
            Ok(403) => findings.hint(format!("{name} is disabled"), "apps.enabled"),
            Ok(status) => {
                findings.wrong(format!("{base} answers {status} to a backend of {name}"), "look into Herald's log");
            }
            Err(why) => findings.wrong(format!("{base} does not answer a backend of {name}: {why}"), PROXY),
        }
    }
    match patient.get(&format!("{base}/health/ready"), HeaderMap::new()).await {
        Ok(answer) if answer.status == 503 => {
            findings
                .wrong(format!("the server at {base} is not ready"), "its log says what it waits for, or it is ending");
        }
        Ok(answer) if String::from_utf8_lossy(&answer.body).contains("degraded") => {
            findings.hint(format!("the server at {base} is degraded"), "see redis and database below");
        }
        _ => {} // a proxy need not pass it on
    }
}

/// The version that Herald's description of itself says.
fn version(answer: &Answer) -> Option<String> {
    let described: Value = serde_json::from_slice(&answer.body).ok()?;
    let info = described.get("info").filter(|info| info.get("title").is_some_and(|title| title == "Herald"))?;
    info.get("version")?.as_str().map(str::to_owned)
}

/// The status of an answer to the app's backend.
async fn knows(patient: &Patient, base: &str, app: &AppOptions) -> Result<u16, String> {
    let path = format!("{}/apps/{}/channels", patient.config().server.path_prefix, app.id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    let mut parameters = vec![("auth_key", app.key.as_str()), ("auth_timestamp", &now), ("auth_version", "1.0")];
    let signature = app.secret.sign(request_string("GET", &path, parameters.iter().copied()).as_bytes());
    parameters.push(("auth_signature", &signature));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    patient.get(&format!("{base}{path}?{query}"), HeaderMap::new()).await.map(|answer| answer.status.as_u16())
}

/// From where the world sees it: the certificate, the way of backends and of clients.
pub(super) async fn public(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let Some(url) = &patient.public else {
        findings.hint("it is not known", "server.public_url (HERALD_PUBLIC_URL), or --url");
        return findings;
    };
    let prefix = &patient.config().server.path_prefix;
    let base = url.as_str().trim_end_matches('/');
    let base = base.strip_suffix(prefix.as_str()).unwrap_or(base).to_owned();
    if url.scheme() == "http" && !super::is_local(url) {
        findings.wrong("clients come without TLS: whoever is on their way reads along", "serve it by https");
    }
    match patient.get(&format!("{base}{prefix}/openapi.json"), HeaderMap::new()).await {
        Err(why) => {
            let text = format!("{base} cannot be reached: {why}");
            let mend = match why.contains("certificate") {
                true => certificate::mend(&why),
                false => "look at the name, the firewall and the proxy; --url says where else it is".to_owned(),
            };
            // Before the first start nothing is there yet, unless somebody says that it is.
            findings.wrong(text, mend);
            return findings;
        }
        Ok(answer) => {
            if let Some(certificate) = &answer.certificate {
                certificate::served(certificate, url.host_str().unwrap_or_default(), &mut findings);
            }
            if patient.config().server.trusted_proxies.is_empty()
                && let Some(by) = forwarded_by(&answer)
            {
                let text = format!("{by} stands in front, and server.trusted_proxies is empty");
                findings.wrong(text, "name its address in server.trusted_proxies (HERALD_TRUSTED_PROXIES), or all clients have its address");
            }
        }
    }
    look(patient, &base, &mut findings).await;
    if let Some(app) = patient.config().apps.first() {
        client(&base, prefix, app, patient, &mut findings).await;
    }
    findings
}

/// What says that it is between: Herald itself names no server.
fn forwarded_by(answer: &Answer) -> Option<String> {
    let name = [header::VIA, header::SERVER].iter().find_map(|name| answer.headers.get(name))?;
    Some(name.to_str().unwrap_or("a proxy").chars().take(40).collect())
}

/// A client's way, which proxies have to be told of.
async fn client(base: &str, prefix: &str, app: &AppOptions, patient: &Patient, findings: &mut Findings) {
    crate::outgoing::install_crypto();
    let address = format!("{}{prefix}/app/{}?protocol=7&client=herald", base.replacen("http", "ws", 1), app.key);
    let Ok(mut request) = tungstenite::client::IntoClientRequest::into_client_request(address) else { return };
    let page = patient.loaded.app_url.as_deref().and_then(|page| page.parse().ok());
    if let Some(page) = page {
        request.headers_mut().insert(header::ORIGIN, page);
    }
    let said = match tokio_tungstenite::connect_async(request).await {
        Err(tungstenite::Error::Http(answer)) => {
            let text = format!("WebSockets do not pass: {base} answers {} to an upgrade", answer.status().as_u16());
            return findings.wrong(text, PROXY);
        }
        Err(error) => return findings.wrong(format!("WebSockets do not pass: {}", super::reason(&error)), PROXY),
        Ok((mut socket, _)) => match socket.next().await {
            Some(Ok(message)) => message.into_text().map(|text| text.to_string()).unwrap_or_default(),
            _ => String::new(),
        },
    };
    if said.contains("pusher:connection_established") {
        return findings.ok("a client can connect");
    }
    let refusal: Value = serde_json::from_str(&said).unwrap_or_default();
    let why = refusal["data"]["message"].as_str().unwrap_or("it is hung up").to_owned();
    let mend = match refusal["data"]["code"].as_u64() {
        Some(4000) => {
            "its proxy must be in server.trusted_proxies and say X-Forwarded-Proto, or apps.require_tls is too much"
        }
        Some(4009) => "apps.allowed_origins must name the app's pages",
        _ => "docs/close-codes.md",
    };
    findings.wrong(format!("a client is refused: {why}"), mend);
}

/// Whether Herald knows who is behind a proxy that the configuration tells of.
pub(super) async fn proxies(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let config = patient.config();
    let ends_tls = patient.public.as_ref().is_some_and(|url| url.scheme() == "https") && config.tls.cert.is_none();
    let believed = !config.server.trusted_proxies.is_empty() || matches!(config.server.listen, Listen::Unix(_));
    let wants_tls: Vec<&str> = config.apps.iter().filter(|app| app.require_tls).map(|app| app.id.as_str()).collect();
    match (ends_tls, believed) {
        (true, false) => findings.wrong(
            "what ends TLS in front of Herald is not believed: all clients have its address, and count as without TLS",
            "name its address in server.trusted_proxies (HERALD_TRUSTED_PROXIES)",
        ),
        (_, true) => findings.ok("X-Forwarded-For and X-Forwarded-Proto of server.trusted_proxies are believed"),
        (false, false) => {}
    }
    let everybody = config.server.trusted_proxies.iter().any(|network| network.prefix_len() == 0);
    if everybody {
        let text = "server.trusted_proxies names every address: clients may say that they are anybody";
        findings.wrong(text, "name the proxies' own addresses");
    }
    if !wants_tls.is_empty() && config.tls.cert.is_none() && !believed {
        let text = format!(
            "apps.require_tls refuses every client of {}: nobody says that they came by TLS",
            wants_tls.join(", ")
        );
        findings.wrong(text, "tls.cert and tls.key, or the proxy in server.trusted_proxies");
    }
    findings
}

/// Whether the app's pages may do what they are there for.
pub(super) async fn origins(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let config = patient.config();
    let page = patient.loaded.app_url.as_deref().and_then(|page| page.parse::<Url>().ok());
    let Some(page) = page.map(|url| url.origin().ascii_serialization()) else { return findings };
    for app in config.apps.iter().filter(|app| !app.allowed_origins.is_empty()) {
        if !origin_matches(&app.allowed_origins, &page) {
            let text = format!("pages of {page} may not connect to app {:?}", app.id);
            findings.wrong(text, "add it to apps.allowed_origins");
        }
    }
    let auth = &config.auth;
    if !auth.authorized_parties.is_empty() && !auth.authorized_parties.contains(&page) {
        let text = format!("tokens that are made for pages of {page} are refused");
        findings.wrong(text, "add it to auth.authorized_parties (HERALD_CLERK_AUTHORIZED_PARTIES)");
    }
    if !auth.allowed_origins.is_empty() && !origin_matches(&auth.allowed_origins, &page) {
        let text = format!("pages of {page} may not ask for their users");
        findings.wrong(text, "add it to auth.allowed_origins (HERALD_ALLOWED_ORIGINS)");
    }
    if findings.0.is_empty() {
        findings.ok(format!("pages of {page} may connect"));
    }
    findings
}
