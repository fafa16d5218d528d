//! JSON as the protocol reads it: members are picked out as they stand, the last of duplicates counts, depth is bounded.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr;
use serde::de::{Deserialize, Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How deep objects and arrays of a client's message may nest (section 3).
pub const MAX_DEPTH: usize = 64;

/// What is wrong with a JSON text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It does not parse, or is no object.
    #[error("not a JSON object: {0}")]
    NotAnObject(String),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A member has another type than it must have.
    #[error("`{member}` must be {expected}")]
    Type {
        /// The member's name.
        member: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A member is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
}

/// Picks the members `names` out of the object `json`, as they stand there; of duplicates the last counts, others are ignored.
///
/// # Errors
/// When `json` is no object.
pub fn members<'a, const N: usize>(
    json: &'a str,
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], JsonError> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let found =
        deserializer.deserialize_map(Members { names }).map_err(|error| JsonError::NotAnObject(error.to_string()))?;
    deserializer.end().map_err(|error| JsonError::NotAnObject(error.to_string()))?;
    Ok(found)
}

struct Members<const N: usize> {
    names: [&'static str; N],
}

impl<'de, const N: usize> Visitor<'de> for Members<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
            match self.names.iter().position(|name| *name == key) {
                Some(index) => found[index] = Some(map.next_value::<&'de RawValue>()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(found)
    }
}

/// A string that borrows from the input where it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// Whether the JSON text nests at most [`MAX_DEPTH`] deep; a linear pass that allocates nothing.
///
/// # Errors
/// [`JsonError::TooDeep`].
pub fn check_depth(json: &str) -> Result<(), JsonError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(JsonError::TooDeep);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Reads a member that must be a string.
///
/// # Errors
/// Names the member when it is something else.
pub fn string<'a>(member: &'static str, value: &'a RawValue) -> Result<Cow<'a, str>, JsonError> {
    match serde_json::from_str::<Text<'a>>(value.get()) {
        Ok(Text(text)) => Ok(text),
        Err(_) => Err(JsonError::Type { member, expected: "a string" }),
    }
}

/// Reads a member that must be an array of strings.
///
/// # Errors
/// Names the member when it is something else.
pub fn strings<'a>(member: &'static str, value: &'a RawValue) -> Result<Vec<Cow<'a, str>>, JsonError> {
    match serde_json::from_str::<Vec<Text<'a>>>(value.get()) {
        Ok(texts) => Ok(texts.into_iter().map(|Text(text)| text).collect()),
        Err(_) => Err(JsonError::Type { member, expected: "an array of strings" }),
    }
}

/// Whether the value is a string.
#[must_use]
pub fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

/// The value as the JSON string token that goes over the wire: a string as it stands, anything else as its text in a string.
#[must_use]
pub fn data_token(value: &RawValue) -> Cow<'_, str> {
    if is_string(value) { Cow::Borrowed(value.get()) } else { Cow::Owned(quoted(value.get())) }
}

/// `text` as a JSON string, quotes included.
#[must_use]
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// How many bytes the string behind a JSON string token has once decoded; nothing is allocated.
#[must_use]
pub fn decoded_len(token: &str) -> usize {
    let bytes = token.as_bytes();
    let inner = bytes.get(1..bytes.len().saturating_sub(1)).unwrap_or_default();
    let unit = |at: usize| {
        let digits = inner.get(at + 2..at + 6).and_then(|digits| str::from_utf8(digits).ok());
        digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
    };
    let (mut at, mut length) = (0, 0);
    while let Some(plain) = inner.get(at..).and_then(|rest| memchr(b'\\', rest)) {
        at += plain;
        let (step, decoded) = match inner.get(at + 1) {
            Some(b'u') => match unit(at) {
                0..0x80 => (6, 1),
                0x80..0x800 => (6, 2),
                0xd800..0xdc00
                    if inner.get(at + 6..at + 8) == Some(b"\\u") && (0xdc00..0xe000).contains(&unit(at + 6)) =>
                {
                    (12, 4)
                }
                _ => (6, 3),
            },
            _ => (2, 1),
        };
        at += step;
        length += plain + decoded;
    }
    length + inner.len().saturating_sub(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_duplicates_counts_and_others_are_ignored() {
        let [a, b] = members(r#"{"a":1,"x":[{}],"\u0061":"2"}"#, ["a", "b"]).unwrap();
        assert_eq!(a.unwrap().get(), "\"2\"");
        assert!(b.is_none());
        for wrong in ["", "[]", "1", "{", "{}x", r#"{"a"}"#, "{\"a\":\"\u{1}\"}"] {
            assert!(members(wrong, ["a"]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        assert_eq!(check_depth(&("[".repeat(64) + &"]".repeat(64))), Ok(()));
        assert_eq!(check_depth(&"[".repeat(65)), Err(JsonError::TooDeep));
        assert_eq!(check_depth(&format!("\"\\\"{}\"", "[".repeat(100))), Ok(()));
    }

    #[test]
    fn decoded_length() {
        for text in ["", "a", "\\", "\"\n", "é", "\u{2028}", "😀", "\u{1}"] {
            assert_eq!(decoded_len(&quoted(text)), text.len(), "{text:?}");
        }
        assert_eq!(decoded_len(r#""\ud83d\ude00\u00e9\ud800""#), 4 + 2 + 3);
    }
}
