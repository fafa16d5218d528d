//! Which channels an identity opens (section 1.8). First the channels that are a user's own and those of the active organization, then the
//! configured rules; what none of them names is denied, unless the configuration says otherwise.
//!
//! A rule speaks of the name after its type prefix, so one covers private, encrypted, cache and presence channels alike. Ids are compared
//! by whole segments: `user-user_2a` is not the beginning of `user-user_2ab`.

use std::fmt;

use data_encoding::BASE64;
use herald_protocol::segment::segment;
use herald_protocol::{ChannelKind, ChannelName};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Identity;

/// Families of names that only their own row speaks about.
const USER: &str = "user-";
const ORG: &str = "org-";

/// Whether a channel may be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Allowed,
    /// No.
    Denied,
    /// No rule speaks about it: the app is asked.
    Unspoken,
    /// It needs no authorization.
    Public,
}

/// Who may subscribe to what.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Any of these lets somebody in.
    pub rules: Vec<Rule>,
    /// Whether everybody may subscribe to what no rule speaks about.
    pub allows_others: bool,
    /// Whether the app is asked about the rest.
    pub asks: bool,
}

/// Lets somebody into channels.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Which.
    pub channels: Vec<Pattern>,
    /// In the active organization somebody must have one of these roles; none means any or no organization.
    pub org_roles: Vec<String>,
}

impl Policy {
    /// Decides about one channel.
    #[must_use]
    pub fn verdict(&self, identity: &Identity, name: &ChannelName) -> Verdict {
        if name.kind() == ChannelKind::ServerToUser {
            return Verdict::Denied; // the sign-in opens it
        }
        if !name.kind().needs_authorization() {
            return Verdict::Public;
        }
        let base = name.base();
        let is_allowed = if let Some(rest) = base.strip_prefix(USER) {
            is_segment(rest, &identity.user)
        } else if let Some(rest) = base.strip_prefix(ORG) {
            identity.org.as_ref().is_some_and(|org| is_segment(rest, &org.id))
        } else if self.asks && !self.rules.iter().any(|rule| rule.allows(identity, base)) {
            return Verdict::Unspoken;
        } else {
            self.allows_others || self.rules.iter().any(|rule| rule.allows(identity, base))
        };
        if is_allowed { Verdict::Allowed } else { Verdict::Denied }
    }
}

/// Whether the rest of a name is this id, alone or with more behind a hyphen.
fn is_segment(rest: &str, id: &str) -> bool {
    rest.split_once('-').map_or(rest, |(first, _)| first) == segment(id)
}

impl Rule {
    fn allows(&self, identity: &Identity, base: &str) -> bool {
        let role = identity.org.as_ref().and_then(|org| org.role.as_ref());
        let has_role = self.org_roles.is_empty() || role.is_some_and(|role| self.org_roles.contains(role));
        has_role && self.channels.iter().any(|pattern| pattern.matches(identity, base))
    }
}

/// A pattern of channel names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// Any characters, or none.
    Any,
    UserId,
    OrgId,
    /// Without `org:` in front.
    OrgRole,
    Claim(String),
}

