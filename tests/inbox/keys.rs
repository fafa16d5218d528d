//! Keys that the identity provider publishes: fetched once, kept while it is away, not fetched for whoever makes up ids.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use herald::identity::Algorithm;
use herald::integrations::jwks::{Jwks, NoKeys, Source};
use herald::outgoing::Outgoing;

use super::support::Herald;
use super::user::{ask, authorize, key_id, token};

/// A provider that answers what it is told to, and counts how often it is asked.
struct Provider {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(answer: impl Fn(usize) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/.well-known/jwks.json", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                assert!(String::from_utf8_lossy(&request[..read]).starts_with("GET /.well-known/jwks.json "));
                stream.write_all(answer(number).as_bytes()).await.ok();
            }
        });
        Self { url, asked }
    }

    fn keys(&self) -> Jwks {
        let service = Outgoing::new().unwrap().service("clerk.jwks");
        Jwks::new(Source::Url(self.url.clone()), service, vec![Algorithm::Rs256])
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

fn document() -> String {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/clerk_jwt.json")).unwrap();
    vectors["jwks"].to_string()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_hundred_requests_at_once_are_one_fetch() {
    let provider = Provider::start(|_| answer("200 OK", &document())).await;
    let (keys, id) = (Arc::new(provider.keys()), key_id());
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (keys, id) = (Arc::clone(&keys), id.clone());
            tokio::spawn(async move { keys.find(Some(&id)).await.unwrap().is_some() })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap());
    }
    assert_eq!(provider.asked(), 1);
}

#[tokio::test]
async fn ids_that_are_made_up_cause_no_flood() {
    let provider = Provider::start(|_| answer("200 OK", &document())).await;
    let keys = provider.keys();
    for number in 0..50 {
        assert_eq!(keys.find(Some(&format!("ins_{number}"))).await, Ok(None));
    }
    assert!(keys.find(Some(&key_id())).await.unwrap().is_some());
    assert_eq!(provider.asked(), 1, "the set is fresh, so none of them is worth another look for 30 seconds");
}

#[tokio::test]
async fn a_provider_that_fails_lies_or_sends_too_much_gives_no_keys() {
    let redirect =
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for wrong in [
        answer("500 Internal Server Error", ""),
        answer("200 OK", "<html>"),
        answer("200 OK", &json!({ "keys": "none" }).to_string()),
        answer("200 OK", &" ".repeat(300 * 1024)),
        redirect.to_owned(),
        String::new(),
    ] {
        let provider = Provider::start(move |_| wrong.clone()).await;
        assert_eq!(provider.keys().find(Some(&key_id())).await, Err(NoKeys));
    }
}

#[tokio::test]
async fn a_provider_that_comes_back_is_asked_again() {
    let provider = Provider::start(|number| match number {
        0 => answer("503 Service Unavailable", ""),
        _ => answer("200 OK", &document()),
    })
    .await;
    let keys = provider.keys();
    assert_eq!(keys.find(Some(&key_id())).await, Err(NoKeys));
    let found = async {
        while keys.find(Some(&key_id())).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::support::DEADLINE, found).await.unwrap();
    assert_eq!(provider.asked(), 2);
}

#[tokio::test]
async fn another_issuer_s_tokens_say_who_users_are_and_its_keys_are_found_by_discovery() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let discovery = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") }).to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..read]);
            let body =
                if request.starts_with("GET /.well-known/openid-configuration ") { &discovery } else { &document() };
            assert!(request.starts_with("GET /keys ") || *body == discovery, "{request}");
            stream.write_all(answer("200 OK", body).as_bytes()).await.ok();
        }
    });
    let config = format!(
        "[auth.oidc]\nissuer = \"{issuer}\"\naudiences = [\"herald\"]\norg_claim = \"tenant\"\n[[auth.rules]]\nchannels = [\"team-{{org_id}}\"]"
    );
    let herald = Herald::start(&config).await;
    let claims = |more: Value| {
        let mut claims = json!({ "iss": issuer, "aud": ["herald"], "sid": null, "tenant": "acme" });
        for (name, value) in more.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    let asked = async |more: Value, channel: &str| {
        let form = format!("socket_id=1.1&channel_name={channel}");
        authorize(&herald, "/pusher/auth", &token("ann", &claims(more)), &form).await.status
    };
    assert_eq!(asked(json!({}), "private-user-ann").await, 200);
    assert_eq!(asked(json!({}), "private-team-acme").await, 200);
    assert_eq!(asked(json!({}), "private-team-other").await, 403);
    for wrong in [
        json!({ "aud": "other" }),
        json!({ "aud": null }),
        json!({ "iss": "https://evil.example" }),
        json!({ "exp": 1 }),
    ] {
        assert_eq!(asked(wrong.clone(), "private-user-ann").await, 401, "{wrong}");
    }
    assert_eq!(ask(&herald, "ann", "GET", "/v1/inbox", &Value::Null).await.status, 401, "a token for others");
}

#[tokio::test]
async fn an_issuer_cannot_send_the_server_into_its_own_network() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let keys = format!("https://localhost:{}/keys", inner.local_addr().unwrap().port());
    let discovery = json!({ "issuer": issuer, "jwks_uri": keys }).to_string();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await.unwrap();
            stream.write_all(answer("200 OK", &discovery).as_bytes()).await.ok();
        }
    });
    let herald = Herald::start(&format!("[auth.oidc]\nissuer = \"{issuer}\"\naudiences = [\"herald\"]")).await;
    let claims = json!({ "iss": issuer, "aud": ["herald"] });
    let answer =
        authorize(&herald, "/pusher/auth", &token("ann", &claims), "socket_id=1.1&channel_name=private-x").await;
    assert_eq!(answer.status, 503, "there are no keys");
    herald.logged("private network").await;
    let nobody = inner.accept();
    tokio::select! { biased; _ = nobody => panic!("the inner address was asked"), () = std::future::ready(()) => {} }
}
