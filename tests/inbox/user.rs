//! A user of the app: a session token as Clerk signs it, and what a page does with it.

use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use herald::integrations::standard_webhooks::Secrets;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::support::api::Answer;
use super::support::{Client, Herald};

/// The key pair of the test vectors.
fn key(member: &str) -> String {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/clerk_jwt.json")).unwrap();
    vectors["test_keys"]["a"][member].as_str().unwrap().to_owned()
}

/// The public key `a`, which signs the tokens of this file, or `b`.
#[allow(dead_code, reason = "shared with the tests of operation, which ask for both")]
pub(crate) fn pem(name: &str) -> String {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/clerk_jwt.json")).unwrap();
    vectors["test_keys"][name]["test_public_key_pem"].as_str().unwrap().to_owned()
}

/// What makes a server know the tokens of this file.
pub(crate) fn auth(more: &str) -> String {
    format!("[auth]\njwt_key = '''{}'''\nauthorized_parties = [\"https://app.example.com\"]\n{more}\n", pem("a"))
}

/// What Clerk's webhooks are signed with.
pub(crate) const CLERK_SECRET: &str = "whsec_9Z4cW1aHOMtFQ33Ng+vLTgyo4pmB2pS9";

/// The id of the key.
pub(crate) fn key_id() -> String {
    key("kid")
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of a user; `claims` replace or add to what such a token says.
pub(crate) fn token(user: &str, claims: &Value) -> String {
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": key_id(), "cat": "cl_B7d4PD111AAA" });
    let mut payload = json!({
        "v": 2, "sub": user, "sid": format!("sess_{user}"), "azp": "https://app.example.com", "sts": "active",
        "iat": now(), "nbf": now() - 10, "exp": now() + 60,
    });
    for (name, value) in claims.as_object().unwrap() {
        payload[name] = value.clone();
    }
    let encoded = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encoded(&header), encoded(&payload));
    let pem = key("test_private_key_pem");
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let pair = RsaKeyPair::from_pkcs8(&BASE64.decode(body.as_bytes()).unwrap()).unwrap();
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

/// A request with these headers, a line each.
pub(crate) async fn request(herald: &Herald, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n",
        herald.address
    );
    herald.api().raw(&(head + body)).await
}

/// A user's request to the API, with JSON.
pub(crate) async fn ask(herald: &Herald, user: &str, method: &str, path: &str, body: &Value) -> Answer {
    let authorization = format!("Authorization: Bearer {}", token(user, &json!({})));
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(herald, method, path, &[&authorization, "Content-Type: application/json"], &body).await
}

/// What an auth endpoint answers to this form, with this token.
pub(crate) async fn authorize(herald: &Herald, path: &str, token: &str, form: &str) -> Answer {
    let authorization = format!("Authorization: Bearer {token}");
    request(herald, "POST", path, &[&authorization, "Content-Type: application/x-www-form-urlencoded"], form).await
}

/// A connection that has subscribed to `channel` with what the auth endpoint gave for this token.
pub(crate) async fn subscriber(herald: &Herald, token: &str, channel: &str) -> Client {
    let mut client = herald.connect().await;
    let form = format!("socket_id={}&channel_name={channel}", client.socket_id());
    let mut data = authorize(herald, "/pusher/auth", token, &form).await.ok();
    data["channel"] = channel.into();
    client.send(json!({ "event": "pusher:subscribe", "data": data })).await;
    client.expect_succeeded(channel).await;
    client
}

/// A connection on the user's own channel, which was told where the inbox stands.
pub(crate) async fn tab(herald: &Herald, user: &str) -> Client {
    tab_of(herald, user, &json!({})).await
}

/// The same with these claims.
pub(crate) async fn tab_of(herald: &Herald, user: &str, claims: &Value) -> Client {
    let mut client = subscriber(herald, &token(user, claims), &format!("private-user-{user}")).await;
    client.expect("inbox.state").await;
    client
}

/// Creates a notification as the backend does.
pub(crate) async fn notify(herald: &Herald, users: &[&str], title: &str) -> Value {
    let body = json!({ "to": { "user_ids": users }, "type": "comment.mentioned", "title": title });
    herald.api().post("/notifications", &body.to_string()).await.ok()
}

/// A webhook of Clerk's.
pub(crate) async fn webhook(herald: &Herald, id: &str, kind: &str, data: &Value) -> Answer {
    let body = json!({ "type": kind, "object": "event", "data": data, "timestamp": now() }).to_string();
    let signature = Secrets::parse(CLERK_SECRET).unwrap().sign(id, now(), body.as_bytes());
    let headers =
        [format!("svix-id: {id}"), format!("svix-timestamp: {}", now()), format!("svix-signature: {signature}")];
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    request(herald, "POST", "/webhooks/clerk", &headers, &body).await
}
