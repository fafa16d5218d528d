//! What never leaves: the one place through which every byte of a report goes, on its way out.
//!
//! Of a request's headers those pass that are named here, and no others. Queries, fragments and credentials of addresses are cut wherever an
//! address stands; so are tokens, by how they look, and every value that the configuration holds secret. Addresses of clients pass only if that
//! is configured.

use std::borrow::Cow;

use herald_protocol::Secret;
use serde_json::{Map, Value};

/// Headers that say what kind of client it is, and nothing about whose.
const HEADERS: [&str; 8] =
    ["accept", "accept-encoding", "content-length", "content-type", "host", "origin", "upgrade", "user-agent"];
/// Of a request these are sent, its headers as above.
const REQUEST: [&str; 3] = ["url", "method", "headers"];
/// What is hidden under whatever else has one of these names.
const HIDDEN: [&str; 21] = [
    "auth",
    "auth_signature",
    "authorization",
    "cookie",
    "http.query",
    "password",
    "proxy-authorization",
    "query",
    "query_string",
    "secret",
    "set-cookie",
    "signature",
    "svix-signature",
    "token",
    "url.query",
    "webhook-signature",
    "x-api-key",
    "x-cld-signature",
    "x-crisp-signature",
    "x-pusher-key",
    "x-pusher-signature",
];
/// Under these names stands where a client is.
const ADDRESSES: [&str; 6] = ["address", "client.address", "ip_address", "remote_addr", "x-forwarded-for", "x-real-ip"];
/// What tokens begin with: those of sessions, of webhooks, of Clerk.
const TOKENS: [&str; 4] = ["eyJ", "whsec_", "sk_live_", "sk_test_"];
/// What stands in the place of something hidden.
const MASK: &str = "[hidden]";

/// See the module.
#[derive(Debug)]
pub(super) struct Scrub {
    /// The longest first, so that no rest of one remains.
    secrets: Vec<Secret>,
    send_pii: bool,
}

impl Scrub {
    pub(super) fn new(secrets: &[Secret], send_pii: bool) -> Self {
        let mut secrets = secrets.to_vec();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        Self { secrets, send_pii }
    }

    /// Cleans a report or a part of one.
    pub(super) fn clean(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(cleaned) = self.text(text) {
                    *text = cleaned;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.clean(value)),
            Value::Object(members) => self.members(members),
            _ => {}
        }
    }

    fn members(&self, members: &mut Map<String, Value>) {
        for (name, value) in members.iter_mut() {
            let lower = name.to_ascii_lowercase();
            match value {
                Value::Object(request) if lower == "request" => {
                    request.retain(|name, _| REQUEST.contains(&name.as_str()));
                    if let Some(Value::Object(headers)) = request.get_mut("headers") {
                        headers.retain(|name, _| HEADERS.contains(&name.to_ascii_lowercase().as_str()));
                    }
                    self.members(request);
                }
                Value::String(text) if HIDDEN.contains(&lower.as_str()) => MASK.clone_into(text),
                Value::String(text) if !self.send_pii && ADDRESSES.contains(&lower.as_str()) => MASK.clone_into(text),
                _ => self.clean(value),
            }
        }
    }

    fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut cleaned = Cow::Borrowed(text);
        for secret in &self.secrets {
            if cleaned.contains(secret.expose()) {
                cleaned = Cow::Owned(cleaned.replace(secret.expose(), MASK));
            }
        }
        let is_end = |character: char| character.is_whitespace() || "\"'`<>(){}|\\".contains(character);
        if !cleaned.split(is_end).any(|word| self::word(word).is_some()) {
            return cleaned;
        }
        let mut rest = cleaned.as_ref();
        let mut without = String::with_capacity(rest.len());
        while !rest.is_empty() {
            let (word, after) = rest.split_at(rest.find(is_end).unwrap_or(rest.len()));
            without.push_str(self::word(word).as_deref().unwrap_or(word));
            let end = after.chars().next().map_or(0, char::len_utf8);
            let (end, after) = after.split_at(end);
            without.push_str(end);
            rest = after;
        }
        Cow::Owned(without)
    }
}

