//! Each third party hangs for a whole run of traffic, which is the worst that it can do: it takes what it is told and never answers. Sockets,
//! triggers and inboxes must not notice, what is to be done later must neither grow in memory nor get lost, and when the third party is well
//! again all is done without anybody's help.
//!
//! `cargo nextest run --test inbox outage --no-capture` prints the figures.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use data_encoding::HEXLOWER;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::support::api::Answer;
use super::support::{Client, Herald};
use super::user::{ask, auth, authorize, notify, now, request, tab, token};

const CLOUDINARY_SECRET: &str = "a-secret-of-cloudinary";
const CRISP_KEY: &str = "a-key-of-crisp";
const API_KEY: &str = "a-key-of-the-backend";
const TOKEN_KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// Rounds of a run of traffic.
const ROUNDS: usize = 300;
/// How many things, at most, make Herald ask the third party meanwhile.
const THINGS: usize = 320;
/// How many things at once make Herald ask the third party.
const AT_ONCE: usize = 8;
/// After this everything that waited has been done: a breaker stays open for half a minute, and tasks pause.
const RECOVERY: Duration = Duration::from_secs(120);
/// What a stall of the machine may cost. Whoever waits for a third party that hangs waits half a second at least.
const NOISE: Duration = Duration::from_millis(400);

/// The third parties, by what their paths begin with.
const PARTIES: [(&str, &str); 7] = [
    ("clerk", "/v1/users/"),
    ("cloudinary", "/v1_1/"),
    ("crisp", "/v1/website/"),
    ("oauth", "/token"),
    ("authorizer", "/authorize"),
    ("dispatch", "/dispatch"),
    ("sentry", "/api/42/"),
];

/// All third parties at one address.
struct Others {
    url: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    hanging: Option<&'static str>,
    /// How often each was asked while it hung.
    in_vain: BTreeMap<&'static str, usize>,
    /// What was done: the users asked about, the files deleted, the titles that were told.
    done: BTreeSet<String>,
}

impl Others {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Seen>>::default();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, seen }
    }

    fn config(&self) -> String {
        let url = &self.url;
        let clerk = format!("secret_key = \"sk_test_x\"\napi_url = \"{url}\"\nauthorizer = \"{url}/authorize\"");
        format!(
            "{}\n[integrations.cloudinary]\ncloud_name = \"demo\"\napi_key = \"1\"\napi_secret = \"{CLOUDINARY_SECRET}\"\napi_url = \"{url}\"\n\
             [integrations.crisp]\nwebsite_id = \"w\"\ntoken_id = \"t\"\ntoken_key = \"k\"\nwebhook_keys = [\"{CRISP_KEY}\"]\napi_url = \"{url}\"\n\
             [tokens]\nkeys = \"k1:{TOKEN_KEY}\"\n\
             [integrations.oauth.drive]\ntoken_url = \"{url}/token\"\nclient_id = \"c\"\nclient_secret = \"s\"\n\
             [server]\napi_keys = [\"{API_KEY}\"]\n\
             [dispatch]\nurl = \"{url}/dispatch\"\nsecret = \"whsec_bm90IHJlYWxseSBhIHNlY3JldA==\"\n\
             [sentry]\ndsn = \"{}/42\"\ntraces_sample_rate = 1\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [limits]\ndefault = \"off\"\nauth = \"off\"\nfile_signatures = \"off\"\nservers = \"off\"\ninbox_reads = \"off\"\ninbox_writes = \"off\"\nfailed_auth = \"off\"\n\
             [[auth.rules]]\nchannels = [\"room\"]\n",
            auth(&clerk),
            url.replace("http://", "http://public@"),
        )
    }

    fn hang(&self, party: Option<&'static str>) {
        self.seen.lock().hanging = party;
    }

    fn in_vain(&self, party: &str) -> usize {
        self.seen.lock().in_vain.get(party).copied().unwrap_or_default()
    }
}

