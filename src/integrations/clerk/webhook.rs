//! What a webhook of Clerk's says has changed (section 1.11): a verified body becomes a [`Change`].
//!
//! Clerk's order of delivery says nothing; the time within an object does. The envelope's `timestamp` is never looked at: it is in
//! seconds or in milliseconds, as it happens.

use serde::Deserialize;
use serde_json::Value;

use super::user::ClerkUser;
use crate::store::people::Change;

/// The longest id that is kept.
const MAX_ID_BYTES: usize = 255;

/// A webhook, read.
#[derive(Debug)]
pub struct Webhook {
    /// What it is called, such as `user.updated`.
    pub kind: String,
    /// What follows from it.
    pub change: Change,
}

/// A body that was signed and yet is none. Sending it again would not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No envelope.
    #[error("the body is no event of Clerk's")]
    Envelope,
    /// What it is about is not there.
    #[error("the event {kind} does not say what it is about")]
    Data {
        /// The event.
        kind: String,
    },
    /// It is about another instance of Clerk than the configured one.
    #[error("the event is of another instance of Clerk")]
    OtherInstance,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    instance_id: Option<String>,
}

#[derive(Deserialize)]
struct Session {
    id: String,
    #[serde(default)]
    user_id: Option<String>,
}

#[derive(Deserialize)]
struct Membership {
    #[serde(default)]
    role: Option<String>,
    organization: Named,
    public_user_data: PublicUser,
    #[serde(default)]
    updated_at: Option<i64>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Deserialize)]
struct PublicUser {
    user_id: String,
}

/// Reads a body whose signature is right. `instance` is the only one whose events count, if one is configured; what has no time of its
/// own is of `now_ms` (Unix milliseconds).
///
/// # Errors
/// See [`Unreadable`].
pub fn read(body: &[u8], instance: Option<&str>, now_ms: i64) -> Result<Webhook, Unreadable> {
    let Envelope { kind, data, instance_id } = serde_json::from_slice(body).map_err(|_| Unreadable::Envelope)?;
    if instance.is_some_and(|instance| instance_id.as_deref() != Some(instance)) {
        return Err(Unreadable::OtherInstance);
    }
    let change = change(&kind, data, now_ms).ok_or_else(|| Unreadable::Data { kind: kind.clone() })?;
    Ok(Webhook { kind, change })
}

/// `None` when the data is not what the kind promises.
fn change(kind: &str, data: Value, now_ms: i64) -> Option<Change> {
    Some(match kind {
        "user.created" | "user.updated" => {
            let user = read_as::<ClerkUser>(data)?.into_user(now_ms);
            is_id(&user.id).then_some(Change::User(user))?
        }
        "user.deleted" => {
            let Named { id } = read_as(data)?;
            is_id(&id).then_some(Change::UserDeleted { id })?
        }
        "session.ended" | "session.removed" | "session.revoked" => {
            let Session { id: session, user_id: user } = read_as(data)?;
            is_id(&session).then_some(Change::SessionEnded { session, user })?
        }
        "organizationMembership.created" | "organizationMembership.updated" => {
            let Membership {
                role,
                organization: Named { id: org },
                public_user_data: PublicUser { user_id: user },
                updated_at,
            } = read_as(data)?;
            let (role, updated_at) = (role.unwrap_or_default(), updated_at.unwrap_or(now_ms));
            (is_id(&org) && is_id(&user)).then_some(Change::Member { org, user, role, updated_at })?
        }
        "organizationMembership.deleted" => {
            let Membership {
                organization: Named { id: org },
                public_user_data: PublicUser { user_id: user },
                updated_at,
                ..
            } = read_as(data)?;
            let updated_at = updated_at.unwrap_or(now_ms);
            (is_id(&org) && is_id(&user)).then_some(Change::MemberLeft { org, user, updated_at })?
        }
        "organization.deleted" => {
            let Named { id: org } = read_as(data)?;
            is_id(&org).then_some(Change::OrgDeleted { org })?
        }
        _ => Change::Nothing,
    })
}

fn read_as<T: for<'de> Deserialize<'de>>(data: Value) -> Option<T> {
    serde_json::from_value(data).ok()
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && !id.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scenario() -> Vec<Value> {
        let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/webhook_events.json")).unwrap();
        vectors["clerk"].as_array().unwrap().clone()
    }

    #[test]
    fn every_webhook_of_the_scenario_is_read() {
        for step in scenario() {
            let note = step["note"].as_str().unwrap();
            let body = &step["body"];
            let read = read(body.to_string().as_bytes(), None, 1);
            match (&body["data"]["id"], body["type"].as_str().unwrap()) {
                (Value::Null, kind) => {
                    assert_eq!(read.unwrap_err(), Unreadable::Data { kind: kind.to_owned() }, "{note}")
                }
                _ => assert_eq!(read.unwrap().kind, body["type"].as_str().unwrap(), "{note}"),
            }
            for (id, expected) in step["expect"]["users"].as_object().into_iter().flatten() {
                let Change::User(user) = super::read(body.to_string().as_bytes(), None, 1).unwrap().change else {
                    panic!("{note}: a user is expected")
                };
                let found = json!({
                    "id": user.id, "email": user.email, "name": user.name, "image_url": user.image_url,
                    "banned": user.banned, "source_updated_at": user.source_updated_at,
                });
                assert_eq!((&user.id, &found), (id, expected), "{note}");
            }
        }
    }

    #[test]
    fn events_of_another_instance_are_not_ours() {
        let body =
            json!({ "type": "user.deleted", "data": { "id": "user_1" }, "instance_id": "ins_other" }).to_string();
        assert_eq!(read(body.as_bytes(), Some("ins_ours"), 1).unwrap_err(), Unreadable::OtherInstance);
        assert!(read(body.as_bytes(), Some("ins_other"), 1).is_ok());
    }

    #[test]
    fn a_body_that_is_none_is_named() {
        for (body, error) in [
            ("", Unreadable::Envelope),
            ("[]", Unreadable::Envelope),
            ("{\"data\":{}}", Unreadable::Envelope),
            (
                "{\"type\":\"session.ended\",\"data\":{\"id\":\"\"}}",
                Unreadable::Data { kind: "session.ended".to_owned() },
            ),
            ("{\"type\":\"user.updated\",\"data\":[]}", Unreadable::Data { kind: "user.updated".to_owned() }),
        ] {
            assert_eq!(read(body.as_bytes(), None, 1).unwrap_err(), error, "{body}");
        }
        let ignored = read(b"{\"type\":\"email.created\",\"data\":null}", None, 1).unwrap();
        assert_eq!(ignored.change, Change::Nothing);
    }
}
