//! What crosses Redis: a version, a kind, a few fields parted by NUL, and for events the text of the frame as every subscriber gets it, so
//! the receiving node parses no JSON. The scripts write the same (scripts/library.lua, scripts/publish.lua).

use herald_protocol::{SocketId, UserId};

use crate::hub::Binding;
use crate::hub::remote::Version;

/// Format of all messages; others are not read.
const VERSION: char = '1';

/// A message of a node or a script.
#[derive(Debug, PartialEq)]
pub(super) enum Message<'a> {
    /// An event of a channel.
    Event {
        /// The node that published it, and delivers it to its own clients.
        origin: &'a str,
        /// Who does not get it.
        except: Option<SocketId>,
        /// Of an event that is kept; else 0.
        number: u64,
        /// Of a change of an inbox.
        rev: Option<u64>,
        /// What subscribers get.
        text: &'a str,
    },
    /// A change of a channel's members; who came has an info.
    Member(Version, UserId, Option<&'a str>),
    /// How many subscriptions a channel has.
    Count(usize),
    /// Whether a user is online.
    Online(bool),
    /// A user's connections have to end.
    Terminate,
    /// A connection belongs to somebody.
    Bind {
        /// The app's id.
        app: &'a str,
        /// Which connection.
        socket_id: SocketId,
        /// Whose.
        binding: Binding,
    },
}

/// Which node an event comes from and who does not get it; [`event`] and scripts/publish.lua put it in front.
pub(super) fn header(origin: &str, except: Option<SocketId>) -> String {
    let except = except.map(|socket| socket.to_string()).unwrap_or_default();
    format!("{origin}\0{except}")
}

/// An event that nobody keeps.
pub(super) fn event(header: &str, text: &str) -> String {
    format!("{VERSION}E{header}\0{text}")
}

/// A change of an inbox, with its revision.
pub(super) fn change(rev: u64, header: &str, text: &str) -> String {
    format!("{VERSION}R{rev}\0{header}\0{text}")
}

/// A user's connections have to end.
pub(super) fn terminate() -> String {
    format!("{VERSION}T")
}

/// A connection belongs to somebody.
pub(super) fn bind(app: &str, socket_id: SocketId, binding: &Binding) -> String {
    format!("{VERSION}B{app}\0{socket_id}\0{}", serde_json::to_string(binding).unwrap_or_default())
}

/// A node's sign of life to itself, sent at this time of its own clock.
pub(super) fn probe(sent_us: u64) -> String {
    format!("1P{sent_us}")
}

/// When a node's sign of life to itself was sent; `None` if it is something else.
pub(super) fn read_probe(text: &[u8]) -> Option<u64> {
    str::from_utf8(text.strip_prefix(b"1P")?).ok()?.parse().ok()
}

impl<'a> Message<'a> {
    /// `None` if it is none of ours, or of another version of Herald.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix(VERSION)?;
        let kind = text.chars().next()?;
        let rest = text.get(kind.len_utf8()..)?;
        Some(match kind {
            'E' => Self::event(rest, 0, None)?,
            'K' => {
                let (number, rest) = rest.split_once('\0')?;
                Self::event(rest, number.parse().ok()?, None)?
            }
            'R' => {
                let (rev, rest) = rest.split_once('\0')?;
                Self::event(rest, 0, Some(rev.parse().ok()?))?
            }
            'M' => {
                let mut fields = rest.splitn(5, '\0');
                let mut next = || fields.next();
                let version = Version { epoch: next()?.parse().ok()?, seq: next()?.parse().ok()? };
                let (sign, user, info) = (next()?, UserId::parse(next()?).ok()?, next()?);
                Self::Member(version, user, (sign == "+").then_some(info))
            }
            'C' => Self::Count(rest.parse().ok()?),
            'O' => Self::Online(true),
            'F' => Self::Online(false),
            'T' => Self::Terminate,
            'B' => {
                let mut fields = rest.splitn(3, '\0');
                let (app, socket_id) = (fields.next()?, fields.next()?.parse().ok()?);
                Self::Bind { app, socket_id, binding: serde_json::from_str(fields.next()?).ok()? }
            }
            _ => return None,
        })
    }

    fn event(rest: &'a str, number: u64, rev: Option<u64>) -> Option<Self> {
        let (origin, rest) = rest.split_once('\0')?;
        let (except, text) = rest.split_once('\0')?;
        let except = if except.is_empty() { None } else { Some(except.parse().ok()?) };
        Some(Self::Event { origin, except, number, rev, text })
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let socket: SocketId = "1.2".parse().unwrap();
        let (origin, text) = ("n", r#"{"event":"e","data":"\u0000"}"#);
        for except in [None, Some(socket)] {
            let written = event(&header(origin, except), text);
            assert_eq!(Message::read(&written), Some(Message::Event { origin, except, number: 0, rev: None, text }));
        }
        let kept = format!("1K17\0{}\0{text}", header(origin, None));
        assert_eq!(Message::read(&kept), Some(Message::Event { origin, except: None, number: 17, rev: None, text }));
        let changed = change(9, &header(origin, None), text);
        let expected = Message::Event { origin, except: None, number: 0, rev: Some(9), text };
        assert_eq!(Message::read(&changed), Some(expected));
        let (version, user) = (Version { epoch: 5, seq: 6 }, UserId::parse("u").unwrap());
        let added = Message::Member(version, user.clone(), Some(r#"{"a":1}"#));
        assert_eq!(Message::read("1M5\x006\0+\0u\0{\"a\":1}"), Some(added));
        assert_eq!(Message::read("1M5\x006\0-\0u\0"), Some(Message::Member(version, user, None)));
        assert_eq!(read_probe(probe(9).as_bytes()), Some(9));
        assert_eq!(read_probe(terminate().as_bytes()), None);
        assert_eq!(Message::read(&terminate()), Some(Message::Terminate));
        let binding = Binding { user: "a\0b".to_owned(), session: Some("s".to_owned()), expires: Some(UNIX_EPOCH) };
        let written = bind("app", socket, &binding);
        assert_eq!(Message::read(&written), Some(Message::Bind { app: "app", socket_id: socket, binding }));
        for wrong in ["", "1", "2T", "1X", "1Mx\0\0\0\0", "1E", "1Cx", "\u{e9}T"] {
            assert_eq!(Message::read(wrong), None, "{wrong:?}");
        }
    }
}
