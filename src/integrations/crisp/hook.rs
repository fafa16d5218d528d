//! What a hook of Crisp's says (section 3.3): a body is verified as it was received, by the signature of a plugin's hook or by the key that stands in
//! the address of a website's; then it becomes a [`SupportEvent`] and, if a user is to hear of it, [`News`].
//!
//! Names are from the operators' view: `message:received` is what a visitor gets, `message:send` what a visitor has written. What operators write
//! among themselves (`note`) comes as `message:received` too, and ends here.

use axum::http::HeaderMap;
use herald_protocol::Secret;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::news::{MessageKind, News, Operator, What};
use crate::store::support::{SupportChange, SupportEvent};

/// How far a hook's timestamp may be from the clock.
const WINDOW_MS: u64 = 300_000;
/// Timestamps above this are in milliseconds: as seconds it is the year 5138.
const SECONDS_UNTIL: u64 = 100_000_000_000;
/// The longest ids, addresses and states that are kept.
const MAX_ID: usize = 128;
const MAX_ADDRESS: usize = 320;
const MAX_STATE: usize = 32;
/// Addresses of one visitor that are looked at.
const MAX_ADDRESSES: usize = 10;

/// Which hooks count.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// What a plugin's are signed with; while one replaces another, both.
    pub signing_secrets: Vec<Secret>,
    /// What a website's have in their address; while one replaces another, both.
    pub webhook_keys: Vec<Secret>,
}

/// Why a hook is not Crisp's. For the log only: whoever sent it learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTrusted {
    /// The address has no key, or not the right one, and nothing is signed.
    #[error("there is no signature, and the address has no key that is right")]
    Key,
    /// A header is missing, or no text.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The timestamp is no number.
    #[error("the timestamp is no number")]
    Timestamp,
    /// It is too old, or from the future.
    #[error("the timestamp is more than {} s away from the clock", WINDOW_MS / 1_000)]
    OutOfTime,
    /// It is not right by any secret.
    #[error("the signature is not right")]
    Signature,
}

impl Trusted {
    /// Whether any can be verified at all.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        !self.signing_secrets.is_empty() || !self.webhook_keys.is_empty()
    }

    /// Checks a hook over the bytes that were received, at the time `now_ms` (Unix milliseconds): one of the two ways is enough.
    ///
    /// # Errors
    /// See [`NotTrusted`].
    pub fn verify(&self, headers: &HeaderMap, query: &str, body: &[u8], now_ms: u64) -> Result<(), NotTrusted> {
        // Every key is compared, so the time says nothing about which of them was nearly right.
        let is_one = |given: &str| self.webhook_keys.iter().filter(|key| key.is(given)).count() > 0;
        let keys = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "key");
        if keys.filter(|(_, given)| is_one(given)).count() > 0 {
            return Ok(());
        }
        if self.signing_secrets.is_empty() {
            return Err(NotTrusted::Key);
        }
        let header = |name: &'static str| {
            let found = headers.get(name).and_then(|value| value.to_str().ok());
            found.filter(|value| !value.is_empty()).ok_or(NotTrusted::Missing(name))
        };
        let (signature, timestamp) = (header("x-crisp-signature")?, header("x-crisp-request-timestamp")?);
        let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let sent: u64 = timestamp.parse().ok().filter(|_| digits).ok_or(NotTrusted::Timestamp)?;
        if milliseconds(sent).abs_diff(now_ms) > WINDOW_MS {
            return Err(NotTrusted::OutOfTime);
        }
        let signed = [b"[", timestamp.as_bytes(), b";", body, b"]"].concat();
        let is_right = self.signing_secrets.iter().filter(|secret| secret.verifies(&signed, signature)).count() > 0;
        if is_right { Ok(()) } else { Err(NotTrusted::Signature) }
    }
}

/// Crisp's documents do not say which of the two it is.
const fn milliseconds(timestamp: u64) -> u64 {
    if timestamp > SECONDS_UNTIL { timestamp } else { timestamp.saturating_mul(1_000) }
}

