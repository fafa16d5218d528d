//! The id of one connection: two positive decimal integers joined by a dot (section 1).

use std::fmt;
use std::str::FromStr;

/// A connection's id, 64 bits of it random where the server makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(u64, u64);

/// A text that is no socket id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a socket id is two positive decimal numbers joined by a dot, such as 123.456")]
pub struct InvalidSocketId;

impl SocketId {
    /// Makes an id of 64 random bits (the caller's); both halves come out positive.
    #[must_use]
    pub fn from_random(bits: u64) -> Self {
        Self((bits >> 32) + 1, (bits & 0xffff_ffff) + 1)
    }
}

impl FromStr for SocketId {
    type Err = InvalidSocketId;

    /// Reads `^\d+\.\d+$`. Numbers larger than any that Herald gives out are valid and belong to nobody.
    fn from_str(text: &str) -> Result<Self, InvalidSocketId> {
        let number = |digits: &str| match digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => Err(InvalidSocketId),
            false => Ok(digits.parse().unwrap_or(u64::MAX)),
        };
        let (first, second) = text.split_once('.').ok_or(InvalidSocketId)?;
        Ok(Self(number(first)?, number(second)?))
    }
}

impl fmt::Display for SocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        for bits in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            let id = SocketId::from_random(bits);
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", "1", "1.", ".1", "a.b", "1.1:x", "1.1\n", "+1.1", "1.-1", " 1.1", "1.1.1"] {
            assert_eq!(wrong.parse::<SocketId>(), Err(InvalidSocketId), "{wrong:?}");
        }
        assert!("99999999999999999999999.1".parse::<SocketId>().is_ok());
    }
}