/// A word as it may be told, where that is not as it stands.
fn word(word: &str) -> Option<String> {
    if let Some(start) = TOKENS.iter().filter_map(|beginning| word.find(beginning)).min() {
        let (before, token) = word.split_at(start);
        // A word may begin like a token; a token is longer than words are.
        if token.len() >= 20 {
            return Some(format!("{before}{MASK}"));
        }
    }
    // A query or a fragment has names and values.
    let tail = word.find(['?', '#']).filter(|start| word.split_at(*start).1.contains('='));
    let (head, tail) = word.split_at(tail.unwrap_or(word.len()));
    let user = head.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (_, host) = authority.rsplit_once('@')?;
        Some(format!("{scheme}://{MASK}@{host}{path}"))
    });
    match (user, tail) {
        (None, "") => None,
        (user, "") => user,
        (user, _) => Some(format!("{}?{MASK}", user.unwrap_or_else(|| head.to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cleaned(mut value: Value) -> Value {
        let secrets = ["hush-hush-1", "hush-hush-12", "pass word"].map(Secret::new);
        Scrub::new(&secrets, false).clean(&mut value);
        value
    }

    #[test]
    fn of_a_request_little_is_told() {
        let request = json!({ "request": {
            "url": "http://h/webhooks/crisp?key=abc", "method": "POST", "query_string": "key=abc", "cookies": "a=b", "data": "x", "env": {},
            "headers": { "Host": "h", "user-agent": "curl", "svix-signature": "v1,a", "X-Pusher-Key": "k", "cf-connecting-ip": "1.2.3.4" },
        }});
        let told = json!({ "request": {
            "url": "http://h/webhooks/crisp?[hidden]", "method": "POST", "headers": { "Host": "h", "user-agent": "curl" },
        }});
        assert_eq!(cleaned(request), told);
    }

    #[test]
    fn addresses_are_told_without_queries_and_credentials() {
        for (text, told) in [
            ("GET /a?auth_signature=1&b=2 failed", "GET /a?[hidden] failed"),
            ("error for \"https://u:p@h.example:1/x?y=z#w\"", "error for \"https://[hidden]@h.example:1/x?[hidden]\""),
            ("redis://:pw@h", "redis://[hidden]@h"),
            ("https://h/cb#access_token=1", "https://h/cb?[hidden]"),
            ("really? yes = no", "really? yes = no"),
            ("a@b.example", "a@b.example"),
            ("{\"url\":\"/x?k=v\"}", "{\"url\":\"/x?[hidden]\"}"),
        ] {
            assert_eq!(cleaned(json!(text)), json!(told));
        }
    }

    #[test]
    fn secrets_and_tokens_are_hidden_wherever_they_stand() {
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2ln";
        for (value, told) in [
            (json!(["a hush-hush-12 b", { "x": "hush-hush-1" }]), json!(["a [hidden] b", { "x": "[hidden]" }])),
            (json!("the pass word"), json!("the [hidden]")),
            (json!(format!("Bearer {token}, then")), json!("Bearer [hidden] then")),
            (
                json!({ "Authorization": "Basic x", "data": { "query": "a" } }),
                json!({ "Authorization": "[hidden]", "data": { "query": "[hidden]" } }),
            ),
            (json!("eyJ is how they begin"), json!("eyJ is how they begin")),
        ] {
            assert_eq!(cleaned(value), told);
        }
    }

    #[test]
    fn where_a_client_is_is_told_only_if_that_is_configured() {
        let value = json!({ "data": { "address": "192.0.2.1" }, "user": { "id": "u", "ip_address": "192.0.2.1" } });
        let told = json!({ "data": { "address": "[hidden]" }, "user": { "id": "u", "ip_address": "[hidden]" } });
        assert_eq!(cleaned(value.clone()), told);
        let mut all = value.clone();
        Scrub::new(&[], true).clean(&mut all);
        assert_eq!(all, value);
    }
}
