//! Ids of users: members of presence channels and signed-in users (section 1).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A user's id: 1-128 characters, no control characters; cloning costs a reference count.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

/// Why a text is no user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUserId {
    /// Empty or too long.
    #[error("a user id has 1 to 128 characters, not {0}")]
    Length(usize),
    /// A control character.
    #[error("a user id must not hold control characters")]
    Control,
}

impl UserId {
    /// Reads a user id.
    ///
    /// # Errors
    /// Says which rule of section 1 the text breaks.
    pub fn parse(text: &str) -> Result<Self, InvalidUserId> {
        let length = text.chars().count();
        if !(1..=128).contains(&length) {
            return Err(InvalidUserId::Length(length));
        }
        if text.chars().any(char::is_control) {
            return Err(InvalidUserId::Control);
        }
        Ok(Self(text.into()))
    }

    /// The id as it stands on the wire.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for UserId {
    fn borrow(&self) -> &str {
        &self.0
    }
}
