//! `herald doctor`: each finding is provoked against a real server, a real Redis, Postgres and nginx, or a stand-in for a third party.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::process::{Finished, Running, Setup};
use crate::proxies::Proxy;
use crate::support::DEADLINE;
use crate::user::pem;

/// What it finds: whether nothing has to be mended, and its lines of text.
struct Found {
    is_well: bool,
    text: String,
}

impl Found {
    fn says(&self, state: &str, check: &str, part: &str) -> &Self {
        let is_it = |line: &str| line.starts_with(state) && line.contains(check) && line.contains(part);
        assert!(self.text.lines().any(is_it), "{state} {check} {part}:\n{}", self.text);
        assert!(state != "WRONG" || !self.is_well, "exit code 1:\n{}", self.text);
        self
    }

    fn has_no(&self, part: &str) -> &Self {
        assert!(!self.text.contains(part), "{part}:\n{}", self.text);
        self
    }
}

async fn doctor(setup: Setup, args: &[&str]) -> Found {
    let Finished { status, stdout, stderr } = setup.args(["doctor"].iter().chain(args).copied()).run().await;
    assert_eq!(stderr, "", "{stdout}");
    Found { is_well: status.success(), text: stdout }
}

/// One with the address of a server that runs, and its newcomer's credentials.
fn of(herald: &Running) -> Setup {
    Setup::new().env("HERALD_LISTEN", &herald.address().to_string())
}

/// A third party that answers every `GET` by its path; `date` is what it says the time is. It ends with the test.
pub(crate) async fn stand_in(
    answers: impl Fn(&str) -> (u16, String) + Send + Sync + 'static,
    date: &str,
    tls: Option<TlsAcceptor>,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr().unwrap());
    let (answers, date) = (Arc::new(answers), date.to_owned());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (answers, date, tls) = (Arc::clone(&answers), date.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => answer(stream, &*answers, &date).await,
                    Some(tls) => {
                        // Whoever does not trust us goes without a question.
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(stream, &*answers, &date).await;
                        }
                    }
                }
            });
        }
    });
    url
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answers: &(dyn Fn(&str) -> (u16, String) + Send + Sync),
    date: &str,
) {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let (status, body) = answers(&head);
    let date = if date.is_empty() { String::new() } else { format!("Date: {date}\r\n") };
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n{date}\r\n");
    // Whoever asks may have heard enough.
    _ = stream.write_all((head + &body).as_bytes()).await;
}

