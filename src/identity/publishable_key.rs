//! Clerk's publishable key, which says where an instance's Frontend API is (section 1.3).

use std::fmt;

use data_encoding::{BASE64, BASE64_NOPAD};

/// A publishable key that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishableKey {
    text: String,
    host: String,
}

/// A text that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a publishable key is pk_test_… or pk_live_…, as Clerk's dashboard shows it")]
pub struct InvalidPublishableKey;

impl PublishableKey {
    /// Reads a key; the base64 in it may be padded or not.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidPublishableKey> {
        let encoded = text.strip_prefix("pk_test_").or_else(|| text.strip_prefix("pk_live_"));
        let encoded = encoded.filter(|encoded| !encoded.contains('_')).ok_or(InvalidPublishableKey)?;
        let decoded = BASE64.decode(encoded.as_bytes()).or_else(|_| BASE64_NOPAD.decode(encoded.as_bytes()));
        let decoded = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(InvalidPublishableKey)?;
        let host = decoded.strip_suffix('$').ok_or(InvalidPublishableKey)?;
        if host.contains('$') || !host.contains('.') {
            return Err(InvalidPublishableKey);
        }
        Ok(Self { text: text.to_owned(), host: host.to_owned() })
    }

    /// Whether it is one of a development instance.
    #[must_use]
    pub fn is_development(&self) -> bool {
        self.text.starts_with("pk_test_")
    }

    /// Who signs the instance's tokens: `https://` and the host of the Frontend API.
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("https://{}", self.host)
    }

    /// Where the instance publishes its keys.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("https://{}/.well-known/jwks.json", self.host)
    }

    /// What the instance's cookies end with: it depends on the exact text of the key, padding included.
    #[must_use]
    pub fn cookie_suffix(&self) -> String {
        let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, self.text.as_bytes());
        data_encoding::BASE64URL_NOPAD.encode(digest.as_ref()).chars().take(8).collect()
    }
}

impl fmt::Display for PublishableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn keys_lead_where_the_library_says() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../tests/vectors/clerk_publishable_key.json")).unwrap();
        let lists = vectors.as_object().unwrap().values().filter_map(Value::as_array);
        let cases: Vec<&Value> = lists.flatten().collect();
        assert_eq!(cases.len(), 20);
        for case in cases {
            let parsed = PublishableKey::parse(case["publishable_key"].as_str().unwrap());
            assert_eq!(Value::from(parsed.is_ok()), case["valid"], "{case}");
            let Ok(key) = parsed else { continue };
            assert_eq!(key.issuer(), case["issuer"], "{case}");
            assert_eq!(key.jwks_url(), case["jwks_url"], "{case}");
            assert_eq!(key.cookie_suffix(), case["cookie_suffix"], "{case}");
            assert_eq!(key.is_development(), case["instance_type"] == "development", "{case}");
        }
    }
}
