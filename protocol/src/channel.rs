//! Names and kinds of channels (section 1): the longest matching prefix says what a channel is.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::user::{InvalidUserId, UserId};

/// What stands in front of a user's id in the name of the channel that reaches only that user.
pub const SERVER_TO_USER: &str = "#server-to-user-";

/// What a channel's prefix makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChannelKind {
    /// No prefix.
    Public,
    /// `cache-`
    Cache,
    /// `private-`
    Private,
    /// `private-cache-`
    PrivateCache,
    /// `private-encrypted-`
    PrivateEncrypted,
    /// `private-encrypted-cache-`
    PrivateEncryptedCache,
    /// `presence-`
    Presence,
    /// `presence-cache-`
    PresenceCache,
    /// `#server-to-user-`
    ServerToUser,
}

impl ChannelKind {
    /// Every kind with a prefix, the longest prefix of a family first, so that the first match is the right one.
    const PREFIXES: [(&'static str, Self); 8] = [
        ("private-encrypted-cache-", Self::PrivateEncryptedCache),
        ("private-encrypted-", Self::PrivateEncrypted),
        ("private-cache-", Self::PrivateCache),
        ("private-", Self::Private),
        ("presence-cache-", Self::PresenceCache),
        ("presence-", Self::Presence),
        ("cache-", Self::Cache),
        (SERVER_TO_USER, Self::ServerToUser),
    ];

    /// Every kind, for whoever counts them.
    pub const ALL: [Self; 9] = [
        Self::Public,
        Self::Cache,
        Self::Private,
        Self::PrivateCache,
        Self::PrivateEncrypted,
        Self::PrivateEncryptedCache,
        Self::Presence,
        Self::PresenceCache,
        Self::ServerToUser,
    ];

    fn of(name: &str) -> Self {
        Self::PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(Self::Public, |(_, kind)| *kind)
    }

    /// Whether a subscription needs a signature.
    #[must_use]
    pub const fn needs_authorization(self) -> bool {
        !matches!(self, Self::Public | Self::Cache | Self::ServerToUser)
    }

    /// Whether the channel has members.
    #[must_use]
    pub const fn is_presence(self) -> bool {
        matches!(self, Self::Presence | Self::PresenceCache)
    }

    /// Whether the last event triggered over HTTP is kept for those who come later.
    #[must_use]
    pub const fn keeps_last_event(self) -> bool {
        matches!(self, Self::Cache | Self::PrivateCache | Self::PrivateEncryptedCache | Self::PresenceCache)
    }

    /// Whether subscribers may send client events to each other.
    #[must_use]
    pub const fn allows_client_events(self) -> bool {
        self.needs_authorization()
    }

    /// The kind's name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Cache => "cache",
            Self::Private => "private",
            Self::PrivateCache => "private-cache",
            Self::PrivateEncrypted => "private-encrypted",
            Self::PrivateEncryptedCache => "private-encrypted-cache",
            Self::Presence => "presence",
            Self::PresenceCache => "presence-cache",
            Self::ServerToUser => "server-to-user",
        }
    }
}

/// A valid channel name; cloning costs a reference count.
#[derive(Clone)]
pub struct ChannelName {
    text: Arc<str>,
    kind: ChannelKind,
}

/// Why a text is no channel name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChannelName {
    /// Nothing stands there.
    #[error("a channel name must not be empty")]
    Empty,
    /// Longer than the app allows.
    #[error("the channel name has {actual} characters, {limit} are allowed")]
    TooLong {
        /// The name's length.
        actual: usize,
        /// What the app allows.
        limit: usize,
    },
    /// A character outside of the alphabet.
    #[error("the channel name holds {0:?}; letters, digits and _ - = @ , . ; are allowed")]
    Character(char),
    /// A `#` that is not followed by `server-to-user-` and a user id.
    #[error("a channel name that begins with # must be #server-to-user-USER_ID")]
    Hash,
    /// `#server-to-user-` with a user id that cannot be one.
    #[error("the channel name's user id is invalid: {0}")]
    User(#[from] InvalidUserId),
}

impl ChannelName {
    /// Reads a name of at most `max_len` characters (a server-to-user name is bounded by its user id instead).
    ///
    /// # Errors
    /// Says which rule of section 1 the text breaks.
    pub fn parse(text: &str, max_len: usize) -> Result<Self, InvalidChannelName> {
        if let Some(user) = text.strip_prefix(SERVER_TO_USER) {
            UserId::parse(user)?;
            return Ok(Self { text: text.into(), kind: ChannelKind::ServerToUser });
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-=@,.;".contains(c);
        match text.chars().find(|c| !allowed(*c)) {
            _ if text.is_empty() => Err(InvalidChannelName::Empty),
            _ if text.starts_with('#') => Err(InvalidChannelName::Hash),
            Some(wrong) => Err(InvalidChannelName::Character(wrong)),
            None if text.len() > max_len => Err(InvalidChannelName::TooLong { actual: text.len(), limit: max_len }),
            None => Ok(Self { text: text.into(), kind: ChannelKind::of(text) }),
        }
    }

    /// The name as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What the prefix makes of it.
    #[must_use]
    pub const fn kind(&self) -> ChannelKind {
        self.kind
    }

    /// The name without the prefix of its kind.
    #[must_use]
    pub fn base(&self) -> &str {
        let prefix =
            ChannelKind::PREFIXES.iter().find(|(_, kind)| *kind == self.kind).map_or("", |(prefix, _)| *prefix);
        self.text.strip_prefix(prefix).unwrap_or_default()
    }

    /// The user whom a server-to-user channel reaches.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.text.strip_prefix(SERVER_TO_USER)
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for ChannelName {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ChannelName {}

impl Hash for ChannelName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Borrow<str> for ChannelName {
    fn borrow(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        for (name, kind) in [
            ("a", ChannelKind::Public),
            ("privateer", ChannelKind::Public),
            ("cache-a", ChannelKind::Cache),
            ("private-a", ChannelKind::Private),
            ("private-cache-a", ChannelKind::PrivateCache),
            ("private-encrypted-a", ChannelKind::PrivateEncrypted),
            ("private-encrypted-cache-a", ChannelKind::PrivateEncryptedCache),
            ("presence-a", ChannelKind::Presence),
            ("presence-cache-a", ChannelKind::PresenceCache),
            ("#server-to-user-7", ChannelKind::ServerToUser),
        ] {
            assert_eq!(ChannelName::parse(name, 164).map(|parsed| parsed.kind()), Ok(kind), "{name}");
        }
    }

    #[test]
    fn the_alphabet_and_the_length() {
        assert!(ChannelName::parse("azAZ09_-=@,.;", 164).is_ok());
        assert!(ChannelName::parse(&"x".repeat(164), 164).is_ok());
        assert_eq!(
            ChannelName::parse(&"x".repeat(165), 164),
            Err(InvalidChannelName::TooLong { actual: 165, limit: 164 })
        );
        for (name, why) in [
            ("", InvalidChannelName::Empty),
            ("a b", InvalidChannelName::Character(' ')),
            ("a:b", InvalidChannelName::Character(':')),
            ("private-é", InvalidChannelName::Character('é')),
            ("a\u{0}", InvalidChannelName::Character('\0')),
            ("#other", InvalidChannelName::Hash),
            ("#server-to-user-", InvalidChannelName::User(InvalidUserId::Length(0))),
        ] {
            assert_eq!(ChannelName::parse(name, 164), Err(why), "{name:?}");
        }
    }
}
