//! Which account of Cloudinary's it is, in the one line that its console shows: `cloudinary://KEY:SECRET@CLOUD` (section 2.4).
//!
//! Always: what is no such line is shown to nobody, nor is the secret.

use std::borrow::Cow;
use std::fmt;

use herald_protocol::Secret;
use percent_encoding::percent_decode_str;

use super::kind::{AppKey, CloudName, Kind as _, SecretText};
use crate::integrations::cloudinary::signature::Digest;

/// See the module. Shown without the key and the secret.
#[derive(Clone)]
pub struct CloudinaryUrl {
    /// The account.
    pub cloud_name: String,
    /// Public.
    pub api_key: String,
    /// What it signs with.
    pub api_secret: Secret,
    /// The host that its files are delivered from, if it has one of its own.
    pub delivery_host: Option<String>,
    /// How it signs, if that is said.
    pub digest: Option<Digest>,
}

impl CloudinaryUrl {
    /// `None` where it is not of that form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (credentials, place) = rest.rsplit_once('@')?;
        let (key, secret) = credentials.split_once(':')?;
        let (cloud_name, host) = place.split_once('/').unwrap_or((place, ""));
        let digest = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "signature_algorithm");
        let digest = match digest {
            None => None,
            Some((_, name)) => Some(Digest::ALL.into_iter().find(|digest| digest.as_str() == name)?),
        };
        if !scheme.eq_ignore_ascii_case("cloudinary") {
            return None;
        }
        Some(Self {
            cloud_name: CloudName::parse(cloud_name)?,
            api_key: AppKey::parse(&decoded(key)?)?,
            api_secret: SecretText::parse(&decoded(secret)?)?,
            delivery_host: Some(host).filter(|host| !host.is_empty()).map(str::to_owned),
            digest,
        })
    }
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned)
}

impl fmt::Debug for CloudinaryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cloudinary://***:***@{}", self.cloud_name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_is_read_as_the_library_reads_it() {
        let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/cloudinary_url.json")).unwrap();
        for case in vectors["cases"].as_array().unwrap() {
            let (text, expect) = (case["url"].as_str().unwrap(), &case["expect"]);
            let found = CloudinaryUrl::parse(text);
            assert_eq!(found.is_some(), expect["ok"] == true, "{text}");
            let Some(found) = found else { continue };
            let shown = json!({
                "ok": true, "cloud_name": found.cloud_name, "api_key": found.api_key, "api_secret": found.api_secret.expose(),
                "signature_algorithm": found.digest.map(Digest::as_str), "secure_distribution": found.delivery_host,
            });
            assert_eq!(&shown, expect, "{text}");
            assert!(!format!("{found:?}").contains(found.api_secret.expose()));
        }
    }

    #[test]
    fn what_is_incomplete_is_none() {
        for text in [
            "",
            "cloudinary://",
            "cloudinary://key:secret@",
            "cloudinary://key@demo",
            "cloudinary://:secret@demo",
            "cloudinary://key:@demo",
            "cloudinary://key:secret@demo?signature_algorithm=md5",
            "key:secret@demo",
        ] {
            assert!(CloudinaryUrl::parse(text).is_none(), "{text}");
        }
    }
}
