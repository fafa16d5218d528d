//! Cloudinary's signatures (sections 2.1 and 2.3): plain digests of a text with the secret behind it, as lower-case hex. No HMAC.
//!
//! Always: what is compared takes the same time whatever differs.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use data_encoding::HEXLOWER;
use herald_protocol::Secret;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

/// How far ahead of the clock a notification's timestamp may be, in seconds.
const AHEAD_SECONDS: u64 = 300;

/// The digest of an account's signatures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// What accounts have unless they ask for another.
    Sha1,
    /// What accounts may ask for.
    Sha256,
}

impl Digest {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sha1, Self::Sha256];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    fn hex(self, parts: &[&[u8]]) -> String {
        let mut context = ring::digest::Context::new(match self {
            Self::Sha1 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &ring::digest::SHA256,
        });
        parts.iter().for_each(|part| context.update(part));
        HEXLOWER.encode(context.finish().as_ref())
    }

    /// The digest whose hex is as long as this.
    fn of_length(signature: &str) -> Option<Self> {
        match signature.len() {
            40 => Some(Self::Sha1),
            64 => Some(Self::Sha256),
            _ => None,
        }
    }
}

/// Signs what is sent to Cloudinary, after its version 2: `&` within a value is no separator. Empty parameters are not sent, nor signed.
#[must_use]
pub fn sign(parameters: &BTreeMap<String, String>, secret: &Secret, digest: Digest) -> String {
    let set = parameters.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<String> = set.map(|(name, value)| format!("{name}={value}").replace('&', "%26")).collect();
    digest.hex(&[pairs.join("&").as_bytes(), secret.expose().as_bytes()])
}

/// A parameter of a JSON object as it is sent and signed: lists are joined with commas. `None` for what cannot be one.
#[must_use]
pub fn parameter(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        Value::Array(values) => values
            .iter()
            .map(|value| match value {
                Value::Array(_) | Value::Object(_) => None,
                one => parameter(one),
            })
            .collect::<Option<Vec<_>>>()
            .map(|values| values.join(",")),
        Value::Object(_) => None,
    }
}

/// Whether this is the signature of Cloudinary's answer to an upload: version 1, SHA-1, over these two and nothing else of the answer.
#[must_use]
pub fn is_of_answer(public_id: &str, version: i64, signature: &str, secret: &Secret) -> bool {
    let text = format!("public_id={public_id}&version={version}");
    let right = Digest::Sha1.hex(&[text.as_bytes(), secret.expose().as_bytes()]);
    right.as_bytes().ct_eq(signature.as_bytes()).into()
}

/// Why a notification is not Cloudinary's. For the log only: whoever sent it learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotVerified {
    /// A header is missing, or no text.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// The timestamp is no number.
    #[error("the timestamp is not in Unix seconds")]
    Timestamp,
    /// It is too old, or from the future.
    #[error("the timestamp is too old, or more than {AHEAD_SECONDS} s ahead of the clock")]
    OutOfTime,
    /// It is not right by any secret.
    #[error("the signature is not right")]
    Signature,
}

/// Which notifications count.
#[derive(Clone, Debug)]
pub struct Trusted {
    /// What they are signed with; while one secret replaces another, both.
    pub secrets: Vec<Secret>,
    /// How; if nothing is said, as the length of the signature says.
    pub digest: Option<Digest>,
    /// How old they may be, in seconds.
    pub max_age_seconds: u64,
}