async fn answer(State(seen): State<Arc<Mutex<Seen>>>, uri: Uri, body: Bytes) -> Response {
    if uri.path().starts_with("/v1/plugin/") {
        return "{}".into_response(); // whether Crisp is well
    }
    let (party, _) = PARTIES.iter().find(|(_, path)| uri.path().starts_with(path)).unwrap_or_else(|| panic!("{uri}"));
    let hangs = {
        let mut seen = seen.lock();
        let hangs = seen.hanging == Some(party);
        if hangs {
            *seen.in_vain.entry(party).or_default() += 1;
        }
        hangs
    };
    if hangs {
        return std::future::pending().await;
    }
    let done = |what: &str| _ = seen.lock().done.insert(what.to_owned());
    match *party {
        "clerk" => {
            let id = percent_decode_str(uri.path().rsplit('/').next().unwrap()).decode_utf8().unwrap();
            json!({ "id": id, "first_name": "Ann", "last_name": "Lee", "email_addresses": [], "updated_at": 2 })
                .to_string()
                .into_response()
        }
        "cloudinary" if uri.path().ends_with("/ping") => json!({ "status": "ok" }).to_string().into_response(),
        "cloudinary" => {
            let form: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
            done(&form["public_id"]);
            json!({ "result": "ok" }).to_string().into_response()
        }
        "crisp" => {
            let said: Option<Value> = serde_json::from_slice(&body).ok();
            if let Some(said) = said {
                done(said["content"].as_str().unwrap());
            }
            json!({ "error": false, "data": { "is_verified": false } }).to_string().into_response()
        }
        "oauth" => {
            let form: BTreeMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
            done(&form["refresh_token"]);
            let headers = [("Content-Type", "application/json")];
            (headers, json!({ "access_token": "good", "token_type": "bearer", "expires_in": 3_600 }).to_string())
                .into_response()
        }
        "dispatch" => {
            let told: Value = serde_json::from_slice(&body).unwrap();
            for notification in told["data"]["notifications"].as_array().unwrap() {
                done(notification["title"].as_str().unwrap());
            }
            StatusCode::NO_CONTENT.into_response()
        }
        _ => "{}".into_response(),
    }
}

/// What half of the times, and what 99 of a hundred, took no longer than.
type Percentiles = BTreeMap<&'static str, (Duration, Duration)>;

/// How long something took, each time.
#[derive(Default)]
struct Took(BTreeMap<&'static str, Vec<Duration>>);

impl Took {
    fn note(&mut self, what: &'static str, since: Instant) {
        self.0.entry(what).or_default().push(since.elapsed());
    }

    fn percentiles(mut self) -> Percentiles {
        self.0.values_mut().for_each(|times| times.sort_unstable());
        self.0
            .into_iter()
            .map(|(what, times)| (what, (times[times.len() / 2], times[times.len() * 99 / 100])))
            .collect()
    }
}

/// A run of traffic: what users and backends notice.
async fn traffic(herald: &Herald, tab: &mut Client) -> Took {
    let mut took = Took::default();
    for round in 0..ROUNDS {
        let begun = Instant::now();
        herald.trigger("private-user-user_ann", "round", round.to_string()).await;
        took.note("trigger", begun);
        tab.expect("round").await;
        took.note("trigger to socket", begun);
        let begun = Instant::now();
        notify(herald, &["user_ann"], "a round").await;
        tab.expect("notification.created").await;
        took.note("notification to socket", begun);
        let begun = Instant::now();
        ask(herald, "user_ann", "GET", "/v1/inbox?limit=1", &Value::Null).await.ok();
        took.note("inbox", begun);
    }
    took
}

/// A file of his, of which Cloudinary has told; its id.
async fn uploaded(herald: &Herald, name: &str) -> String {
    let body = json!({
        "notification_type": "upload", "public_id": format!("users/user_bob/{name}"), "version": 1, "bytes": 10, "format": "jpg",
        "resource_type": "image", "type": "upload", "asset_id": name,
        "secure_url": format!("https://res.cloudinary.com/demo/image/upload/v1/users/user_bob/{name}.jpg"),
    })
    .to_string();
    let signed = format!("{body}{}{CLOUDINARY_SECRET}", now());
    let signature = HEXLOWER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, signed.as_bytes()).as_ref());
    let headers = [format!("X-Cld-Signature: {signature}"), format!("X-Cld-Timestamp: {}", now())];
    request(herald, "POST", "/webhooks/cloudinary", &[&headers[0], &headers[1]], &body).await.ok();
    let files = ask(herald, "user_bob", "GET", "/v1/files?limit=100", &Value::Null).await.ok();
    let file =
        files["items"].as_array().unwrap().iter().find(|file| file["filename"].as_str().unwrap().starts_with(name));
    file.unwrap_or_else(|| panic!("{name}: {files}"))["id"].as_str().unwrap().to_owned()
}