/// A certificate for `localhost` and 127.0.0.1 with this validity in days from now.
fn certificate(from: i64, to: i64) -> (String, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut made = rcgen::CertificateParams::new(names).unwrap();
    let day = |days: i64| {
        let date = jiff::Timestamp::now() + jiff::Span::new().hours(24 * days);
        let date = date.to_zoned_datetime(jiff::tz::TimeZone::UTC);
        rcgen::date_time_ymd(date.year().into(), u8::try_from(date.month()).unwrap(), u8::try_from(date.day()).unwrap())
    };
    (made.not_before, made.not_after) = (day(from), day(to));
    let key = rcgen::KeyPair::generate().unwrap();
    (made.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn acceptor((cert, key): &(String, String)) -> TlsAcceptor {
    herald::outgoing::install_crypto();
    let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// A key set with the vectors' keys of these names.
fn key_set(names: &[&str]) -> String {
    let keys = names.iter().map(|name| {
        let body: String = pem(name).lines().filter(|line| !line.starts_with("-----")).collect();
        let der = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
        // A modulus of 256 bytes stands in front of the exponent, which is the last five: 02 03 01 00 01.
        let n = data_encoding::BASE64URL_NOPAD.encode(&der[der.len() - 5 - 256..der.len() - 5]);
        json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": format!("ins_{name}"), "n": n, "e": "AQAB" })
    });
    json!({ "keys": keys.collect::<Vec<_>>() }).to_string()
}

/// A publishable key of the instance at this address.
fn publishable(kind: &str, address: &str) -> String {
    let host = address.trim_start_matches("https://");
    format!("pk_{kind}_{}", data_encoding::BASE64.encode(format!("{host}$").as_bytes()))
}

#[tokio::test]
async fn a_server_that_is_well_is_found_so_by_text_and_for_programs() {
    let herald = Setup::new().start().await;
    let found = doctor(of(&herald), &["--url", &herald.url()]).await;
    assert!(found.is_well, "{}", found.text);
    found.says("ok", "server", "serves app \"app-id\"").says("ok", "public address", "a client can connect");
    found.says("ok", "database", "can be written to").says("hint", "configuration", "no app is configured");
    found.has_no("WRONG").has_no("app-secret");
    let found = doctor(of(&herald), &["--json"]).await;
    let list: Vec<Value> = serde_json::from_str(&found.text).unwrap();
    assert!(
        list.iter().any(|one| one["check"] == "server" && one["state"] == "ok" && one["mend"].is_null()),
        "{list:?}"
    );
    assert!(list.iter().all(|one| one["text"].is_string() && (one["state"] == "ok" || one["mend"].is_string())));
}

#[tokio::test]
async fn a_configuration_with_problems_is_told_with_all_of_them() {
    let setup = Setup::new().file(".env", "PUSHER_SECRET=hush\nhush hush\n").env("HERALD_MAX_CONNECTIONS", "many");
    let found = doctor(setup, &["--env-file", ".env"]).await;
    found.says("WRONG", "configuration", ".env (from --env-file): line 2");
    found.says("WRONG", "configuration", "server.max_connections").says("WRONG", "configuration", "HERALD_APP_ID");
    found.has_no("hush");
}

#[tokio::test]
async fn what_is_warned_of_at_the_start_is_a_hint() {
    let setup = Setup::new().env("NEXT_PUBLIC_CLERK_SECRET_KEY", "hush").env("HERALD_LISTNE", "x");
    let found = doctor(setup, &[]).await;
    found.says("hint", "configuration", "NEXT_PUBLIC_CLERK_SECRET_KEY").says("hint", "configuration", "HERALD_LISTNE");
    found.has_no("hush");
}

#[tokio::test]
async fn who_answers_at_the_address_is_told() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let found = doctor(Setup::new().env("HERALD_LISTEN", &gone), &[]).await;
    assert!(found.is_well, "it is not started yet: {}", found.text);
    found.says("hint", "server", "nothing listens on");
    doctor(Setup::new(), &["--url", &format!("http://{gone}")]).await.says(
        "WRONG",
        "public address",
        "cannot be reached",
    );

    let other = stand_in(|_| (200, "<html>".to_owned()), "", None).await;
    let setup = Setup::new().env("HERALD_LISTEN", other.trim_start_matches("http://"));
    doctor(setup, &[]).await.says("WRONG", "server", "is not Herald");

    let herald = Setup::new().start().await;
    let app = |id, secret| {
        let setup = of(&herald).env("PUSHER_APP_ID", id).env("PUSHER_KEY", "app-key").env("PUSHER_SECRET", secret);
        setup.env("HERALD_PUBLIC_URL", &herald.url())
    };
    let found = doctor(app("app-id", "hush"), &[]).await;
    found.says("WRONG", "server", "has another key or secret for app \"app-id\"").has_no("hush");
    let found = doctor(app("shop", "app-secret"), &[]).await;
    found.says("WRONG", "server", "has no app \"shop\"").says("WRONG", "public address", "has no app \"shop\"");

    let setup = Setup::new().env("HERALD_LISTEN", "192.0.2.1:6001").env("PUSHER_APP_ID", "a").env("PUSHER_KEY", "k");
    doctor(setup.env("PUSHER_SECRET", "s"), &[]).await.says("WRONG", "server", "192.0.2.1:6001");
}

#[tokio::test]
async fn a_proxy_that_does_not_pass_websockets_or_is_not_believed_is_found() {
    let herald = Setup::new().start().await;
    let proxy = Proxy::nginx_with(&herald, |file| file.replace("proxy_set_header Upgrade $http_upgrade;", "")).await;
    let url = format!("http://{}", proxy.address);
    let found = doctor(of(&herald), &["--url", &url]).await;
    found.says("WRONG", "public address", "WebSockets do not pass");
    found.says("WRONG", "public address", "nginx/").says("ok", "server", "serves app");
    let proxy = Proxy::nginx_with(&herald, |file| file).await;
    let url = format!("http://{}", proxy.address);
    let found = doctor(of(&herald).env("HERALD_TRUSTED_PROXIES", "127.0.0.1"), &["--url", &url]).await;
    assert!(found.is_well, "{}", found.text);
    found.says("ok", "public address", "a client can connect").says("ok", "proxies", "are believed");

    let setup = || Setup::new().env("HERALD_PUBLIC_URL", "https://localhost:1");
    doctor(setup(), &[]).await.says("WRONG", "proxies", "is not believed");
    doctor(setup().env("HERALD_TRUSTED_PROXIES", "0.0.0.0/0"), &[]).await.says("WRONG", "proxies", "every address");
    let setup = Setup::new().env("HERALD_APP_REQUIRE_TLS", "true");
    doctor(setup, &[]).await.says("WRONG", "proxies", "refuses every client of app-id");
}

#[tokio::test]
async fn certificates_that_expire_or_are_for_another_name_or_nobody_trusts_are_found() {
    let with = |(cert, key): &(String, String)| {
        let setup = Setup::new().file("cert.pem", cert).file("key.pem", key);
        setup.env("HERALD_TLS_CERT", "cert.pem").env("HERALD_TLS_KEY", "key.pem")
    };
    let good = certificate(-1, 90);
    doctor(with(&good), &[]).await.says("ok", "certificate", "is valid for");
    doctor(with(&certificate(-90, -3)), &[]).await.says("WRONG", "certificate", "has expired");
    doctor(with(&certificate(-90, 5)), &[]).await.says("hint", "certificate", "expires in");
    doctor(with(&certificate(3, 90)), &[]).await.says("WRONG", "certificate", "not valid yet");
    let setup = with(&good).env("HERALD_PUBLIC_URL", "https://realtime.invalid");
    doctor(setup, &[]).await.says("WRONG", "certificate", "is for localhost, not for realtime.invalid");
    let setup = with(&(good.0.clone(), certificate(-1, 90).1));
    doctor(setup, &[]).await.says("WRONG", "certificate", "do not belong together");

    let herald = with(&good).start().await;
    let url = format!("https://localhost:{}", herald.address().port());
    let found = doctor(with(&good).env("HERALD_LISTEN", &herald.address().to_string()), &["--url", &url]).await;
    found.says("WRONG", "public address", "certificate");
    let trusts = with(&good).file("trusted.pem", &good.0).env("SSL_CERT_FILE", "trusted.pem");
    let found = doctor(trusts.env("HERALD_LISTEN", &herald.address().to_string()), &["--url", &url]).await;
    assert!(found.is_well, "{}", found.text);
    found.says("ok", "public address", "the certificate is valid").says("ok", "public address", "a client can connect");
}

#[tokio::test]
async fn pages_that_may_not_do_what_they_are_for_are_found() {
    let setup = || Setup::new().env("NEXT_PUBLIC_APP_URL", "https://app.example.com/home");
    doctor(setup(), &[]).await.says("ok", "origins", "https://app.example.com");
    for (variable, part) in [
        ("HERALD_APP_ALLOWED_ORIGINS", "may not connect to app \"app-id\""),
        ("HERALD_CLERK_AUTHORIZED_PARTIES", "tokens that are made for pages"),
        ("HERALD_ALLOWED_ORIGINS", "may not ask for their users"),
    ] {
        doctor(setup().env(variable, "https://other.example.com"), &[]).await.says("WRONG", "origins", part);
        doctor(setup().env(variable, "https://app.example.com"), &[]).await.says("ok", "origins", "may connect");
    }
}

/// A Redis of its own.
pub(crate) struct Redis(Child, pub(crate) u16);

impl Redis {
    pub(crate) async fn start(more: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let child = command.args(more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let redis = Self(child, port);
        let answers = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, answers).await.expect("Redis starts in time");
        redis
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_redis_that_is_away_shut_or_forgets_is_found() {
    let at = |port: u16, who: &str| Setup::new().env("REDIS_URL", &format!("redis://{who}127.0.0.1:{port}"));
    let good = Redis::start(&["--requirepass", "hush"]).await;
    let found = doctor(at(good.1, ":hush@"), &[]).await;
    assert!(found.is_well, "{}", found.text);
    found.says("ok", "redis", "answers, version").says("ok", "redis", "noeviction").has_no("hush");
    doctor(at(good.1, ""), &[]).await.says("WRONG", "redis", "cannot be used").says("", "", "REDIS_PASSWORD");
    let forgets = Redis::start(&["--maxmemory", "10mb", "--maxmemory-policy", "allkeys-lru"]).await;
    doctor(at(forgets.1, ""), &[]).await.says("WRONG", "redis", "allkeys-lru");
    drop(forgets);
    doctor(at(1, ":hush@"), &[]).await.says("WRONG", "redis", "cannot be used").has_no("hush");
}

#[tokio::test]
async fn a_database_that_is_away_or_behind_is_found() {
    let url = std::env::var("HERALD_TEST_POSTGRES_URL").expect("HERALD_TEST_POSTGRES_URL says where a Postgres is");
    let schema = format!("doctor_{}", std::process::id());
    let at = || Setup::new().env("DATABASE_URL", &url).env("HERALD_DATABASE_SCHEMA", &schema);
    let found = doctor(at(), &[]).await;
    assert!(found.is_well, "{}", found.text);
    found.says("ok", "database", "answers, version").says("hint", "database", "not there");
    doctor(at().env("HERALD_DATABASE_MIGRATE", "false"), &[]).await.says("WRONG", "database", "is at version 0");
    assert!(at().args(["migrate"]).run().await.status.success());
    doctor(at().env("HERALD_DATABASE_MIGRATE", "false"), &[])
        .await
        .says("ok", "database", "answers")
        .has_no("version 0");
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    let drop = sqlx::AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
    sqlx::raw_sql(drop).execute(&mut connection).await.unwrap();

    let away = Setup::new().env("DATABASE_URL", "postgres://ann:hush@127.0.0.1:1/app");
    doctor(away, &[]).await.says("WRONG", "database", "postgres://127.0.0.1:1/app").has_no("hush");
    let broken = Setup::new().file("no", "").env("HERALD_DATA_DIR", "no");
    doctor(broken, &[]).await.says("WRONG", "database", "cannot be opened");
    let other = Setup::new().file("herald.db", "no database at all").env("HERALD_DATA_DIR", ".");
    doctor(other, &[]).await.says("WRONG", "database", "cannot be opened");
}

#[tokio::test]
async fn a_cloudinary_that_refuses_the_key_or_lacks_the_preset_is_found() {
    let answers = |head: &str| match head.split(' ').nth(1).unwrap() {
        "/v1_1/demo/ping" => (200, json!({ "status": "ok" }).to_string()),
        "/v1_1/demo/upload_presets/user%5Fuploads" => (200, json!({ "name": "user_uploads" }).to_string()),
        path if path.starts_with("/v1_1/demo/") => (404, "{}".to_owned()),
        path if path.starts_with("/v1_1/other/") => (401, "{}".to_owned()),
        _ => (503, String::new()),
    };
    let url = stand_in(answers, "", None).await;
    let at = |cloud: &str| {
        let setup = Setup::new().env("CLOUDINARY_URL", &format!("cloudinary://1234:hush@{cloud}"));
        setup.env("HERALD_INTEGRATIONS_CLOUDINARY_API_URL", &url)
    };
    let found = doctor(at("demo"), &[]).await;
    found.says("ok", "cloudinary", "\"demo\" takes the key").says("hint", "cloudinary", "do not say where");
    assert!(found.is_well, "{}", found.text);
    let told = at("demo").env("HERALD_PUBLIC_URL", "http://127.0.0.1:1");
    doctor(told, &[]).await.has_no("do not say where");
    let preset = at("demo").env("CLOUDINARY_UPLOAD_PRESET", "avatars");
    doctor(preset, &[]).await.says("WRONG", "cloudinary", "upload preset");
    doctor(at("other"), &[]).await.says("WRONG", "cloudinary", "refused").has_no("hush");
    doctor(at("away"), &[]).await.says("hint", "cloudinary", "503");
    let nobody = at("demo").env("HERALD_INTEGRATIONS_CLOUDINARY_API_URL", "http://127.0.0.1:1");
    doctor(nobody, &[]).await.says("WRONG", "cloudinary", "cannot be asked").has_no("127.0.0.1:1/");
}

#[tokio::test]
async fn a_sentry_that_cannot_be_reached_is_found() {
    let url = stand_in(|_| (200, String::new()), "", None).await;
    let at = |address: &str| Setup::new().env("SENTRY_DSN", &format!("http://hush@{address}/1"));
    doctor(at(url.trim_start_matches("http://")), &[]).await.says("ok", "sentry", "a connection is taken");
    doctor(at("127.0.0.1:1"), &[]).await.says("WRONG", "sentry", "cannot be sent").has_no("hush");
}

#[tokio::test]
async fn a_token_endpoint_that_cannot_be_reached_is_found() {
    let url = stand_in(|_| (405, String::new()), "", None).await;
    let at = |url: &str| {
        let setup = Setup::new().env("HERALD_INTEGRATIONS_OAUTH_DRIVE_TOKEN_URL", &format!("{url}/token"));
        let setup = setup.env("HERALD_INTEGRATIONS_OAUTH_DRIVE_CLIENT_ID", "client");
        setup.env("HERALD_INTEGRATIONS_OAUTH_DRIVE_CLIENT_SECRET", "hush")
    };
    let found = doctor(at(&url), &[]).await;
    found.says("ok", "oauth", "of drive answers").says("WRONG", "oauth", "no key to encrypt");
    let whole = at(&url).env("HERALD_TOKEN_KEYS", &format!("k1:{}=", "A".repeat(43)));
    doctor(whole, &[]).await.has_no("WRONG");
    doctor(at("http://127.0.0.1:1"), &[]).await.says("WRONG", "oauth", "of drive cannot be asked").has_no("hush");
}

#[tokio::test]
async fn tokens_whose_key_is_missing_are_found_while_the_server_runs() {
    let folder = crate::keys::database().await;
    let setup = |keys: &str| crate::keys::setup(&folder, keys);
    let herald = setup(crate::keys::NEW).start().await;
    doctor(setup(crate::keys::NEW), &[]).await.says("WRONG", "database", "\"old\" (1)").has_no("hunter2");
    let both = format!("{},{}", crate::keys::NEW, crate::keys::OLD);
    doctor(setup(&both), &[]).await.says("ok", "database", "can be written to").has_no("WRONG");
    herald.connect().await;
}

#[tokio::test]
async fn clerks_keys_that_do_not_belong_together_are_found() {
    let trusted = certificate(-1, 90);
    let instance = stand_in(|_| (200, key_set(&["a"])), "", Some(acceptor(&trusted))).await;
    let backend = stand_in(
        |head| match head.contains("uthorization: Bearer sk_test_right")
            || head.contains("uthorization: Bearer sk_live_right")
        {
            true => (200, key_set(&["a"])),
            false if head.contains("sk_test_other") => (200, key_set(&["b"])),
            false => (401, "{}".to_owned()),
        },
        "",
        None,
    )
    .await;
    let clerk = |secret: &str| {
        let setup = Setup::new().file("trusted.pem", &trusted.0).env("SSL_CERT_FILE", "trusted.pem");
        let setup = setup.env("CLERK_API_URL", &backend).env("NEXT_PUBLIC_APP_URL", "http://localhost:3000");
        setup.env("CLERK_SECRET_KEY", secret).env("CLERK_PUBLISHABLE_KEY", &publishable("test", &instance))
    };
    let found = doctor(clerk("sk_test_right").env("CLERK_JWT_KEY", &pem("a")), &[]).await;
    assert!(found.is_well, "{}", found.text);
    found.says("ok", "clerk", "auth.jwt_key is the instance's").says("ok", "clerk", "secret key answers");
    found.says("hint", "clerk", "no webhooks").has_no("sk_test");

    let wrong = doctor(clerk("sk_test_right").env("CLERK_JWT_KEY", &pem("b")), &[]).await;
    wrong.says("WRONG", "clerk", "every token is refused").has_no("BEGIN");
    doctor(clerk("sk_test_other"), &[]).await.says("WRONG", "clerk", "are of different instances");
    doctor(clerk("sk_test_gone"), &[]).await.says("WRONG", "clerk", "the key is refused").has_no("sk_test_gone");
    doctor(clerk("sk_live_right"), &[]).await.says("WRONG", "clerk", "is a development instance's");
    let live = clerk("sk_test_right").env("CLERK_PUBLISHABLE_KEY", &publishable("live", &instance));
    doctor(live, &[]).await.says("WRONG", "clerk", "is a production instance's");
    let production = doctor(clerk("sk_test_right").env("NODE_ENV", "production"), &[]).await;
    production.says("WRONG", "clerk", "where people depend on it");
    let gone = Setup::new().env("CLERK_PUBLISHABLE_KEY", &publishable("test", "https://127.0.0.1:1"));
    doctor(gone, &[]).await.says("WRONG", "clerk", "cannot be asked");
}

#[tokio::test]
async fn a_token_that_crisp_does_not_take_is_found() {
    let api = stand_in(
        |head| match (head.split("\r\n").next().unwrap(), head.contains("Basic dDpodXNo")) {
            (_, false) => (401, String::new()),
            ("HEAD /v1/plugin/connect/session HTTP/1.1", true) if head.contains("x-crisp-tier: plugin") => {
                (200, String::new())
            }
            _ => (404, String::new()),
        },
        "",
        None,
    )
    .await;
    let crisp = |tier: &str, key: &str| {
        let setup = Setup::new().env("CRISP_WEBSITE_ID", "w").env("CRISP_TOKEN_ID", "t").env("CRISP_TOKEN_KEY", key);
        setup.env("CRISP_TIER", tier).env("HERALD_INTEGRATIONS_CRISP_API_URL", &api)
    };
    let well = crisp("plugin", "hush").env("CRISP_SIGNING_SECRET", "hush-2").env("CRISP_IDENTITY_SECRET", "hush-3");
    doctor(well, &[]).await.says("ok", "crisp", "takes the token").has_no("WRONG  crisp").has_no("hush");
    let bare = doctor(crisp("plugin", "hush"), &[]).await;
    bare.says("hint", "crisp", "no hooks").says("hint", "crisp", "are not signed");
    doctor(crisp("plugin", "other-hush"), &[]).await.says("WRONG", "crisp", "refused").has_no("hush");
    doctor(crisp("website", "hush"), &[]).await.says("WRONG", "crisp", "404").says("WRONG", "crisp", "");
    let gone = crisp("plugin", "hush").env("HERALD_INTEGRATIONS_CRISP_API_URL", "http://127.0.0.1:1");
    doctor(gone, &[]).await.says("WRONG", "crisp", "cannot be reached");
    let hooks = Setup::new().env("CRISP_WEBSITE_ID", "w").env("CRISP_WEBHOOK_KEY", "hush");
    doctor(hooks, &[]).await.says("hint", "crisp", "no token").has_no("hush");
    doctor(Setup::new(), &[]).await.has_no("crisp");
}

#[tokio::test]
async fn clocks_that_differ_are_found() {
    let now = jiff::Timestamp::now();
    for (seconds, state, part) in [(3_600, "WRONG", "behind"), (-3_600, "WRONG", "ahead of"), (0, "ok", "as at")] {
        let there = (now + jiff::SignedDuration::from_secs(seconds)).to_zoned_datetime(jiff::tz::TimeZone::UTC);
        let date = there.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let clerk = stand_in(|_| (200, key_set(&["a"])), &date, None).await;
        let setup = Setup::new().env("CLERK_API_URL", &clerk).env("CLERK_SECRET_KEY", "sk_test_x");
        doctor(setup, &[]).await.says(state, "clocks", part);
    }
}

#[tokio::test]
async fn who_never_answers_holds_it_up_for_a_bounded_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let setup = Setup::new().env("HERALD_LISTEN", &address.to_string()).env("REDIS_URL", &format!("redis://{address}"));
    let setup = setup.env("DATABASE_URL", &format!("postgres://ann:hush@{address}/app"));
    let setup = setup.env("CLERK_API_URL", &format!("http://{address}")).env("CLERK_SECRET_KEY", "sk_test_x");
    let start = Instant::now();
    let found = doctor(setup, &["--url", &format!("http://{address}")]).await;
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    for check in ["server", "public address", "redis", "database", "clerk"] {
        found.says("WRONG", check, "");
    }
    found.has_no("hush");
}
