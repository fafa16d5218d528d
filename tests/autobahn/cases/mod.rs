//! The cases, one file a chapter of the suite's list, and the words they are written in.

mod closing;
mod framing;
mod sizes;
mod unicode;

use crate::case::{Case, Step};
use crate::wire::{self, TEXT};

/// The groups, with what they are about.
pub(crate) const GROUPS: [(u8, &str); 9] = [
    (1, "Framing"),
    (2, "Pings and pongs"),
    (3, "Reserved bits"),
    (4, "Opcodes"),
    (5, "Fragmentation"),
    (6, "UTF-8"),
    (7, "Close handling"),
    (9, "Limits and performance"),
    (10, "Autofragmentation"),
];

/// Every case of a group.
pub(crate) fn of_group(group: u8) -> Vec<Case> {
    match group {
        1 => framing::sizes(),
        2 => framing::pings(),
        3 => framing::reserved_bits(),
        4 => framing::opcodes(),
        5 => framing::fragmentation(),
        6 => unicode::all(),
        7 => closing::all(),
        9 => sizes::limits(),
        _ => sizes::autofragmentation(),
    }
}

/// What stands around the data of a message that Herald answers.
const BEFORE: &[u8] = br#"{"event":"pusher:ping","data":""#;
const AFTER: &[u8] = br#""}"#;

/// A text that Herald answers with exactly one `pusher:pong`.
fn message(data: &[u8]) -> Vec<u8> {
    [BEFORE, data, AFTER].concat()
}

/// A text of `length` octets that Herald answers with exactly one `pusher:pong`.
fn message_of(length: usize) -> Vec<u8> {
    message(&vec![b'*'; length - BEFORE.len() - AFTER.len()])
}

/// The small text of many cases.
fn hello() -> Vec<u8> {
    wire::frame(TEXT, &message(b"Hello, world!"))
}

/// The suite's binary payload, `length` octets of it.
fn octets(length: usize) -> Vec<u8> {
    vec![0xfe; length]
}

/// One write for all frames.
fn together<const N: usize>(frames: [Vec<u8>; N]) -> Vec<Step> {
    vec![Step::Write(frames.concat())]
}

/// A write for each frame.
fn one_by_one(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Step> {
    frames.into_iter().map(Step::Write).collect()
}

/// A write for each `size` octets.
fn chopped(octets: &[u8], size: usize) -> Vec<Step> {
    octets.chunks(size).map(|chop| Step::Write(chop.to_vec())).collect()
}