/// A hook of Crisp's about this conversation.
async fn hook(herald: &Herald, kind: &str, session: &str, mut data: Value) {
    data["session_id"] = session.into();
    let body = json!({ "website_id": "w", "event": kind, "data": data, "timestamp": now() * 1_000 }).to_string();
    request(herald, "POST", &format!("/webhooks/crisp?key={CRISP_KEY}"), &[], &body).await.ok();
}

async fn as_backend(herald: &Herald, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [format!("Authorization: Bearer {API_KEY}"), "Content-Type: application/json".to_owned()];
    request(herald, method, path, &[&headers[0], &headers[1]], &body.to_string()).await
}

/// A user's address is known, and Crisp says that it is his conversation.
async fn has_a_conversation(herald: &Herald) {
    let put = as_backend(herald, "PUT", "/v1/users/user_bob", &json!({ "email": "bob@example.com" })).await;
    assert_eq!(put.status, 204, "{}", put.text);
    let verified = json!({ "is_verified": true, "verifications": [{ "identity": "bob@example.com" }] });
    hook(herald, "session:update_verify", "bobs", verified).await;
}

/// Something that makes Herald ask this party; what is done by it in the end.
async fn provoke(herald: &Herald, party: &str, number: usize) -> Option<String> {
    let name = format!("{party}-{number}");
    match party {
        "clerk" | "authorizer" => {
            let channel = if party == "clerk" { "presence-room".to_owned() } else { format!("private-{name}") };
            let form = format!("socket_id=1.1&channel_name={channel}");
            let answer = authorize(herald, "/pusher/auth", &token(&format!("user_{name}"), &json!({})), &form).await;
            assert!(matches!(answer.status, 200 | 503), "{party} {}", answer.text);
            None
        }
        "cloudinary" => {
            let id = uploaded(herald, &name).await;
            assert_eq!(ask(herald, "user_bob", "DELETE", &format!("/v1/files/{id}"), &Value::Null).await.status, 204);
            Some(format!("users/user_bob/{name}"))
        }
        "crisp" => {
            hook(herald, "message:send", &name, json!({ "type": "text", "from": "user" })).await; // whose is it?
            let body = json!({ "user_id": "user_bob", "text": name });
            let sent = as_backend(herald, "POST", "/v1/support/messages", &body).await;
            assert_eq!(sent.status, 202, "{}", sent.text);
            Some(name)
        }
        "oauth" => {
            let path = format!("/v1/users/user_{name}/integrations/drive");
            let body =
                json!({ "access_token": "old", "refresh_token": name, "token_expires_at": "2026-01-01T00:00:00Z" });
            assert_eq!(as_backend(herald, "PUT", &path, &body).await.status, 200);
            let answer = as_backend(herald, "POST", &format!("{path}/token"), &json!({})).await;
            assert!(matches!(answer.status, 200 | 503), "{}", answer.text);
            Some(name)
        }
        "dispatch" => {
            notify(herald, &["user_bob"], &name).await;
            Some(name)
        }
        // Each request is one that it is told of.
        "sentry" => {
            request(herald, "GET", "/openapi.json", &[], "").await;
            None
        }
        other => panic!("{other}"),
    }
}

