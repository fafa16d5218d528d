//! Signatures of webhooks after the Standard Webhooks convention, which Svix (and so Clerk) speaks; Herald's own `notification.dispatch`
//! too (sections 1.11 and 8.8).
//!
//! What is signed is `id.timestamp.body`, over the raw bytes of the body: a body that was parsed and written anew is another one.

use std::fmt;

use axum::http::HeaderMap;
use data_encoding::BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// How far a webhook's timestamp may be from the clock, in seconds; exactly so far is allowed.
const TOLERANCE_SECONDS: u64 = 300;
/// What a secret may begin with.
const PREFIX: &str = "whsec_";
/// Signatures of one webhook that are looked at.
const MAX_SIGNATURES: usize = 16;

/// The secrets of one sender; while one replaces another, both.
#[derive(Clone)]
pub struct Secrets(Vec<Hmac<Sha256>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(***)")
    }
}

/// A text that holds no secret, or one that is none. It does not show the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a webhook secret is whsec_ and base64; several are separated by commas")]
pub struct InvalidSecret;

/// Why a webhook is not the sender's. For the log only: whoever sent it learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotVerified {
    /// A header is missing, or no text.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The timestamp is no number.
    #[error("the timestamp is not in Unix seconds")]
    Timestamp,
    /// It is too old, or from the future.
    #[error("the timestamp is more than {TOLERANCE_SECONDS} s away from the clock")]
    OutOfTime,
    /// No signature is right.
    #[error("no signature is right")]
    Signature,
}

impl Secrets {
    /// Reads `whsec_<base64>`, with or without its prefix; several are separated by commas.
    ///
    /// # Errors
    /// When one of them is empty or no base64.
    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let one = |text: &str| {
            let text = text.trim();
            let key = BASE64.decode(text.strip_prefix(PREFIX).unwrap_or(text).as_bytes()).map_err(|_| InvalidSecret)?;
            let key = Zeroizing::new(key);
            if key.is_empty() {
                return Err(InvalidSecret);
            }
            Hmac::new_from_slice(&key).map_err(|_| InvalidSecret)
        };
        text.split(',').map(one).collect::<Result<_, _>>().map(Self)
    }

    /// The signature of a webhook by the first of the secrets, as its header has it.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signature = self.0.first().map(|secret| BASE64.encode(&mac(secret, id, &timestamp.to_string(), body)));
        format!("v1,{}", signature.unwrap_or_default())
    }

    /// Checks a webhook at the time `now` (Unix seconds) and returns its id. The `svix-` headers count before the `webhook-` ones.
    ///
    /// # Errors
    /// See [`NotVerified`].
    pub fn verify<'h>(&self, headers: &'h HeaderMap, body: &[u8], now: u64) -> Result<&'h str, NotVerified> {
        let header = |svix: &'static str, standard: &'static str| {
            let found = headers.get(svix).or_else(|| headers.get(standard)).and_then(|value| value.to_str().ok());
            found.map(str::trim).filter(|value| !value.is_empty()).ok_or(NotVerified::Missing(standard))
        };
        let id = header("svix-id", "webhook-id")?;
        let timestamp = header("svix-timestamp", "webhook-timestamp")?;
        let signatures = header("svix-signature", "webhook-signature")?;
        let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let sent: u64 = timestamp.parse().ok().filter(|_| digits).ok_or(NotVerified::Timestamp)?;
        if now.abs_diff(sent) > TOLERANCE_SECONDS {
            return Err(NotVerified::OutOfTime);
        }
        let given: Vec<Vec<u8>> = signatures
            .split_ascii_whitespace()
            .take(MAX_SIGNATURES)
            .filter_map(|entry| BASE64.decode(entry.strip_prefix("v1,")?.as_bytes()).ok())
            .collect();
        let is_right = self.0.iter().any(|secret| {
            let signed = signed(secret, id, timestamp, body);
            given.iter().any(|signature| signed.clone().verify_slice(signature).is_ok())
        });
        if is_right { Ok(id) } else { Err(NotVerified::Signature) }
    }
}

fn signed(secret: &Hmac<Sha256>, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
    let mut mac = secret.clone();
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        mac.update(part);
    }
    mac
}

fn mac(secret: &Hmac<Sha256>, id: &str, timestamp: &str, body: &[u8]) -> [u8; 32] {
    signed(secret, id, timestamp, body).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/svix_webhook.json")).unwrap()
    }

    fn text<'a>(case: &'a Value, member: &str) -> &'a str {
        case[member].as_str().unwrap_or_else(|| panic!("{member} of {case}"))
    }

    #[test]
    fn what_the_library_signs_is_signed_the_same() {
        for example in vectors()["sign_examples"].as_array().unwrap() {
            let secrets = Secrets::parse(text(example, "secret")).unwrap();
            let timestamp = example["timestamp"].as_u64().unwrap();
            let signature = secrets.sign(text(example, "id"), timestamp, text(example, "body").as_bytes());
            assert_eq!(signature, text(example, "signature"));
        }
    }

    #[test]
    fn what_the_library_accepts_is_accepted_and_nothing_else() {
        let vectors = vectors();
        let now = vectors["now"].as_u64().unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 25);
        for case in cases {
            let headers = case["headers"].as_object().unwrap().iter().map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), value.as_str().unwrap().parse::<HeaderValue>().unwrap())
            });
            let headers: HeaderMap = headers.collect();
            let body = text(case, "body").as_bytes();
            let verified = Secrets::parse(text(case, "secret")).unwrap().verify(&headers, body, now).is_ok();
            assert_eq!(Value::from(verified), case["expect"]["ok"], "{}", case["name"]);
            // Among others, and while another one is being replaced.
            let other = format!("whsec_bm90IHRoaXMgb25l, {}", text(case, "secret"));
            let verified = Secrets::parse(&other).unwrap().verify(&headers, body, now).is_ok();
            assert_eq!(Value::from(verified), case["expect"]["ok"], "{} with two secrets", case["name"]);
        }
    }

    #[test]
    fn a_secret_that_is_none_is_refused_and_not_shown() {
        for wrong in ["", "whsec_", "whsec_%%%", "whsec_bm90IHRoaXMgb25l,", "hush!"] {
            let refused = Secrets::parse(wrong).unwrap_err();
            assert!(!refused.to_string().contains("hush"));
        }
        assert_eq!(format!("{:?}", Secrets::parse("whsec_bm90IHRoaXMgb25l").unwrap()), "Secrets(***)");
    }
}