/// A hook, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Hook {
    /// What it is called, such as `message:received`.
    pub kind: String,
    /// What is kept of it, if anything.
    pub event: Option<SupportEvent>,
    /// What the conversation's user is told, if it is somebody's.
    pub news: Option<News>,
    /// Whether it is worth while to ask Crisp whose the conversation is, if that is not known.
    pub asks: bool,
}

/// A verified body that does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is about another website.
    #[error("the hook is about another website")]
    Website,
    /// No hook. Sending it again would not help, nor would it with the next.
    #[error("the body is no hook of Crisp's")]
    Envelope,
    /// What it is about is not there.
    #[error("the hook {kind} does not say what it is about")]
    Data {
        /// What it is called.
        kind: String,
    },
}

#[derive(Deserialize)]
struct Envelope {
    website_id: String,
    event: String,
    #[serde(default)]
    data: Map<String, Value>,
    #[serde(default)]
    timestamp: Value,
}

/// Reads a body that was verified. `event_id` is the same for the same body, `now_ms` the time in Unix milliseconds.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(body: &[u8], website_id: &str, event_id: &str, now_ms: i64) -> Result<Hook, Unreadable> {
    let Envelope { website_id: of, event: kind, data, timestamp } =
        serde_json::from_slice(body).map_err(|_| Unreadable::Envelope)?;
    if of != website_id || data.get("website_id").is_some_and(|of| of != website_id) {
        return Err(Unreadable::Website);
    }
    let said = timestamp.as_u64().map(milliseconds).and_then(|at| i64::try_from(at).ok());
    let about = About { data: &data, at: said.unwrap_or(now_ms).min(now_ms), timestamp: &timestamp, event_id };
    match about.read(&kind) {
        Some((event, news, asks)) => Ok(Hook { kind, event, news, asks }),
        None => Err(Unreadable::Data { kind }),
    }
}

/// What a hook is about.
struct About<'a> {
    data: &'a Map<String, Value>,
    /// When it happened, in Unix milliseconds; never in the future, where it would count before all that follows.
    at: i64,
    timestamp: &'a Value,
    event_id: &'a str,
}

type Read = (Option<SupportEvent>, Option<News>, bool);

impl About<'_> {
    /// `None` when the data is not what the kind promises.
    fn read(&self, kind: &str) -> Option<Read> {
        let event = |change| Some(SupportEvent { session: self.session()?.to_owned(), at: self.at, change });
        Some(match kind {
            "message:received" => match self.message()? {
                None => (None, None, false),
                Some(news) => (Some(event(SupportChange::Nothing)?), Some(news), true),
            },
            "message:send" => (Some(event(SupportChange::Nothing)?), None, true),
            "session:set_state" => {
                let state = self.text("state").filter(|state| state.len() <= MAX_STATE)?;
                let news = (state == "resolved").then(|| self.news("state:", self.timestamp, What::Resolved));
                let news = match news {
                    Some(news) => Some(news?),
                    None => None,
                };
                let is_news = news.is_some();
                (Some(event(SupportChange::State(state.to_owned()))?), news, is_news)
            }
            "session:update_verify" => {
                let verifications = self.data.get("verifications").unwrap_or(&Value::Null);
                let is_verified = self.data.get("is_verified")?.as_bool()?;
                if is_verified && is_by_email(verifications) {
                    let mut emails = addresses(verifications);
                    emails.extend(self.text("email").filter(|email| is_address(email)).map(str::to_owned));
                    (Some(event(SupportChange::Proven(emails))?), None, true)
                } else {
                    (Some(event(SupportChange::Unproven)?), None, false)
                }
            }
            "session:set_email" => {
                let email = self.text("email").unwrap_or_default().to_owned();
                (Some(event(SupportChange::Email(email))?), None, false)
            }
            "session:removed" => (Some(event(SupportChange::Removed)?), None, false),
            _ => (None, None, false),
        })
    }

    /// What a visitor gets to read; `Some(None)` for what is not for them.
    fn message(&self) -> Option<Option<News>> {
        let kind = self.text("type")?;
        let Some(kind) = MessageKind::ALL.into_iter().find(|known| known.as_str() == kind) else { return Some(None) };
        if self.data.get("from").is_some_and(|from| from != "operator") {
            return Some(None);
        }
        let content = self.data.get("content").unwrap_or(&Value::Null);
        let user = self.data.get("user").unwrap_or(&Value::Null);
        let text = |member: &str| user[member].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let operator = Operator { nickname: text("nickname"), avatar: text("avatar") };
        let what = What::Message { kind, text: kind.text(content), operator };
        self.news("", self.data.get("fingerprint").unwrap_or(&Value::Null), what).map(Some)
    }

    /// The id of it is the same whenever it is told; where Crisp gives it none, as long as it is told in the same words.
    fn news(&self, what_kind: &str, id: &Value, what: What) -> Option<News> {
        let session = self.session()?;
        let id = match id {
            Value::Number(number) => number.to_string(),
            Value::String(text) if is_word(text) => text.clone(),
            _ => self.event_id.to_owned(),
        };
        Some(News { session: session.to_owned(), transaction_id: format!("crisp:{session}:{what_kind}{id}"), what })
    }

    fn session(&self) -> Option<&str> {
        self.text("session_id").filter(|id| is_word(id))
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.data.get(member)?.as_str()
    }
}

