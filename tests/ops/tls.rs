//! TLS on the main listener: WebSockets and both versions of HTTP over it, certificates changed while it runs, apps that demand it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::process::{Running, Setup, http, signed};
use crate::socket::Socket;
use crate::support::DEADLINE;

/// A certificate for this machine, signed by itself.
struct Certificate {
    cert: String,
    key: String,
}

impl Certificate {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    fn write(&self, folder: &Path) {
        std::fs::write(folder.join("cert.pem"), &self.cert).unwrap();
        std::fs::write(folder.join("key.pem"), &self.key).unwrap();
    }

    fn setup(&self) -> Setup {
        let setup = Setup::new().file("cert.pem", &self.cert).file("key.pem", &self.key);
        setup.env("HERALD_TLS_CERT", "cert.pem").env("HERALD_TLS_KEY", "key.pem")
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    /// A stream to a server that must show this certificate, and the protocol that was agreed on.
    async fn stream(&self, address: SocketAddr, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        herald::outgoing::install_crypto();
        let mut roots = RootCertStore::empty();
        roots.add(self.der()).unwrap();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        timeout(DEADLINE, handshake).await.expect("a handshake in time")
    }

    /// A client for HTTP that trusts nothing else.
    fn http(&self) -> reqwest::ClientBuilder {
        http().tls_certs_only([reqwest::Certificate::from_pem(self.cert.as_bytes()).unwrap()])
    }
}

/// A signed request for the channels of the newcomer's app.
fn channels(base: &str) -> String {
    format!("{base}{}", signed("GET", "/apps/app-id/channels", ""))
}

async fn serves(herald: &Running, certificate: &Certificate) {
    let stream = certificate.stream(herald.address(), &["http/1.1"]).await.unwrap();
    Socket::open(stream, "app-key").await.settle().await;
}

#[tokio::test]
async fn clients_and_backends_are_served_over_tls() {
    let certificate = Certificate::new();
    let herald = certificate.setup().start().await;
    assert!(herald.url().starts_with("https://127.0.0.1:"));
    let stream = certificate.stream(herald.address(), &["http/1.1"]).await.unwrap();
    let mut client = Socket::open(stream, "app-key").await;
    client.subscribe("my-channel").await;

    let base = format!("https://localhost:{}", herald.address().port());
    for (builder, version) in
        [(certificate.http(), reqwest::Version::HTTP_2), (certificate.http().http1_only(), reqwest::Version::HTTP_11)]
    {
        let http = builder.build().unwrap();
        let answer = http.get(channels(&base)).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        let channels: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
        assert_eq!(channels, json!({ "channels": { "my-channel": {} } }));
    }
    // The listener for metrics stays plain.
    assert!(herald.metrics_url().await.starts_with("http://"));
    assert_eq!(crate::process::get(&format!("{}/health/ready", herald.metrics_url().await)).await.0, 200);
}

#[tokio::test]
async fn over_tls_too_clients_are_sent_away_in_order_and_requests_are_answered() {
    let certificate = Certificate::new();
    let herald = certificate.setup().env("HERALD_SHUTDOWN_DELAY", "2s").start().await;
    let mut client = Socket::open(certificate.stream(herald.address(), &[]).await.unwrap(), "app-key").await;
    client.subscribe("my-channel").await;
    let base = format!("https://localhost:{}", herald.address().port());
    let http = certificate.http().build().unwrap();
    herald.signal("TERM");
    herald.logged(&["shutting down"]).await;
    let body = r#"{"name":"my-event","channel":"my-channel","data":"late"}"#;
    let trigger = http.post(format!("{base}{}", signed("POST", "/apps/app-id/events", body))).body(body);
    let answer = trigger.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    assert_eq!(client.expect("my-event").await, "late");
    client.expect_close(4200).await;
    drop(client);
    // The backend still holds its connection; it is told to go.
    assert!(herald.finished().await.status.success());
}

#[tokio::test]
async fn both_versions_of_http_are_offered_and_no_other_protocol() {
    let certificate = Certificate::new();
    let herald = certificate.setup().start().await;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let stream = certificate.stream(herald.address(), offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
    }
    assert!(certificate.stream(herald.address(), &["gopher"]).await.is_err());
}

#[tokio::test]
async fn http_2_is_understood_without_tls_too() {
    let herald = Setup::new().start().await;
    let http = http().http2_prior_knowledge().build().unwrap();
    let many = (0..20).map(|_| http.get(channels(&herald.url())).send());
    for answer in futures_util::future::join_all(many).await {
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    }
    assert_eq!(crate::process::get(&channels(&herald.url())).await.0, 200, "and HTTP/1.1 on the same port");
}

#[tokio::test]
async fn who_speaks_without_tls_is_refused_with_a_line_and_harms_nobody() {
    let certificate = Certificate::new();
    let herald = certificate.setup().env("HERALD_HANDSHAKE_TIMEOUT", "200ms").start().await;
    let mut plain = TcpStream::connect(herald.address()).await.unwrap();
    plain.write_all(b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A reset is an end, too.
    _ = timeout(DEADLINE, plain.read_to_end(&mut answer)).await.expect("an end in time");
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
    let line = herald.logged(&["connection refused", "TLS"]).await;
    assert_eq!(line["address"], "127.0.0.1", "{line}");

    let mut silent = TcpStream::connect(herald.address()).await.unwrap();
    let end = timeout(DEADLINE, silent.read(&mut [0; 1])).await.expect("cut in time");
    assert!(matches!(end, Ok(0) | Err(_)));
    herald.logged(&["connection refused", "TLS handshake took too long"]).await;

    let stranger = Certificate::new();
    assert!(stranger.stream(herald.address(), &[]).await.is_err());
    serves(&herald, &certificate).await;
}

#[tokio::test]
async fn a_hang_up_brings_the_new_certificate_to_new_connections() {
    let [old, new] = [Certificate::new(), Certificate::new()];
    let herald = old.setup().start().await;
    let mut client = Socket::open(old.stream(herald.address(), &[]).await.unwrap(), "app-key").await;

    new.write(herald.folder());
    serves(&herald, &old).await; // until it is told to
    herald.signal("HUP");
    herald.logged(&["certificate was read again"]).await;
    serves(&herald, &new).await;
    assert!(old.stream(herald.address(), &[]).await.is_err());
    client.settle().await; // who is connected stays

    for (cert, key) in [("no PEM", &*new.key), (&*new.cert, "no PEM"), (&*old.cert, &*new.key), ("", "")] {
        std::fs::write(herald.folder().join("cert.pem"), cert).unwrap();
        std::fs::write(herald.folder().join("key.pem"), key).unwrap();
        let lines = || herald.log().iter().filter(|line| line["level"] == "ERROR").count();
        let before = lines();
        herald.signal("HUP");
        let told = async {
            while lines() == before {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, told).await.expect("a line about the broken files");
        serves(&herald, &new).await;
    }
    std::fs::remove_file(herald.folder().join("key.pem")).unwrap();
    herald.signal("HUP");
    herald.logged(&["ERROR", "stays as it was", "tls.key", "No such file"]).await;
    serves(&herald, &new).await;
    old.write(herald.folder());
    herald.signal("HUP");
    timeout(DEADLINE, async { while old.stream(herald.address(), &[]).await.is_err() {} })
        .await
        .expect("the first again");
    client.settle().await;
}

#[tokio::test]
async fn a_hang_up_without_a_certificate_ends_nothing() {
    let herald = Setup::new().start().await;
    let mut client = herald.connect().await;
    herald.signal("HUP");
    herald.logged(&["SIGHUP"]).await;
    client.settle().await;
}

#[tokio::test]
async fn files_that_are_no_certificate_stop_the_start() {
    let [one, other] = [Certificate::new(), Certificate::new()];
    for (cert, key, parts) in [
        ("no PEM", &*one.key, &["tls.cert", "cert.pem", "certificates as PEM"][..]),
        (&*one.cert, "no PEM", &["tls.key", "key.pem", "private key as PEM"]),
        (&*one.key, &*one.key, &["tls.cert", "certificates as PEM"]),
        (&*one.cert, &*other.key, &["tls.cert and tls.key", "do not belong together"]),
        ("no PEM", "no PEM", &["tls.cert", "tls.key"]),
    ] {
        let setup = || one.setup().file("cert.pem", cert).file("key.pem", key);
        for said in [setup().refused().await, setup().args(["check"]).refused().await] {
            assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
            assert!(!said.contains("PRIVATE"), "{said}");
        }
    }
    let said = one.setup().env("HERALD_TLS_KEY", "missing.pem").refused().await;
    assert!(said.contains("tls.key") && said.contains("missing.pem"), "{said}");
    let said = one.setup().without("HERALD_TLS_KEY").refused().await;
    assert!(said.contains("tls.key: it is missing"), "{said}");
    let said = one.setup().without("HERALD_TLS_CERT").refused().await;
    assert!(said.contains("tls.cert: it is missing"), "{said}");
}

#[tokio::test]
async fn the_commands_speak_tls_to_a_server_whose_certificate_is_trusted() {
    let certificate = Certificate::new();
    let herald = certificate.setup().start().await;
    let mut client = Socket::open(certificate.stream(herald.address(), &[]).await.unwrap(), "app-key").await;
    client.subscribe("my-channel").await;
    let url = format!("https://localhost:{}", herald.address().port());
    for trusted in [true, false] {
        let mut command = herald.command(["trigger", "my-channel", "my-event", "data", "--url", &url]);
        if trusted {
            command.env("SSL_CERT_FILE", herald.folder().join("cert.pem"));
        }
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_eq!(output.status.success(), trusted, "{output:?}");
    }
    assert_eq!(client.expect("my-event").await, "data");
    let mut command = herald.command(["listen", "my-channel", "--url", &url]);
    command.env("SSL_CERT_FILE", herald.folder().join("cert.pem")).stderr(std::process::Stdio::piped());
    let mut listening = command.spawn().unwrap();
    let said = crate::process::Text::of(listening.stderr.take().unwrap());
    said.wait_for("subscribed to my-channel").await;
    listening.kill().unwrap();
    listening.wait().unwrap();
}

#[tokio::test]
async fn an_app_that_demands_tls_refuses_plain_connections() {
    const STRICT: &str = "[[apps]]\nid = \"app-id\"\nkey = \"app-key\"\nsecret = \"app-secret\"\nrequire_tls = true\n";
    let forwarded = |proto: &str| format!("X-Forwarded-Proto: {proto}\r\nX-Forwarded-For: 203.0.113.9\r\n");
    let herald = Setup::new().config(STRICT).start().await;
    let path = "/app/app-key?protocol=7";
    let reason = herald.open(path, "").await.expect_refusal(4000).await;
    assert!(reason.contains("TLS"), "{reason}");
    herald.open(path, &forwarded("https")).await.expect_refusal(4000).await; // anybody can say so

    let behind = Setup::new().config(STRICT).env("HERALD_TRUSTED_PROXIES", "10.0.0.0/8, 127.0.0.1").start().await;
    behind.open(path, "").await.expect_refusal(4000).await;
    behind.open(path, &forwarded("http")).await.expect_refusal(4000).await;
    for proto in ["https", "wss"] {
        behind.open(path, &forwarded(proto)).await.read_hello().await;
    }
    let other = Setup::new().config(STRICT).env("HERALD_TRUSTED_PROXIES", "10.0.0.0/8").start().await;
    other.open(path, &forwarded("https")).await.expect_refusal(4000).await;

    let certificate = Certificate::new();
    let encrypted = certificate.setup().config(STRICT).start().await;
    serves(&encrypted, &certificate).await;
}
