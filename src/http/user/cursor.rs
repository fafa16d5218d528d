//! Where the next page of a list begins: a moment and an id, as text that means nothing to anybody else.

use data_encoding::BASE64URL_NOPAD;
use uuid::Uuid;

use super::super::fault::Fault;
use crate::store::time::Timestamp;

pub(super) fn write(at: Timestamp, id: Uuid) -> String {
    BASE64URL_NOPAD.encode(format!("{}:{id}", at.as_micros()).as_bytes())
}

pub(super) fn read(text: &str) -> Result<(Timestamp, Uuid), Fault> {
    let decoded = BASE64URL_NOPAD.decode(text.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let parts = |text: String| {
        let (micros, id) = text.split_once(':')?;
        Some((Timestamp::from_micros(micros.parse().ok()?), id.parse().ok()?))
    };
    decoded.and_then(parts).ok_or_else(|| Fault::Invalid("`cursor` is none that an answer has given".to_owned()))
}
