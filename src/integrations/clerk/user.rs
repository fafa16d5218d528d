//! A user as Clerk describes one, in webhooks and over its Backend API (section 1.10).

use serde::Deserialize;
use serde_json::Value;

use crate::store::people::User;

/// The members that Herald reads. All but the id may be missing: a change of Clerk's must not make its webhooks fail.
#[derive(Debug, Deserialize)]
pub struct ClerkUser {
    id: String,
    #[serde(default)]
    first_name: Option<String>,
    #[serde(default)]
    last_name: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    image_url: Option<String>,
    #[serde(default)]
    primary_email_address_id: Option<String>,
    #[serde(default)]
    email_addresses: Option<Vec<EmailAddress>>,
    #[serde(default)]
    public_metadata: Option<Value>,
    #[serde(default)]
    banned: Option<bool>,
    #[serde(default)]
    locale: Option<String>,
    #[serde(default)]
    timezone: Option<String>,
    #[serde(default)]
    updated_at: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct EmailAddress {
    id: String,
    email_address: String,
    #[serde(default)]
    verification: Option<Verification>,
}

#[derive(Debug, Deserialize)]
struct Verification {
    #[serde(default)]
    status: Option<String>,
}

impl ClerkUser {
    /// The user as it is kept. Without a time of its own, the news is of `now_ms` (Unix milliseconds).
    #[must_use]
    pub fn into_user(self, now_ms: i64) -> User {
        let email = self.verified_email();
        // No database of ours keeps U+0000 in text, and nobody has it in a name.
        let clean = |text: Option<String>| text.map(|text| text.replace('\0', ""));
        let name = display_name(self.first_name.as_deref(), self.last_name.as_deref(), self.username.as_deref());
        User {
            email: clean(email),
            name: clean(name),
            id: self.id,
            image_url: clean(self.image_url),
            locale: clean(self.locale),
            timezone: clean(self.timezone),
            public_metadata: self
                .public_metadata
                .filter(Value::is_object)
                .unwrap_or_else(|| Value::Object(Default::default())),
            banned: self.banned.unwrap_or_default(),
            source_updated_at: self.updated_at.unwrap_or(now_ms),
        }
    }

    /// The primary address, if Clerk has verified it. Many have none: they sign up by phone or by name.
    fn verified_email(&self) -> Option<String> {
        let primary = self.primary_email_address_id.as_ref()?;
        let address = self.email_addresses.iter().flatten().find(|address| address.id == *primary)?;
        let status = address.verification.as_ref()?.status.as_deref()?;
        (status == "verified").then(|| address.email_address.clone())
    }
}

/// The name to show: never the address.
fn display_name(first: Option<&str>, last: Option<&str>, username: Option<&str>) -> Option<String> {
    let full = [first, last].into_iter().flatten().map(str::trim).filter(|part| !part.is_empty());
    let full = full.collect::<Vec<_>>().join(" ");
    let name = if full.is_empty() { username?.trim().to_owned() } else { full };
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(value: Value) -> User {
        serde_json::from_value::<ClerkUser>(value).unwrap().into_user(7)
    }

    #[test]
    fn a_name_is_shown_an_address_is_not() {
        for (first, last, username, name) in [
            (Some("Jane"), Some("Doe"), Some("jd"), Some("Jane Doe")),
            (Some(" Jane "), None, None, Some("Jane")),
            (Some(""), Some(""), Some("neo"), Some("neo")),
            (None, None, None, None),
            (None, None, Some(" "), None),
        ] {
            let user = user(json!({
                "id": "user_1", "first_name": first, "last_name": last, "username": username,
                "primary_email_address_id": "a", "email_addresses": [
                    { "id": "a", "email_address": "x@example.com", "verification": { "status": "verified" } }
                ],
            }));
            assert_eq!(user.name.as_deref(), name);
        }
    }

    #[test]
    fn the_address_is_the_primary_one_and_only_if_it_is_verified() {
        let addresses = json!([
            { "id": "a", "email_address": "old@example.com", "verification": { "status": "verified" } },
            { "id": "b", "email_address": "new@example.com", "verification": { "status": "unverified" } },
            { "id": "c", "email_address": "bare@example.com", "verification": null },
        ]);
        for (primary, email) in [
            (json!("a"), Some("old@example.com")),
            (json!("b"), None),
            (json!("c"), None),
            (json!("d"), None),
            (json!(null), None),
        ] {
            let user = user(json!({ "id": "u", "primary_email_address_id": primary, "email_addresses": addresses }));
            assert_eq!(user.email.as_deref(), email);
        }
    }

    #[test]
    fn what_is_missing_or_null_is_no_reason_to_fail() {
        let bare = user(json!({ "id": "u" }));
        assert_eq!((bare.public_metadata, bare.banned, bare.source_updated_at), (json!({}), false, 7));
        let nulls = user(
            json!({ "id": "u", "email_addresses": null, "public_metadata": null, "banned": null, "updated_at": null }),
        );
        assert_eq!((nulls.public_metadata, nulls.source_updated_at), (json!({}), 7));
    }
}
