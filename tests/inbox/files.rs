//! Users' files at Cloudinary: what is signed, what follows from notifications, and what becomes of a deletion while Cloudinary is slow, broken or
//! mad.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::HEXLOWER;
use herald::config::Sources;
use herald::integrations::cloudinary::signature::{self, Digest};
use herald_protocol::Secret;
use parking_lot::Mutex;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::support::Herald;
use super::support::api::Answer;
use super::user::{CLERK_SECRET, ask, auth, now, request, tab, webhook};

const SECRET: &str = "TESTSECRET_abcdEFGH-1234_xyz";
/// A first attempt may take its whole time, and the second comes some seconds later.
const LONG: Duration = Duration::from_secs(40);

/// How the stand-in for Cloudinary's API answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Well,
    NotFound,
    Broken,
    Hanging,
    Lying,
    Flooding,
}

/// A stand-in for Cloudinary's API: it looks whether what it gets is signed.
struct Api {
    url: String,
    mood: Arc<Mutex<Mood>>,
    /// What it was asked to delete, as it has answered that.
    destroyed: mpsc::Receiver<(Mood, BTreeMap<String, String>)>,
}

impl Api {
    async fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, destroyed) = mpsc::channel(100);
        let mood = Arc::new(Mutex::new(mood));
        let now = Arc::clone(&mood);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tell, mood) = (tell.clone(), *now.lock());
                tokio::spawn(async move { serve(stream, mood, tell).await });
            }
        });
        Self { url, mood, destroyed }
    }

    fn config(&self, more: &str) -> String {
        format!(
            "{}\n[integrations.cloudinary]\ncloud_name = \"demo\"\napi_key = \"123456789012345\"\napi_secret = \"{SECRET}\"\napi_url = \"{}\"\n{more}",
            auth(&format!("webhook_secret = \"{CLERK_SECRET}\"")),
            self.url
        )
    }

    /// The next file that it was asked to delete, and how it has answered.
    async fn next(&mut self) -> (Mood, String) {
        let (mood, form) = timeout(LONG, self.destroyed.recv()).await.expect("it is asked, in time").unwrap();
        (mood, form["public_id"].clone())
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock() = mood;
    }
}

