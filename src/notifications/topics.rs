//! Topics that users may follow by themselves, by patterns of the configuration.

use std::fmt;

use crate::identity::Identity;

/// The longest pattern, in characters.
const MAX_LENGTH: usize = 200;

/// Names of topics: `*` stands for any characters, `{user_id}` and `{org_id}` for the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    text: String,
}

impl TopicPattern {
    /// Reads one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = (1..=MAX_LENGTH).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        let rest = text.replace("{user_id}", "").replace("{org_id}", "");
        (is_name && !rest.contains(['{', '}'])).then(|| Self { text: text.to_owned() })
    }

    /// Whether this user may follow this topic.
    #[must_use]
    pub fn allows(&self, topic: &str, identity: &Identity) -> bool {
        let org = identity.org.as_ref().map(|org| org.id.as_str());
        if org.is_none() && self.text.contains("{org_id}") {
            return false;
        }
        // Cut at the stars first: an id may hold one, which stands for itself.
        let parts = self
            .text
            .split('*')
            .map(|part| part.replace("{user_id}", &identity.user).replace("{org_id}", org.unwrap_or_default()));
        let parts: Vec<String> = parts.collect();
        let Some((first, others)) = parts.split_first() else { return false };
        let Some((last, between)) = others.split_last() else { return topic == first };
        let rest = topic.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()));
        let Some(mut rest) = rest else { return false };
        for part in between {
            let Some((_, after)) = rest.split_once(part.as_str()) else { return false };
            rest = after;
        }
        true
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::identity::Org;

    #[test]
    fn a_user_may_follow_what_a_pattern_names() {
        let org = Org { id: "org_1".to_owned(), slug: None, role: None, permissions: None };
        let identity = |user: &str, org: Option<Org>| Identity {
            user: user.to_owned(),
            session: None,
            org,
            actor: None,
            issued_at: None,
            expires_at: 0.0,
            claims: Map::new(),
        };
        let ann = identity("user_ann", Some(org));
        for (pattern, topic, allowed) in [
            ("news", "news", true),
            ("news", "news2", false),
            ("news:*", "news:sport", true),
            ("news:*", "news:", true),
            ("*", "anything", true),
            ("user:{user_id}", "user:user_ann", true),
            ("user:{user_id}", "user:user_bob", false),
            ("org:{org_id}:*", "org:org_1:sales", true),
            ("org:{org_id}:*", "org:org_2:sales", false),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c", false),
            ("aba*aba", "aba", false),
        ] {
            assert_eq!(TopicPattern::parse(pattern).unwrap().allows(topic, &ann), allowed, "{pattern} {topic}");
        }
        assert!(!TopicPattern::parse("org:{org_id}:*").unwrap().allows("org::x", &identity("user_bob", None)));
        let star = identity("*", None);
        assert!(!TopicPattern::parse("user:{user_id}").unwrap().allows("user:user_ann", &star), "an id is no pattern");
        for wrong in ["", "{org}", "a}", "a\n"] {
            assert!(TopicPattern::parse(wrong).is_none(), "{wrong}");
        }
    }
}
