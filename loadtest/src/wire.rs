//! The bytes that go over the wire: requests, frames, and the stamp that an event carries.
//!
//! A stamp is a number and a time of a fixed width inside an event's data. Whoever gets the event finds it by looking at bytes, whatever the
//! server has written around it, so nothing is parsed as JSON when it is delivered.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use herald_protocol::Secret;
use herald_protocol::json::quoted;
use herald_protocol::signature::{body_md5, request_string};
use memchr::memmem;

/// What every event is called.
pub(crate) const EVENT: &str = "measured";
/// A channel that nobody is on.
pub(crate) const NOBODY: &str = "nobody";
/// The key of every handshake: what is measured does not depend on it.
pub(crate) const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// An application of the server under measurement.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// As in the path of its API.
    pub(crate) id: String,
    /// As in the address that clients connect to.
    pub(crate) key: String,
    /// Signs requests and subscriptions.
    pub(crate) secret: Secret,
}

impl App {
    /// The one that Herald serves on loopback when none is configured.
    pub(crate) fn of_herald() -> Self {
        Self { id: "app-id".to_owned(), key: "app-key".to_owned(), secret: Secret::new("app-secret") }
    }

    /// The client's half of the WebSocket handshake.
    pub(crate) fn upgrade_request(&self, address: SocketAddr) -> String {
        format!(
            "GET /app/{}?protocol=7&client=loadtest&version=1.0 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n",
            self.key
        )
    }