/// A run of traffic while Herald has this party asked all the time; what was noticed, and what is to be done in the end.
async fn run(herald: &Arc<Herald>, ann: &mut Client, party: &'static str, first: usize) -> (Percentiles, Vec<String>) {
    let mut provoking = JoinSet::new();
    let (stop, stopped) = watch::channel(());
    for start in 0..AT_ONCE {
        let (herald, stopped) = (Arc::clone(herald), stopped.clone());
        provoking.spawn(async move {
            let mut done = Vec::new();
            for number in (first + start..first + THINGS).step_by(AT_ONCE) {
                if stopped.has_changed().is_err() {
                    break;
                }
                done.extend(provoke(&herald, party, number).await);
            }
            done
        });
    }
    let noticed = traffic(herald, ann).await.percentiles();
    drop(stop);
    (noticed, provoking.join_all().await.into_iter().flatten().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_party_that_hangs_is_noticed_by_nobody_and_all_is_made_up_for() {
    let others = Others::start().await;
    let herald = Arc::new(Herald::start(&others.config()).await);
    let mut ann = tab(&herald, "user_ann").await;
    notify(&herald, &["user_bob"], "from now on he is known").await;
    has_a_conversation(&herald).await;
    traffic(&herald, &mut ann).await; // whatever is slow the first time
    let (mut expected, mut resident) = (BTreeSet::new(), Vec::new());
    for (party, _) in PARTIES {
        let (well, done) = run(&herald, &mut ann, party, 0).await;
        expected.extend(done);
        others.hang(Some(party));
        let (hanging, done) = run(&herald, &mut ann, party, THINGS).await;
        expected.extend(done);
        let in_vain = others.in_vain(party);
        assert!(in_vain > 0, "{party} was asked while it hung");
        assert!(in_vain <= 4 * AT_ONCE, "{party} is left alone: it was asked {in_vain} times while it hung");
        for (what, (half, most)) in hanging {
            let (usual_half, usual) = well[what];
            println!(
                "{party:11} {what:23} p50 {half:>9.1?} ({usual_half:>9.1?} while well) p99 {most:>9.1?} ({usual:>9.1?} while well)"
            );
            assert!(most <= usual * 4 + NOISE, "{party} hangs, and {what} takes {most:?}, otherwise {usual:?}");
        }
        resident.push(herald.resident_bytes());
        if party == "clerk" {
            let details = health(&herald, party).await;
            assert_eq!((&details["status"], &details["breaker"]), (&json!("degraded"), &json!("open")), "{details}");
            assert!(details["rejected"].as_u64().unwrap() > 0, "it is left alone: {details}");
        }
    }
    others.hang(None);
    let recovered = async {
        while !others.seen.lock().done.is_superset(&expected) || herald.metrics().await.lines().any(is_not_asked) {
            // Asking again is what users do.
            provoke(&herald, "clerk", 2 * THINGS).await;
            provoke(&herald, "authorizer", 2 * THINGS).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let begun = Instant::now();
    let in_time = timeout(RECOVERY, recovered).await;
    let missing: Vec<String> = expected.difference(&others.seen.lock().done).cloned().collect();
    assert!(in_time.is_ok(), "missing: {missing:?}\n{}", herald.metrics().await);
    println!("{} things were made up for after {:?}; resident {resident:?}", expected.len(), begun.elapsed());
    assert!(expected.len() >= 2 * AT_ONCE, "there was something to make up for: {expected:?}");
    let (first, last) = (resident[0], resident[resident.len() - 1]);
    assert!(last < first + 32 * 1024 * 1024, "memory climbs: {resident:?}");
    let form = "socket_id=1.1&channel_name=presence-room";
    let data = authorize(&herald, "/pusher/auth", &token("user_new", &json!({})), form).await.ok();
    assert!(data["channel_data"].as_str().unwrap().contains("Ann Lee"), "Clerk is asked again: {data}");
    for party in ["clerk", "cloudinary", "sentry"] {
        let details = health(&herald, party).await;
        assert_eq!(details["breaker"], "closed", "{party}: {details}");
    }
}

/// What `/health/integrations` says of a third party.
async fn health(herald: &Herald, party: &str) -> Value {
    let answer = request(herald, "GET", "/health/integrations", &[], "").await.json();
    let services = answer["services"].as_array().unwrap();
    let service = services.iter().find(|service| service["service"] == party);
    service.unwrap_or_else(|| panic!("{party}: {answer}"))["details"].clone()
}

/// A line of the metrics that says of a third party that it is left alone.
fn is_not_asked(line: &str) -> bool {
    line.starts_with("herald_outgoing_not_asked{") && !line.ends_with(" 0")
}