impl Pattern {
    /// Reads a pattern; `None` if there is a placeholder in it that is not known.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let plain = rest.find(['*', '{', '}']).unwrap_or(rest.len());
            let (before, special) = rest.split_at_checked(plain)?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            rest = special;
            if let Some(after) = rest.strip_prefix('*') {
                parts.push(Part::Any);
                rest = after;
            } else if let Some(after) = rest.strip_prefix('{') {
                let (name, after) = after.split_once('}')?;
                parts.push(match name {
                    "user_id" => Part::UserId,
                    "org_id" => Part::OrgId,
                    "org_role" => Part::OrgRole,
                    _ => Part::Claim(name.strip_prefix("claims.").filter(|claim| !claim.is_empty())?.to_owned()),
                });
                rest = after;
            } else if !rest.is_empty() {
                return None;
            }
        }
        (!parts.is_empty() && text.len() <= 200).then(|| Self { text: text.to_owned(), parts })
    }

    /// Whether it means this name to somebody. A placeholder for what somebody does not have matches nothing.
    fn matches(&self, identity: &Identity, base: &str) -> bool {
        let org = identity.org.as_ref();
        let text = |part: &Part| -> Option<Option<String>> {
            Some(match part {
                Part::Any => None,
                Part::Text(text) => Some(text.clone()),
                Part::UserId => Some(segment(&identity.user).into_owned()),
                Part::OrgId => Some(segment(&org?.id).into_owned()),
                Part::OrgRole => {
                    let role = org?.role.as_ref()?;
                    Some(segment(role.strip_prefix("org:").unwrap_or(role)).into_owned())
                }
                Part::Claim(name) => Some(match identity.claims.get(name)? {
                    Value::String(text) => segment(text).into_owned(),
                    Value::Number(number) => segment(&number.to_string()).into_owned(),
                    _ => return None,
                }),
            })
        };
        let parts: Option<Vec<_>> = self.parts.iter().map(text).collect();
        parts.is_some_and(|parts| is_match(&parts, base))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a name is made of these texts in this order, with anything where there is none. Each text is taken where it comes first, the
/// last one at the end: that finds a match if there is one.
fn is_match(parts: &[Option<String>], name: &str) -> bool {
    let mut rest = name;
    let mut floats = false;
    for (position, part) in parts.iter().enumerate() {
        let Some(text) = part else {
            floats = true;
            continue;
        };
        let is_last = position + 1 == parts.len();
        let after = match (floats, is_last) {
            (false, _) => rest.strip_prefix(text.as_str()),
            (true, true) => return rest.ends_with(text.as_str()),
            (true, false) => rest.split_once(text.as_str()).map(|(_, after)| after),
        };
        let Some(after) = after else { return false };
        (rest, floats) = (after, false);
    }
    floats || rest.is_empty()
}

/// The key of end-to-end encrypted channels.
#[derive(Clone)]
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// Reads 32 bytes in base64.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let decoded = Zeroizing::new(BASE64.decode(text.as_bytes()).ok()?);
        <[u8; 32]>::try_from(decoded.as_slice()).ok().map(|key| Self(Zeroizing::new(key)))
    }

    /// What subscribers of a channel decrypt its events with, in base64.
    #[must_use]
    pub fn shared_secret(&self, channel: &str) -> String {
        let digest = Sha256::new().chain_update(channel.as_bytes()).chain_update(*self.0).finalize();
        BASE64.encode(&digest)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Org;

    fn identity(org: Option<(&str, &str)>) -> Identity {
        Identity {
            user: "user_2a".to_owned(),
            session: None,
            org: org.map(|(id, role)| Org {
                id: id.to_owned(),
                slug: None,
                role: Some(role.to_owned()),
                permissions: None,
            }),
            actor: None,
            issued_at: None,
            expires_at: 0.0,
            claims: serde_json::from_str(r#"{"plan":"pro","team":7,"list":[]}"#).unwrap(),
        }
    }

    #[test]
    fn who_may_subscribe_to_what() {
        let rule = |channels: &[&str], roles: &[&str]| Rule {
            channels: channels.iter().map(|text| Pattern::parse(text).unwrap()).collect(),
            org_roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        };
        let rules = vec![
            rule(&["room-*", "draft-{user_id}"], &[]),
            rule(&["admin-{org_id}-*"], &["org:admin"]),
            rule(&["role-{org_role}", "plan-{claims.plan}", "team-{claims.team}-*-end", "none-{claims.list}"], &[]),
        ];
        let policy = Policy { rules, allows_others: false, asks: false };
        let (nobody, admin, member) = (None, Some(("org_1", "org:admin")), Some(("org_1", "org:member")));
        for (name, org, expected) in [
            ("private-user-user_2a", nobody, Verdict::Allowed),
            ("presence-user-user_2a", nobody, Verdict::Allowed),
            ("private-encrypted-cache-user-user_2a-tab", nobody, Verdict::Allowed),
            ("private-user-user_2ab", nobody, Verdict::Denied),
            ("private-user-user_2", nobody, Verdict::Denied),
            ("private-user-", nobody, Verdict::Denied),
            ("private-org-org_1", nobody, Verdict::Denied),
            ("private-org-org_1-news", member, Verdict::Allowed),
            ("presence-org-org_1", member, Verdict::Allowed),
            ("private-org-org_12", member, Verdict::Denied),
            ("#server-to-user-user_2a", nobody, Verdict::Denied),
            ("news", nobody, Verdict::Public),
            ("cache-news", nobody, Verdict::Public),
            ("private-room-1", nobody, Verdict::Allowed),
            ("private-room", nobody, Verdict::Denied),
            ("private-draft-user_2a", nobody, Verdict::Allowed),
            ("private-draft-user_2a1", nobody, Verdict::Denied),
            ("private-admin-org_1-x", admin, Verdict::Allowed),
            ("private-admin-org_1-x", member, Verdict::Denied),
            ("private-admin-org_1-x", nobody, Verdict::Denied),
            ("private-role-member", member, Verdict::Allowed),
            ("private-role-member", nobody, Verdict::Denied),
            ("private-plan-pro", nobody, Verdict::Allowed),
            ("private-plan-free", nobody, Verdict::Denied),
            ("private-team-7-a-end-b-end", nobody, Verdict::Allowed),
            ("private-team-7-end", nobody, Verdict::Denied),
            ("private-none-", nobody, Verdict::Denied),
            ("private-anything", nobody, Verdict::Denied),
        ] {
            let name = ChannelName::parse(name, 200).unwrap();
            assert_eq!(policy.verdict(&identity(org), &name), expected, "{name} {org:?}");
        }
    }

    #[test]
    fn even_where_all_is_allowed_what_is_anothers_is_not() {
        let policy = Policy { rules: Vec::new(), allows_others: true, asks: false };
        for (name, expected) in [
            ("private-anything", Verdict::Allowed),
            ("private-user-user_2b", Verdict::Denied),
            ("presence-org-org_1", Verdict::Denied),
        ] {
            let name = ChannelName::parse(name, 200).unwrap();
            assert_eq!(policy.verdict(&identity(None), &name), expected, "{name}");
        }
    }

    #[test]
    fn a_placeholder_that_is_none_is_refused() {
        for wrong in ["", "{user}", "{claims.}", "{user_id", "user_id}", "a{b*"] {
            assert_eq!(Pattern::parse(wrong), None, "{wrong}");
        }
    }
}