/// Whether it is an id as Crisp makes them: it becomes part of addresses.
fn is_word(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Whether it can be an address of mail.
pub(super) fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once('@').is_some_and(|(before, after)| !before.is_empty() && !after.is_empty());
    parts && text.len() <= MAX_ADDRESS && !text.chars().any(|char| char.is_control() || char.is_whitespace())
}

/// Whether an address was verified: not where all that is said to be verified is something else, such as a phone number.
pub(super) fn is_by_email(verifications: &Value) -> bool {
    let Some(list) = verifications.as_array().filter(|list| !list.is_empty()) else { return true };
    list.iter().filter_map(|one| one["identity"].as_str()).any(|identity| identity == "email" || is_address(identity))
}

/// The addresses that were verified, where it is said which.
pub(super) fn addresses(verifications: &Value) -> Vec<String> {
    let of = |one: &Value| {
        let text = |member: &str| one[member].as_str().filter(|text| is_address(text)).map(str::to_owned);
        text("identity").or_else(|| text("annotation").filter(|_| one["identity"] == "email"))
    };
    verifications.as_array().into_iter().flatten().filter_map(of).take(MAX_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use serde_json::json;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../../tests/vectors/crisp.json")).unwrap()
    }

    fn headers(case: &Value) -> HeaderMap {
        let headers = case["headers"].as_object().unwrap().iter();
        let header = |(name, value): (&String, &Value)| {
            (name.parse::<HeaderName>().unwrap(), value.as_str().unwrap().parse::<HeaderValue>().unwrap())
        };
        headers.map(header).collect()
    }

    fn signed_with(secrets: &[&str]) -> Trusted {
        Trusted {
            signing_secrets: secrets.iter().map(|secret| Secret::new(*secret)).collect(),
            webhook_keys: Vec::new(),
        }
    }

    #[test]
    fn signatures_are_checked_over_the_raw_bytes() {
        let vectors = vectors();
        let now = vectors["now_ms"].as_u64().unwrap();
        let cases = vectors["webhook_cases"].as_array().unwrap();
        assert_eq!(cases.len(), 9);
        for case in cases {
            let trusted = signed_with(&["one that is being replaced", case["signing_secret"].as_str().unwrap()]);
            let body = case["body"].as_str().unwrap().as_bytes();
            let verify = |now| trusted.verify(&headers(case), "", body, now);
            assert_eq!(Value::from(verify(now).is_ok()), case["expect_signature_ok"], "{}", case["name"]);
            if case["expect_signature_ok"] == true {
                for (away, expected) in [(299_000, Ok(())), (301_000, Err(NotTrusted::OutOfTime))] {
                    assert_eq!(verify(now - away), expected, "{} {away} ms early", case["name"]);
                    assert_eq!(verify(now + away), expected, "{} {away} ms late", case["name"]);
                }
                let mut upper = headers(case);
                let signature = upper["x-crisp-signature"].to_str().unwrap().to_ascii_uppercase();
                upper.insert("x-crisp-signature", signature.parse().unwrap());
                assert_eq!(trusted.verify(&upper, "", body, now), Err(NotTrusted::Signature));
            }
        }
    }

    #[test]
    fn one_of_the_configured_ways_is_enough_and_no_other() {
        let vectors = vectors();
        let (now, case) = (vectors["now_ms"].as_u64().unwrap(), &vectors["webhook_cases"][0]);
        let (signature, body) = (headers(case), case["body"].as_str().unwrap().as_bytes());
        let secret = case["signing_secret"].as_str().unwrap();
        let keys = || vec![Secret::new("old key"), Secret::new("new+key")];
        let (by_key, by_both) = (
            Trusted { webhook_keys: keys(), ..signed_with(&[]) },
            Trusted { webhook_keys: keys(), ..signed_with(&[secret]) },
        );
        let verify = |trusted: &Trusted, headers: &HeaderMap, query| trusted.verify(headers, query, body, now);
        for query in ["key=old%20key", "key=old+key", "a=b&key=new%2Bkey", "key=wrong&key=new%2Bkey"] {
            assert_eq!(verify(&by_key, &HeaderMap::new(), query), Ok(()), "{query}");
            assert_eq!(verify(&by_both, &HeaderMap::new(), query), Ok(()), "{query}");
            assert!(
                verify(&signed_with(&[secret]), &HeaderMap::new(), query).is_err(),
                "{query}: no key is configured"
            );
        }
        for query in ["", "key=", "key=new+key", "Key=old%20key", "key=old%20key%20"] {
            assert_eq!(verify(&by_key, &signature, query), Err(NotTrusted::Key), "{query}: no secret is configured");
            assert_eq!(verify(&by_both, &HeaderMap::new(), query), Err(NotTrusted::Missing("x-crisp-signature")));
            assert_eq!(verify(&by_both, &signature, query), Ok(()), "{query}");
        }
        assert_eq!(verify(&signed_with(&[]), &signature, "key="), Err(NotTrusted::Key));
        let mut wrong = signature.clone();
        for timestamp in ["", "+1767225600123", "soon", "99999999999999999999"] {
            wrong.insert("x-crisp-request-timestamp", timestamp.parse().unwrap());
            assert!(verify(&by_both, &wrong, "").is_err(), "{timestamp}");
        }
    }

    const WEBSITE: &str = "6c50f7a8";

    fn hook(kind: &str, data: &Value) -> Result<Hook, Unreadable> {
        let mut data = data.clone();
        data["session_id"] = json!("session_1");
        let body = json!({ "website_id": WEBSITE, "event": kind, "data": data, "timestamp": 5_000_000_000_000_u64 });
        read(body.to_string().as_bytes(), WEBSITE, "hash", 1_767_225_600_000)
    }

    fn change(kind: &str, data: &Value) -> SupportChange {
        hook(kind, data).unwrap().event.unwrap().change
    }

    #[test]
    fn only_what_a_visitor_gets_to_read_is_news() {
        let received = |data: Value| hook("message:received", &data).unwrap();
        let text = received(json!({ "type": "text", "from": "operator", "content": "Hi", "fingerprint": 7 }));
        assert_eq!(text.news.as_ref().unwrap().transaction_id, "crisp:session_1:7");
        assert!(text.asks && text.event.unwrap().at == 1_767_225_600_000, "the future is not taken at its word");
        for kind in ["note", "event", "animation", "something new"] {
            let hook = received(json!({ "type": kind, "from": "operator", "content": "x", "fingerprint": 7 }));
            assert_eq!((hook.event, hook.news, hook.asks), (None, None, false), "{kind}");
        }
        assert_eq!(received(json!({ "type": "text", "from": "user", "content": "x" })).news, None);
        let unnumbered = received(json!({ "type": "text", "content": "x", "fingerprint": "../x" }));
        assert_eq!(unnumbered.news.unwrap().transaction_id, "crisp:session_1:hash");
        let own = hook("message:send", &json!({ "type": "text", "from": "user", "content": "x" })).unwrap();
        assert!(own.news.is_none() && own.asks);
        let resolved = hook("session:set_state", &json!({ "state": "resolved" })).unwrap();
        assert_eq!(resolved.news.unwrap().transaction_id, "crisp:session_1:state:5000000000000");
        assert_eq!(hook("session:set_state", &json!({ "state": "pending" })).unwrap().news, None);
        for kind in ["message:updated", "message:removed", "session:set_data", "session:set_nickname", "people:sync"] {
            let hook =
                hook(kind, &json!({ "content": "x", "fingerprint": 7, "data": { "user_id": "user_ann" } })).unwrap();
            assert_eq!((hook.event, hook.news), (None, None), "{kind}");
        }
    }

    #[test]
    fn only_an_address_that_crisp_has_verified_is_a_proof() {
        let verify = |data: Value| change("session:update_verify", &data);
        let email = |address: &str| json!([{ "identity": "email", "method": "link", "annotation": address }]);
        let proven =
            |addresses: &[&str]| SupportChange::Proven(addresses.iter().map(|one| (*one).to_owned()).collect());
        for (data, expected) in [
            (json!({ "is_verified": true }), proven(&[])),
            (json!({ "is_verified": true, "verifications": [] }), proven(&[])),
            (json!({ "is_verified": true, "verifications": email("ann@example.com") }), proven(&["ann@example.com"])),
            (json!({ "is_verified": true, "verifications": email("by phone") }), proven(&[])),
            (
                json!({ "is_verified": true, "verifications": [{ "identity": "ann@example.com" }] }),
                proven(&["ann@example.com"]),
            ),
            (json!({ "is_verified": true, "email": "Ann@Example.com" }), proven(&["Ann@Example.com"])),
            (
                json!({ "is_verified": true, "verifications": [{ "identity": "phone", "annotation": "ann@example.com" }] }),
                SupportChange::Unproven,
            ),
            (json!({ "is_verified": false, "verifications": email("ann@example.com") }), SupportChange::Unproven),
        ] {
            assert_eq!(verify(data.clone()), expected, "{data}");
        }
        assert!(hook("session:update_verify", &json!({})).is_err());
        assert_eq!(change("session:set_email", &json!({ "email": "a@b.c" })), SupportChange::Email("a@b.c".to_owned()));
        assert_eq!(change("session:removed", &json!({})), SupportChange::Removed);
    }

    #[test]
    fn what_is_no_hook_or_about_another_website_does_not_count() {
        let read = |body: &str| read(body.as_bytes(), WEBSITE, "hash", 1);
        for body in ["", "[]", "{}", r#"{"event":"message:send"}"#, r#"{"website_id":"6c50f7a8","event":7}"#] {
            assert_eq!(read(body), Err(Unreadable::Envelope), "{body}");
        }
        for (website, within) in [("other", WEBSITE), (WEBSITE, "other")] {
            let body = json!({ "website_id": website, "event": "x", "data": { "website_id": within } }).to_string();
            assert_eq!(read(&body), Err(Unreadable::Website), "{body}");
        }
        for session in ["", "../x", "session 1", &"x".repeat(129)] {
            let data = json!({ "session_id": session, "type": "text", "content": "x" });
            let body = json!({ "website_id": WEBSITE, "event": "message:received", "data": data }).to_string();
            assert!(matches!(read(&body), Err(Unreadable::Data { .. })), "{session}");
        }
    }
}