    /// What a client of this socket id sends to be subscribed; `member` is the user that it is on a presence channel.
    pub(crate) fn subscribe_frame(&self, socket_id: &str, channel: &str, member: Option<&str>) -> Vec<u8> {
        let member = member.map(|user| format!(r#"{{"user_id":{}}}"#, quoted(user)));
        let signed = [Some(socket_id), Some(channel), member.as_deref()];
        let signed: Vec<&str> = signed.into_iter().flatten().collect();
        let is_private = channel.starts_with("private-") || channel.starts_with("presence-");
        let auth = if is_private {
            format!("{}:{}", self.key, self.secret.sign(signed.join(":").as_bytes()))
        } else {
            String::new()
        };
        let member = member.map(|member| format!(r#","channel_data":{}"#, quoted(&member))).unwrap_or_default();
        client_frame(&format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":{},"auth":"{auth}"{member}}}}}"#,
            quoted(channel)
        ))
    }

    /// A backend's signed request to an endpoint of the app; `query` are further parameters of a GET.
    pub(crate) fn request(
        &self,
        address: SocketAddr,
        method: &str,
        endpoint: &str,
        query: &[(&str, &str)],
        body: &str,
    ) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).to_string();
        let path = format!("/apps/{}/{endpoint}", self.id);
        let mut parameters = vec![("auth_key", &*self.key), ("auth_timestamp", &now), ("auth_version", "1.0")];
        let md5 = body_md5(body.as_bytes());
        if !body.is_empty() {
            parameters.push(("body_md5", &md5));
        }
        parameters.extend(query);
        let signature = self.secret.sign(request_string(method, &path, parameters.iter().copied()).as_bytes());
        let query: String = parameters.iter().map(|(name, value)| format!("{name}={value}&")).collect();
        format!(
            "{method} {path}?{query}auth_signature={signature} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// A request that triggers an event which nobody gets: the same bytes each time, since what it takes to sign is the backend's business.
    pub(crate) fn trigger_nobody(&self, address: SocketAddr) -> String {
        self.trigger(address, NOBODY, &Stamp { number: 0, at_ns: 0 }.data(200))
    }

    /// A request that triggers one event with this data on a channel.
    pub(crate) fn trigger(&self, address: SocketAddr, channel: &str, data: &str) -> String {
        let body = format!(r#"{{"name":"{EVENT}","channels":["{channel}"],"data":"{data}"}}"#);
        self.request(address, "POST", "events", &[], &body)
    }
}

/// Number and time of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Counts the events of a channel, from 0.
    pub(crate) number: u64,
    /// When it was made, in nanoseconds of the tool's clock.
    pub(crate) at_ns: u64,
}

impl Stamp {
    const MARK: &[u8] = b"@load:";
    const NUMBER: usize = 10;
    const TIME: usize = 20;
    /// Bytes of a stamp, and so the least that an event's data has.
    pub(crate) const BYTES: usize = Self::MARK.len() + Self::NUMBER + 1 + Self::TIME;

    /// Data of `bytes` with this stamp in front.
    pub(crate) fn data(self, bytes: usize) -> String {
        let Self { number, at_ns } = self;
        let mark = String::from_utf8_lossy(Self::MARK);
        format!(
            "{mark}{number:0number_width$}:{at_ns:0time_width$}{}",
            "x".repeat(bytes.saturating_sub(Self::BYTES)),
            number_width = Self::NUMBER,
            time_width = Self::TIME
        )
    }

    /// Where in `bytes` a stamp stands, if one does. `guess` is where the last one stood.
    pub(crate) fn find(bytes: &[u8], guess: usize) -> Option<Range<usize>> {
        let is_there = bytes.get(guess..).is_some_and(|from| from.starts_with(Self::MARK));
        let start = if is_there { guess } else { memmem::find(bytes, Self::MARK)? };
        let range = start..start + Self::BYTES;
        (range.end <= bytes.len()).then_some(range)
    }

    /// What a stamp that was found says.
    pub(crate) fn read(stamp: &[u8]) -> Option<Self> {
        let digits = stamp.strip_prefix(Self::MARK)?;
        let (number, time) = (digits.get(..Self::NUMBER)?, digits.get(Self::NUMBER + 1..)?);
        Some(Self { number: decimal(number)?, at_ns: decimal(time)? })
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |sum, digit| {
        let value = digit.checked_sub(b'0').filter(|value| *value < 10)?;
        sum.checked_mul(10)?.checked_add(value.into())
    })
}

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// Kinds of frames, after RFC 6455, 5.2.
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// A server's text frame.
pub(crate) fn server_frame(text: &str) -> Vec<u8> {
    [&header(TEXT, text.len()), text.as_bytes()].concat()
}

/// A client's text frame; masked, as RFC 6455 demands, with zeros, which change nothing.
pub(crate) fn client_frame(text: &str) -> Vec<u8> {
    masked(TEXT, text.as_bytes())
}

/// A client's frame of some kind.
pub(crate) fn masked(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = header(kind, payload.len());
    if let Some(length) = header.get_mut(1) {
        *length |= MASKED;
    }
    [&header, [0; 4].as_slice(), payload].concat()
}

/// Header of a frame of up to 64 KiB, which is more than any event here has.
fn header(kind: u8, length: usize) -> Vec<u8> {
    match u16::try_from(length).unwrap_or(u16::MAX) {
        short @ 0..=125 => vec![FINAL | kind, short as u8],
        medium => [&[FINAL | kind, 126], medium.to_be_bytes().as_slice()].concat(),
    }
}

/// The first frame that stands in `bytes` as a whole: its kind and where its payload is. A server masks nothing.
pub(crate) fn first_frame(bytes: &[u8]) -> Option<(u8, Range<usize>)> {
    let (kind, short) = (bytes.first()? & 0xf, usize::from(bytes.get(1)? & !MASKED));
    let (start, length): (usize, usize) = match short {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, short),
    };
    let end = start.checked_add(length)?;
    (end <= bytes.len()).then_some((kind, start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_wherever_it_stands() {
        let stamp = Stamp { number: 42, at_ns: 1_234_567_890_123 };
        let data = stamp.data(200);
        assert_eq!(data.len(), 200);
        let frame = format!(r#"{{"data":"{data}","event":"e"}}"#);
        for guess in [0, 9, 5_000] {
            let found = Stamp::find(frame.as_bytes(), guess).unwrap();
            assert_eq!(found.start, 9);
            assert_eq!(Stamp::read(&frame.as_bytes()[found]), Some(stamp));
        }
        assert_eq!(Stamp::find(b"{}", 0), None);
        assert_eq!(Stamp::find(&frame.as_bytes()[..30], 0), None, "half of one is none");
        assert_eq!(Stamp::read(b"@load:00000000x2:00000000000000000001"), None);
    }

    #[test]
    fn a_frame_is_whole_with_its_last_byte() {
        for length in [0, 125, 126, 300, 60_000] {
            let frame = server_frame(&"x".repeat(length));
            for cut in [0, 1, 3, frame.len() - 1] {
                assert_eq!(first_frame(&frame[..cut.min(frame.len() - 1)]), None, "{cut} of {length}");
            }
            let (kind, payload) = first_frame(&[&*frame, b"more"].concat()).unwrap();
            assert_eq!((kind, payload.len(), payload.end), (TEXT, length, frame.len()));
        }
    }

    #[test]
    fn a_request_is_signed_as_the_protocol_says() {
        let request = App::of_herald().trigger(([127, 0, 0, 1], 6001).into(), "load", "x");
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, r#"{"name":"measured","channels":["load"],"data":"x"}"#);
        assert!(head.contains(&format!("body_md5={}", body_md5(body.as_bytes()))), "{head}");
    }
}
