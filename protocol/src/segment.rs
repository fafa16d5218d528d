//! Ids in channel names (section 1.8 of the integrations specification): the id of a user or an organization as one segment of a name.
//!
//! An id of plain letters stands there as it is. Any other is encoded, since names have a small alphabet; and no segment contains a
//! hyphen, so what comes after `-` is never taken for a part of the id.

use std::borrow::Cow;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

/// Characters of a segment, but for the sign in front that says how it is encoded.
const LONGEST: usize = 100;

/// The id as a segment: as it is, or `=` and its base32, or where that is too long `==` and the base32 of its SHA-256.
#[must_use]
pub fn segment(id: &str) -> Cow<'_, str> {
    let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain && (1..=LONGEST).contains(&id.len()) {
        return Cow::Borrowed(id);
    }
    let encoded = BASE32_NOPAD.encode(id.as_bytes()).to_ascii_lowercase();
    Cow::Owned(if encoded.len() <= LONGEST {
        format!("={encoded}")
    } else {
        format!("=={}", BASE32_NOPAD.encode(&Sha256::digest(id.as_bytes())).to_ascii_lowercase())
    })
}

/// The id that a segment stands for; `None` for a digest, which does not tell.
#[must_use]
pub fn id_of(segment: &str) -> Option<Cow<'_, str>> {
    let Some(encoded) = segment.strip_prefix('=') else { return Some(Cow::Borrowed(segment)) };
    let decoded = BASE32_NOPAD.decode(encoded.to_ascii_uppercase().as_bytes()).ok()?;
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// The name of the channel on which a user's own events are: `private-user-` and the id.
#[must_use]
pub fn user_channel(id: &str) -> String {
    format!("{USER_CHANNEL}{}", segment(id))
}

/// What stands in front of a user's id in the name of [`user_channel`].
pub const USER_CHANNEL: &str = "private-user-";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChannelName;

    #[test]
    fn every_id_has_a_segment_that_is_allowed_in_a_name() {
        for (id, expected) in
            [("user_2abcDEF", "user_2abcDEF"), ("10", "10"), ("a-b", "=mewwe"), ("auth0|x", "=mf2xi2bqpr4a"), ("", "=")]
        {
            assert_eq!(segment(id), expected);
            assert_eq!(id_of(expected).as_deref(), Some(id));
        }
        for long in ["x".repeat(101), "ä".repeat(120), "user@".repeat(50)] {
            let segment = segment(&long);
            assert!(segment.starts_with("==") && segment.len() == 54, "{segment}");
            assert!(ChannelName::parse(&user_channel(&long), 164).is_ok());
            assert_eq!(id_of(&segment), None);
        }
    }

    #[test]
    fn no_segment_can_be_taken_for_another_id_or_for_more_than_one() {
        for id in ["a-b", "=mewwe", "==", "a=b", "a,b", "user_2ab-x", "-"] {
            assert!(!segment(id).contains('-') && segment(id) != id, "{id}");
        }
    }
}