impl Trusted {
    /// Checks a notification over the bytes that were received, at the time `now` (Unix seconds).
    ///
    /// # Errors
    /// See [`NotVerified`].
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: u64) -> Result<(), NotVerified> {
        let header = |name: &'static str| {
            let found = headers.get(name).and_then(|value| value.to_str().ok());
            found.filter(|value| !value.is_empty()).ok_or(NotVerified::Missing(name))
        };
        let (signature, timestamp) = (header("x-cld-signature")?, header("x-cld-timestamp")?);
        let digits = timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let sent: u64 = timestamp.parse().ok().filter(|_| digits).ok_or(NotVerified::Timestamp)?;
        if sent < now.saturating_sub(self.max_age_seconds) || sent > now.saturating_add(AHEAD_SECONDS) {
            return Err(NotVerified::OutOfTime);
        }
        let digest = self.digest.or_else(|| Digest::of_length(signature)).ok_or(NotVerified::Signature)?;
        let is_right = |secret: &Secret| {
            let right = digest.hex(&[body, timestamp.as_bytes(), secret.expose().as_bytes()]);
            right.as_bytes().ct_eq(signature.as_bytes()).into()
        };
        if self.secrets.iter().any(is_right) { Ok(()) } else { Err(NotVerified::Signature) }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn uploads() -> Value {
        serde_json::from_str(include_str!("../../../tests/vectors/cloudinary_upload_signature.json")).unwrap()
    }

    fn notifications() -> Value {
        serde_json::from_str(include_str!("../../../tests/vectors/cloudinary_notification.json")).unwrap()
    }

    fn text<'a>(case: &'a Value, member: &str) -> &'a str {
        case[member].as_str().unwrap_or_else(|| panic!("{member} of {case}"))
    }

    fn digest(name: &Value) -> Digest {
        Digest::ALL.into_iter().find(|digest| digest.as_str() == name).unwrap()
    }

    #[test]
    fn parameters_are_signed_as_the_library_signs_them() {
        let vectors = uploads();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 14);
        for case in cases {
            let parameters = case["params"].as_object().unwrap();
            let parameters: BTreeMap<String, String> =
                parameters.iter().map(|(name, value)| (name.clone(), parameter(value).unwrap())).collect();
            let secret = Secret::new(text(case, "api_secret"));
            let signature = sign(&parameters, &secret, Digest::Sha1);
            assert_eq!(signature, text(&case["expect"], "default"), "{}", case["name"]);
            if let Some(expected) = case["expect"]["v2_sha256"].as_str() {
                assert_eq!(sign(&parameters, &secret, Digest::Sha256), expected, "{}", case["name"]);
            }
        }
    }

    #[test]
    fn an_answer_to_an_upload_is_known_by_its_signature() {
        for case in uploads()["api_response_signature"].as_array().unwrap() {
            let secret = Secret::new(text(case, "api_secret"));
            let version = case["version"].as_i64().unwrap();
            let is_right = is_of_answer(text(case, "public_id"), version, text(case, "signature"), &secret);
            assert_eq!(Value::from(is_right), case["expect_ok"], "{case}");
        }
    }

    #[test]
    fn notifications_are_verified_as_the_library_does_and_not_from_the_future() {
        let vectors = notifications();
        let now = vectors["now"].as_u64().unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 14);
        for case in cases {
            let headers = case["headers"].as_object().unwrap().iter().map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), value.as_str().unwrap().parse::<HeaderValue>().unwrap())
            });
            let headers: HeaderMap = headers.collect();
            let body = text(case, "body").as_bytes();
            let right = Secret::new(text(case, "api_secret"));
            let trusted = Trusted {
                secrets: vec![Secret::new("another one, which is being replaced"), right],
                digest: Some(digest(&case["algorithm"])),
                max_age_seconds: case["valid_for_seconds"].as_u64().unwrap(),
            };
            let is_right = trusted.verify(&headers, body, now).is_ok();
            assert_eq!(Value::from(is_right), case["expect"]["ok"], "{}", case["name"]);
            // Where nothing is said of the digest, the length of the signature says it.
            let either = Trusted { digest: None, ..trusted }.verify(&headers, body, now).is_ok();
            let is_of_other_digest = case["name"] == "sha256_signature_checked_as_sha1";
            assert_eq!(either, is_right || is_of_other_digest, "{} by either digest", case["name"]);
        }
    }

    #[test]
    fn a_notification_without_its_headers_is_nobodys() {
        let trusted = Trusted { secrets: vec![Secret::new("s")], digest: None, max_age_seconds: 7200 };
        let verify = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            trusted.verify(&headers, b"{}", 1).unwrap_err()
        };
        assert_eq!(verify(&[]), NotVerified::Missing("x-cld-signature"));
        assert_eq!(verify(&[("x-cld-signature", "a")]), NotVerified::Missing("x-cld-timestamp"));
        assert_eq!(verify(&[("x-cld-signature", "a"), ("x-cld-timestamp", "+1")]), NotVerified::Timestamp);
        assert_eq!(verify(&[("x-cld-signature", "a"), ("x-cld-timestamp", "1")]), NotVerified::Signature);
    }
}