async fn serve(mut stream: tokio::net::TcpStream, mood: Mood, tell: mpsc::Sender<(Mood, BTreeMap<String, String>)>) {
    let mut request = Vec::new();
    let (head, body) = loop {
        if stream.read_buf(&mut request).await.unwrap() == 0 {
            return;
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let path = head.split(' ').nth(1).unwrap();
    assert!(path.starts_with("/v1_1/demo/"), "{path}");
    let (status, answer) = if path.ends_with("/destroy") {
        let mut form: BTreeMap<String, String> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
        tell.send((mood, form.clone())).await.ok();
        let (given, key) = (form.remove("signature").unwrap(), form.remove("api_key").unwrap());
        assert_eq!(
            (signature::sign(&form, &Secret::new(SECRET), Digest::Sha1), key.as_str()),
            (given, "123456789012345")
        );
        assert_eq!((&*form["invalidate"], path), ("true", "/v1_1/demo/image/destroy"));
        match mood {
            Mood::Well => ("200 OK", r#"{"result":"ok"}"#.to_owned()),
            Mood::NotFound => ("200 OK", r#"{"result":"not found"}"#.to_owned()),
            Mood::Broken => ("500 Oops", String::new()),
            Mood::Lying => ("200 OK", "<html>[1,2".to_owned()),
            Mood::Hanging => return std::future::pending().await,
            Mood::Flooding => ("200 OK", "x".repeat(100 * 1024 * 1024)),
        }
    } else {
        let basic = data_encoding::BASE64.encode(format!("123456789012345:{SECRET}").as_bytes());
        let is_right = head.contains(&format!("authorization: Basic {basic}"));
        match path.trim_start_matches("/v1_1/demo/") {
            _ if !is_right => ("401 Unauthorized", String::new()),
            _ if mood == Mood::Lying => ("200 OK", "<html>".to_owned()),
            _ if mood == Mood::Broken => ("500 Oops", String::new()),
            _ if mood == Mood::NotFound => ("420 Enhance Your Calm", String::new()),
            "ping" => ("200 OK", r#"{"status":"ok"}"#.to_owned()),
            "upload_presets/user%5Fuploads" => ("200 OK", r#"{"name":"user_uploads"}"#.to_owned()),
            _ => ("404 Not Found", String::new()),
        }
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
    // Whoever has heard enough is gone.
    if stream.write_all(head.as_bytes()).await.is_ok() {
        stream.write_all(answer.as_bytes()).await.ok();
    }
}

/// A notification, signed as Cloudinary does it.
async fn notify_with(herald: &Herald, body: &str, secret: &str, timestamp: u64) -> Answer {
    let signed = format!("{body}{timestamp}{secret}");
    let signature = HEXLOWER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, signed.as_bytes()).as_ref());
    let headers = [format!("X-Cld-Signature: {signature}"), format!("X-Cld-Timestamp: {timestamp}")];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    request(herald, "POST", "/webhooks/cloudinary", &headers, body).await
}

async fn notify(herald: &Herald, body: &Value) {
    notify_with(herald, &body.to_string(), SECRET, now()).await.ok();
}

fn upload(user: &str, name: &str, bytes: u64) -> Value {
    json!({
        "notification_type": "upload", "public_id": format!("users/{user}/{name}"), "version": 1, "bytes": bytes, "format": "jpg",
        "resource_type": "image", "type": "upload", "original_filename": name, "width": 2, "asset_id": format!("{user}-{name}"),
        "secure_url": format!("https://res.cloudinary.com/demo/image/upload/v1/users/{user}/{name}.jpg"),
    })
}

async fn sign(herald: &Herald, user: &str, body: &Value) -> Answer {
    ask(herald, user, "POST", "/v1/files/signature", body).await
}

async fn list(herald: &Herald, user: &str) -> Vec<Value> {
    ask(herald, user, "GET", "/v1/files", &Value::Null).await.ok()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn an_upload_is_signed_into_the_users_own_folder_and_nowhere_else() {
    let api = Api::start(Mood::Well).await;
    let config = api.config("eager = \"c_thumb,w_200|e_grayscale\"\n[server]\npublic_url = \"https://herald.example\"");
    let herald = Herald::start(&config).await;
    let signed = sign(&herald, "user_ann", &json!({ "filename": "x.jpg", "tags": ["a", "b"] })).await.ok();
    let params: BTreeMap<String, String> = serde_json::from_value(signed["params"].clone()).unwrap();
    for (name, value) in [
        ("folder", "users/user_ann"),
        ("context", "user_id=user_ann"),
        ("upload_preset", "user_uploads"),
        ("allowed_formats", "jpg,png,gif,pdf"),
        ("notification_url", "https://herald.example/webhooks/cloudinary"),
        ("eager", "c_thumb,w_200|e_grayscale"),
        ("overwrite", "false"),
        ("tags", "a,b"),
    ] {
        assert_eq!(params[name], value, "{name}");
    }
    assert_eq!(signature::sign(&params, &Secret::new(SECRET), Digest::Sha1), signed["signature"]);
    assert_eq!(signed["upload_url"], format!("{}/v1_1/demo/image/upload", api.url));
    assert_eq!((&signed["api_key"], &signed["cloud_name"]), (&json!("123456789012345"), &json!("demo")));
    assert_eq!(signed["expires_at"].as_u64().unwrap(), signed["timestamp"].as_u64().unwrap() + 3_600);
    // As the widget asks, at the address that the app had before.
    let asked = json!({ "paramsToSign": { "timestamp": now(), "source": "uw", "folder": "users/user_ann", "upload_preset": "user_uploads" } });
    let answer = ask(&herald, "user_ann", "POST", "/api/cloudinary/signature", &asked).await.ok();
    let params: BTreeMap<String, String> = serde_json::from_value(answer["params"].clone()).unwrap();
    assert_eq!(
        (params.len(), signature::sign(&params, &Secret::new(SECRET), Digest::Sha1)),
        (4, answer["signature"].as_str().unwrap().to_owned())
    );
    for (body, named) in [
        (json!({ "paramsToSign": { "timestamp": now(), "folder": "users/user_bob" } }), "`folder`"),
        (json!({ "paramsToSign": { "timestamp": now(), "folder": "users/user_ann", "eval": "x" } }), "`eval`"),
        (json!({ "paramsToSign": "x" }), "`paramsToSign`"),
        (json!({ "resource_type": "folder" }), "`resource_type`"),
        (json!({ "filename": "../x" }), "`filename`"),
        (json!({ "tags": "a&b" }), "`tags`"),
    ] {
        let refused = sign(&herald, "user_ann", &body).await;
        assert_eq!(refused.status, 400, "{body}");
        assert!(refused.json()["error"]["message"].as_str().unwrap().starts_with(named), "{}", refused.text);
    }
    let empty = sign(&herald, "user_ann", &Value::Null).await;
    assert_eq!(empty.status, 200, "nothing need be chosen: {}", empty.text);
    assert_eq!(request(&herald, "POST", "/v1/files/signature", &[], "{}").await.status, 401);
    herald.logged("Cloudinary is on").await;
    assert!(!herald.has_logged(SECRET));
}

#[tokio::test]
async fn an_uploaded_file_is_in_its_owners_list_and_on_the_open_page() {
    let api = Api::start(Mood::Well).await;
    let herald = Herald::start(&api.config("")).await;
    sign(&herald, "user_ann", &json!({})).await.ok(); // from now on she is known
    let mut ann = tab(&herald, "user_ann").await;
    let body = upload("user_ann", "photo", 10);
    notify(&herald, &body).await;
    let event = ann.expect("file.created").await.json();
    let files = list(&herald, "user_ann").await;
    assert_eq!(event, json!({ "file": files[0] }));
    let file = &files[0];
    assert_eq!(
        (&file["filename"], &file["status"], &file["metadata"]["width"]),
        (&json!("photo.jpg"), &json!("ready"), &json!(2))
    );
    notify(&herald, &body).await; // again, to the byte
    let mut changed = body.clone();
    changed["tags"] = json!(["x"]);
    notify(&herald, &changed).await;
    assert_eq!(ann.expect("file.updated").await.json()["file"]["metadata"]["tags"], json!(["x"]));
    let deleted = json!({ "notification_type": "delete", "resources": [{ "public_id": "users/user_ann/photo" }] });
    notify(&herald, &deleted).await;
    ann.expect("file.deleted").await;
    assert!(list(&herald, "user_ann").await.is_empty());
    notify(&herald, &upload("user_unknown", "photo", 10)).await;
    assert!(list(&herald, "user_unknown").await.is_empty(), "Clerk is configured, and has not told of them");
}

#[tokio::test]
async fn what_is_not_cloudinarys_is_refused_and_each_of_its_secrets_counts() {
    let api = Api::start(Mood::Well).await;
    let herald =
        Herald::start(&api.config("webhook_secrets = [\"new\", \"old\"]\nnotification_max_age = \"10m\"")).await;
    let body = r#"{ "notification_type" : "create_folder" }"#; // verified as it stands, not as it would be written
    for secret in ["new", "old"] {
        assert_eq!(notify_with(&herald, body, secret, now()).await.ok(), json!({ "received": true }));
    }
    for (secret, at) in [(SECRET, now()), ("new", now() - 601), ("new", now() + 310)] {
        let refused = notify_with(&herald, body, secret, at).await;
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_signature")));
    }
    let timestamp = now();
    let signature = HEXLOWER.encode(digest(&SHA256, format!("{body}{timestamp}new").as_bytes()).as_ref());
    let headers = [format!("X-Cld-Signature: {signature}"), format!("X-Cld-Timestamp: {timestamp}")];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    assert_eq!(request(&herald, "POST", "/api/webhooks/cloudinary", &headers, body).await.status, 200, "by SHA-256");
    assert_eq!(request(&herald, "POST", "/webhooks/cloudinary", &[], body).await.status, 401);
    assert_eq!(notify_with(&herald, "no JSON at all", "new", now()).await.status, 200, "a repetition would not help");
    let long = "x".repeat(1024 * 1024 + 1);
    assert_eq!(request(&herald, "POST", "/webhooks/cloudinary", &[], &long).await.status, 413);
}

#[tokio::test]
async fn a_file_that_is_too_large_is_deleted_and_its_owner_told() {
    let mut api = Api::start(Mood::Well).await;
    let herald = Herald::start(&api.config("max_file_bytes = 100")).await;
    sign(&herald, "user_ann", &json!({})).await.ok();
    let mut ann = tab(&herald, "user_ann").await;
    notify(&herald, &upload("user_ann", "edge", 100)).await;
    ann.expect("file.created").await;
    notify(&herald, &upload("user_ann", "big", 101)).await;
    assert_eq!(ann.expect("file.rejected").await.json()["file"]["status"], "rejected");
    assert_eq!(api.next().await, (Mood::Well, "users/user_ann/big".to_owned()));
    let files = list(&herald, "user_ann").await;
    assert_eq!(files[0]["status"], "rejected", "its owner sees why it is not there");
    let path = format!("/v1/files/{}", files[0]["id"].as_str().unwrap());
    api.be(Mood::NotFound);
    assert_eq!(ask(&herald, "user_ann", "DELETE", &path, &Value::Null).await.status, 204);
    assert_eq!(api.next().await.0, Mood::NotFound);
    assert_eq!(list(&herald, "user_ann").await.len(), 1);
}

/// A client's report of its upload, as Cloudinary has answered it.
fn answered(user: &str, name: &str) -> Value {
    let mut answer = upload(user, name, 10);
    let text = format!("public_id=users/{user}/{name}&version=1{SECRET}");
    answer["signature"] = HEXLOWER.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()).as_ref()).into();
    answer
}

#[tokio::test]
async fn a_client_reports_its_own_upload_and_no_other() {
    let api = Api::start(Mood::Well).await;
    let herald = Herald::start(&api.config("")).await;
    let mut ann = tab(&herald, "user_ann").await;
    let report = answered("user_ann", "photo");
    let first = ask(&herald, "user_ann", "POST", "/v1/files", &report).await.ok();
    assert_eq!(ann.expect("file.created").await.json(), first);
    assert_eq!(ask(&herald, "user_ann", "POST", "/v1/files", &report).await.ok(), first, "once more is the same");
    notify(&herald, &upload("user_ann", "photo", 10)).await;
    let told = ann.expect("file.updated").await.json();
    assert_eq!((&told["file"]["id"], &told["file"]["asset_id"]), (&first["file"]["id"], &json!("user_ann-photo")));
    assert_eq!(list(&herald, "user_ann").await.len(), 1);
    let status = async |user: &str, changes: Value| {
        let mut report = report.clone();
        for (name, value) in changes.as_object().unwrap() {
            report[name] = value.clone();
        }
        ask(&herald, user, "POST", "/v1/files", &report).await.status
    };
    assert_eq!(status("user_bob", json!({})).await, 403, "it is not his folder");
    assert_eq!(status("user_ann", json!({ "version": 2 })).await, 400, "that was not signed");
    assert_eq!(status("user_ann", json!({ "public_id": "users/user_ann/other" })).await, 400);
    assert_eq!(status("user_ann", json!({ "signature": null })).await, 400);
    assert_eq!(status("user_ann", json!({ "resource_type": "folder" })).await, 400);
}

#[tokio::test]
async fn files_come_in_pages_and_only_to_their_owner() {
    let api = Api::start(Mood::Well).await;
    let herald = Herald::start(&api.config("")).await;
    for number in 0..3 {
        ask(&herald, "user_ann", "POST", "/v1/files", &answered("user_ann", &number.to_string())).await.ok();
    }
    let page = async |query: &str| ask(&herald, "user_ann", "GET", &format!("/v1/files{query}"), &Value::Null).await;
    let names = |page: &Value| -> Vec<String> {
        page["items"].as_array().unwrap().iter().map(|file| file["filename"].as_str().unwrap().to_owned()).collect()
    };
    let first = page("?limit=2").await.ok();
    assert_eq!(names(&first), ["2.jpg", "1.jpg"]);
    let second = page(&format!("?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await.ok();
    assert_eq!((names(&second), &second["next_cursor"]), (vec!["0.jpg".to_owned()], &Value::Null));
    for wrong in ["?limit=0", "?limit=101", "?cursor=x"] {
        assert_eq!(page(wrong).await.status, 400, "{wrong}");
    }
    assert!(list(&herald, "user_bob").await.is_empty());
    let path = format!("/v1/files/{}", first["items"][0]["id"].as_str().unwrap());
    for (user, path) in [("user_bob", path.as_str()), ("user_ann", "/v1/files/nonsense")] {
        assert_eq!(ask(&herald, user, "DELETE", path, &Value::Null).await.status, 404, "{user} {path}");
    }
    let method = ask(&herald, "user_ann", "PUT", "/v1/files", &json!({})).await;
    assert_eq!((method.status, method.headers["allow"].as_str()), (405, "GET, POST, OPTIONS"));
}

/// Deletes a file of Ann's while Cloudinary is in this mood; its owner waits for nothing. Returns once it was asked.
async fn delete_while(mood: Mood) -> (Herald, Api, String) {
    let mut api = Api::start(mood).await;
    let config = api.config("");
    let herald = Herald::start(&config).await;
    let file = ask(&herald, "user_ann", "POST", "/v1/files", &answered("user_ann", "photo")).await.ok();
    let path = format!("/v1/files/{}", file["file"]["id"].as_str().unwrap());
    let begun = tokio::time::Instant::now();
    let mut ann = tab(&herald, "user_ann").await;
    assert_eq!(ask(&herald, "user_ann", "DELETE", &path, &Value::Null).await.status, 204);
    assert_eq!(ann.expect("file.deleted").await.json()["file"]["status"], "deleting");
    assert!(begun.elapsed() < Duration::from_secs(4), "nobody waits for Cloudinary");
    assert!(list(&herald, "user_ann").await.is_empty());
    assert_eq!(ask(&herald, "user_ann", "DELETE", &path, &Value::Null).await.status, 204, "asked for again");
    assert_eq!(api.next().await, (mood, "users/user_ann/photo".to_owned()));
    (herald, api, config)
}

/// It is deleted at last, and that is all that it was asked.
async fn all_is_well(herald: &Herald, api: &mut Api) {
    api.be(Mood::Well);
    loop {
        let (mood, file) = api.next().await;
        assert_eq!(file, "users/user_ann/photo");
        if mood == Mood::Well {
            break;
        }
    }
    // Whatever had been asked for before is done by now; this is the next thing that it hears of.
    let file = ask(herald, "user_ann", "POST", "/v1/files", &answered("user_ann", "marker")).await.ok();
    let path = format!("/v1/files/{}", file["file"]["id"].as_str().unwrap());
    ask(herald, "user_ann", "DELETE", &path, &Value::Null).await;
    assert_eq!(api.next().await, (Mood::Well, "users/user_ann/marker".to_owned()));
}

#[tokio::test]
async fn a_deletion_outlasts_a_cloudinary_that_is_broken() {
    let (herald, mut api, _) = delete_while(Mood::Broken).await;
    all_is_well(&herald, &mut api).await;
}

#[tokio::test]
async fn a_deletion_outlasts_a_cloudinary_that_hangs() {
    let (herald, mut api, _) = delete_while(Mood::Hanging).await;
    all_is_well(&herald, &mut api).await;
}

#[tokio::test]
async fn a_deletion_outlasts_a_cloudinary_that_lies() {
    let (herald, mut api, _) = delete_while(Mood::Lying).await;
    all_is_well(&herald, &mut api).await;
}

#[tokio::test]
async fn a_deletion_outlasts_a_cloudinary_that_answers_with_100_megabytes() {
    let (herald, mut api, _) = delete_while(Mood::Flooding).await;
    all_is_well(&herald, &mut api).await;
    assert!(herald.resident_bytes() < 100 * 1024 * 1024, "nobody keeps that: {}", herald.resident_bytes());
}

#[tokio::test]
async fn a_deletion_goes_on_after_the_process_was_killed_in_the_midst_of_it() {
    let (mut herald, mut api, config) = delete_while(Mood::Hanging).await;
    herald.kill();
    api.be(Mood::NotFound); // it has done it, as far as anybody knows
    let herald = herald.start_again(&config).await;
    assert_eq!(api.next().await, (Mood::NotFound, "users/user_ann/photo".to_owned()));
    assert!(list(&herald, "user_ann").await.is_empty());
}

#[tokio::test]
async fn a_deleted_users_files_are_deleted_at_cloudinary() {
    let mut api = Api::start(Mood::Well).await;
    let herald = Herald::start(&api.config("")).await;
    for name in ["a", "b"] {
        ask(&herald, "user_ann", "POST", "/v1/files", &answered("user_ann", name)).await.ok();
    }
    ask(&herald, "user_bob", "POST", "/v1/files", &answered("user_bob", "c")).await.ok();
    webhook(&herald, "msg_1", "user.deleted", &json!({ "id": "user_ann", "deleted": true })).await.ok();
    let mut gone = [api.next().await.1, api.next().await.1];
    gone.sort_unstable();
    assert_eq!(gone, ["users/user_ann/a", "users/user_ann/b"]);
    assert_eq!(list(&herald, "user_bob").await.len(), 1);
    assert_eq!(sign(&herald, "user_ann", &json!({})).await.status, 401);
}

#[tokio::test]
async fn without_cloudinary_there_are_none_of_its_addresses() {
    let herald = Herald::start(&auth("")).await;
    herald.logged("Cloudinary is off").await;
    for (method, path) in [
        ("POST", "/v1/files/signature"),
        ("POST", "/api/cloudinary/signature"),
        ("GET", "/v1/files"),
        ("POST", "/webhooks/cloudinary"),
    ] {
        assert_eq!(ask(&herald, "user_ann", method, path, &Value::Null).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn whether_cloudinary_is_well_is_one_word() {
    use herald::integrations::cloudinary::Cloudinary;
    let api = Api::start(Mood::Well).await;
    let cloudinary = async |changes: &[(&str, &str)]| {
        let mut variables = BTreeMap::from([
            ("CLOUDINARY_URL", format!("cloudinary://123456789012345:{SECRET}@demo")),
            ("HERALD_INTEGRATIONS_CLOUDINARY_API_URL", api.url.clone()),
        ]);
        variables.extend(changes.iter().map(|(name, value)| (*name, (*value).to_owned())));
        let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let config = Sources { variables, ..Sources::default() }.load().unwrap().config;
        Cloudinary::new(&config, &herald::outgoing::Outgoing::new().unwrap()).unwrap()
    };
    let code = async |changes: &[(&str, &str)], mood| {
        api.be(mood);
        cloudinary(changes).await.ping().await.map_err(|problem| problem.code())
    };
    let url = "HERALD_INTEGRATIONS_CLOUDINARY_API_URL";
    assert_eq!(code(&[], Mood::Well).await, Ok(()));
    assert_eq!(code(&[("CLOUDINARY_API_SECRET", "wrong")], Mood::Well).await, Err("unauthorized"));
    assert_eq!(code(&[], Mood::NotFound).await, Err("rate_limited"));
    assert_eq!(code(&[], Mood::Broken).await, Err("http_5xx"));
    assert_eq!(code(&[], Mood::Lying).await, Err("bad_response"));
    assert_eq!(code(&[(url, "http://127.0.0.1:1")], Mood::Well).await, Err("connect"));
    assert_eq!(code(&[(url, "http://nowhere.invalid")], Mood::Well).await, Err("dns"));
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let speaks_no_tls = format!("https://{}", plain.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.ok();
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    assert_eq!(code(&[(url, &speaks_no_tls)], Mood::Well).await, Err("tls"));
    api.be(Mood::Well);
    assert_eq!(cloudinary(&[]).await.has_upload_preset().await, Ok(true));
    assert_eq!(cloudinary(&[("CLOUDINARY_UPLOAD_PRESET", "other")]).await.has_upload_preset().await, Ok(false));
    let broken = cloudinary(&[(url, "http://127.0.0.1:1")]).await;
    for _ in 0..5 {
        assert!(broken.ping().await.is_err());
    }
    assert_eq!(broken.ping().await.unwrap_err().code(), "breaker_open");
}
