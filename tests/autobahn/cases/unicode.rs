//! Group 6: text must be UTF-8. The sequences are those of Markus Kuhn's decoder test.
//!
//! Valid ones stand in the data of a message that Herald answers; invalid ones are the whole message, as the suite sends them.

use std::ops::Range;

use super::{message, one_by_one, together};
use crate::case::{Answer, Case, End, Step, Verdict};
use crate::wire::{CONTINUATION, PING, TEXT, fragments, frame, unfinished};

/// κόσμε with the accent of the decoder test, U+1F79 in 3 octets; each of the invalid messages begins with it.
const COSMOS: &[u8] = "κ\u{1f79}σμε".as_bytes();
const EDITED: &[u8] = b"edited";
/// A surrogate, which UTF-8 does not encode.
const SURROGATE: &[u8] = b"\xed\xa0\x80";
/// U+110000, one past the last.
const BEYOND: &[u8] = b"\xf4\x90\x80\x80";
const GREETING: &str = "Hello-µ@ßöäüàá-UTF-8!!";

pub(super) fn all() -> Vec<Case> {
    let mut cases = Vec::from(empty_fragments());
    cases.extend(valid_in_fragments());
    cases.extend(invalid_in_fragments());
    cases.extend(sequences());
    cases
}

fn empty_fragments() -> [Case; 3] {
    let around = |middle: Vec<u8>| {
        together([unfinished(TEXT, b""), unfinished(CONTINUATION, &middle), frame(CONTINUATION, b"")])
    };
    [
        Case::new("6.1.1", "empty text", || together([frame(TEXT, b"")]), [Answer::NotJson], End::Lives),
        Case::new("6.1.2", "3 empty fragments", move || around(Vec::new()), [Answer::NotJson], End::Lives),
        Case::new(
            "6.1.3",
            "3 fragments, the first and the last empty",
            move || around(message(b"middle frame payload")),
            [Answer::Read],
            End::Lives,
        ),
    ]
}

fn valid_in_fragments() -> [Case; 4] {
    let greeting = || message(GREETING.as_bytes());
    let octet_by_octet = |text: Vec<u8>| one_by_one(fragments(TEXT, &text, 1));
    let at_a_boundary = move || {
        let (begin, end) = GREETING.split_at("Hello-µ@ßöä".len());
        let (begin, end) = (message(begin.as_bytes()), message(end.as_bytes()));
        let (begin, end) = (begin.strip_suffix(super::AFTER), end.strip_prefix(super::BEFORE));
        together([unfinished(TEXT, begin.unwrap_or_default()), frame(CONTINUATION, end.unwrap_or_default())])
    };
    let whole = move || together([frame(TEXT, &greeting())]);
    let read = || [Answer::Read];
    [
        Case::new("6.2.1", "valid UTF-8", whole, read(), End::Lives),
        Case::new("6.2.2", "valid UTF-8 in 2 fragments, cut between characters", at_a_boundary, read(), End::Lives),
        Case::new(
            "6.2.3",
            "valid UTF-8 in fragments of 1 octet",
            move || octet_by_octet(greeting()),
            read(),
            End::Lives,
        ),
        Case::new(
            "6.2.4",
            "κόσμε in fragments of 1 octet",
            move || octet_by_octet(message(COSMOS)),
            read(),
            End::Lives,
        ),
    ]
}

fn invalid_in_fragments() -> [Case; 6] {
    let surrogate = || [COSMOS, SURROGATE, EDITED].concat();
    let beyond = || [COSMOS, BEYOND, EDITED].concat();
    // That the first frame was accepted shows in the pong; that the second fails at once, in what is not waited for.
    let in_frames = move |cut: Range<usize>| {
        move || {
            let text = beyond();
            let part = |range: Range<usize>| text.get(range).unwrap_or_default();
            let begin = [unfinished(TEXT, part(0..cut.start)), frame(PING, b"accepted")].concat();
            let invalid = [unfinished(CONTINUATION, part(cut.clone())), frame(PING, b"never read")].concat();
            vec![Step::Write(begin), Step::Await(Answer::Pong(b"accepted".to_vec())), Step::Write(invalid)]
        }
    };
    let in_chops = move |cut: Range<usize>| {
        move || {
            let text = beyond();
            let mut chop = frame(TEXT, &text);
            let mut rest = chop.split_off(chop.len() - text.len() + cut.start);
            let end = rest.split_off(cut.len());
            one_by_one([chop, rest, end])
        }
    };
    let (begin, beyond_whole) = (COSMOS.len(), COSMOS.len()..COSMOS.len() + BEYOND.len());
    let beyond_octet = begin + 1..begin + 2;
    let fails = End::Failed(1007);
    [
        Case::new("6.3.1", "invalid UTF-8", move || together([frame(TEXT, &surrogate())]), [], fails),
        Case::new(
            "6.3.2",
            "invalid UTF-8 in fragments of 1 octet",
            move || one_by_one(fragments(TEXT, &surrogate(), 1)),
            [],
            fails,
        ),
        Case::new(
            "6.4.1",
            "3 fragments, the 2nd invalid UTF-8; the 3rd is never sent",
            in_frames(beyond_whole.clone()),
            [],
            fails,
        ),
        Case::new(
            "6.4.2",
            "the same, the 2nd fragment just the octet that makes it invalid",
            in_frames(beyond_octet.clone()),
            [],
            fails,
        ),
        Case::new("6.4.3", "as 6.4.1, but in 3 chops of one frame", in_chops(beyond_whole), [], fails)
            .with(Verdict::NonStrict),
        Case::new("6.4.4", "as 6.4.2, but in 3 chops of one frame", in_chops(beyond_octet), [], fails)
            .with(Verdict::NonStrict),
    ]
}

/// A section of the decoder test: title, valid sequences, invalid sequences.
type Section = (&'static str, Vec<Vec<u8>>, Vec<Vec<u8>>);

fn sequences() -> Vec<Case> {
    let mut cases = Vec::new();
    for ((title, valid, invalid), section) in sections().into_iter().zip(5..) {
        let valid = valid.into_iter().map(|octets| (octets, true));
        let invalid = invalid.into_iter().map(|octets| (octets, false));
        // The prefixes of a text are valid and invalid by turns; elsewhere the valid ones come first.
        let mut ordered: Vec<_> = valid.chain(invalid).collect();
        if section == 6 {
            ordered.sort_by_key(|(octets, _)| octets.len());
        }
        for ((octets, is_valid), position) in ordered.into_iter().zip(1..) {
            let shown: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            let sends = format!("{title}: `{shown}`");
            let (answers, end) = match is_valid {
                // JSON allows no control characters in a string, so the data is refused, but the text was read.
                true if octets.iter().any(|octet| *octet < 0x20) => (vec![Answer::NotJson], End::Lives),
                true => (vec![Answer::Read], End::Lives),
                false => (vec![], End::Failed(1007)),
            };
            let text = if is_valid { message(&octets) } else { octets };
            let steps = move || together([frame(TEXT, &text)]);
            cases.push(Case::new(format!("6.{section}.{position}"), sends, steps, answers, end));
        }
    }
    cases
}

fn sections() -> [Section; 19] {
    let list = |octets: &[&[u8]]| octets.iter().map(|octets| octets.to_vec()).collect::<Vec<_>>();
    let (valid_prefixes, invalid_prefixes) =
        (1..=COSMOS.len()).filter_map(|length| COSMOS.get(..length)).map(<[u8]>::to_vec).partition(|prefix| {
            [2, 5, 7, 9, 11].contains(&prefix.len()) // κ, ό, σ, μ, ε
        });
    let lonely = |range: Range<u8>| range.flat_map(|start| [start, b' ']).collect::<Vec<_>>();
    let cut = list(&[
        b"\xc0",
        b"\xe0\x80",
        b"\xf0\x80\x80",
        b"\xf8\x80\x80\x80",
        b"\xfc\x80\x80\x80\x80",
        b"\xdf",
        b"\xef\xbf",
        b"\xf7\xbf\xbf",
        b"\xfb\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf",
    ]);
    let last_of_planes = ["\u{fffe}", "\u{ffff}"].into_iter().map(|last| last.as_bytes().to_vec());
    let mut non_characters: Vec<_> = last_of_planes.collect();
    for first in 0xf0..=0xf4 {
        // Those left out would be overlong, or beyond the last plane.
        for second in [0x8f, 0x9f, 0xaf, 0xbf].into_iter().filter(|second| match first {
            0xf0 => *second != 0x8f,
            0xf4 => *second == 0x8f,
            _ => true,
        }) {
            non_characters.extend([0xbe, 0xbf].map(|last| vec![first, second, 0xbf, last]));
        }
    }
    let specials = ('\u{fff9}'..='\u{ffff}').map(|special| special.to_string().into_bytes()).collect();
    [
        (
            "correct UTF-8",
            list(&[
                "hello$world".as_bytes(),
                "hello¢world".as_bytes(),
                "hello€world".as_bytes(),
                "hello\u{24b62}world".as_bytes(),
                COSMOS,
            ]),
            vec![],
        ),
        ("prefix of κόσμε", valid_prefixes, invalid_prefixes),
        ("first of a length", list(&[b"\x00", b"\xc2\x80", b"\xe0\xa0\x80", b"\xf0\x90\x80\x80"]), vec![]),
        ("first of length 5 and 6", vec![], list(&[b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80"])),
        ("last of a length", list(&[b"\x7f", b"\xdf\xbf", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf"]), vec![]),
        (
            "last of length 4, 5 and 6",
            vec![],
            list(&[b"\xf7\xbf\xbf\xbf", b"\xfb\xbf\xbf\xbf\xbf", b"\xfd\xbf\xbf\xbf\xbf\xbf"]),
        ),
        (
            "other boundary",
            list(&[b"\xed\x9f\xbf", b"\xee\x80\x80", b"\xef\xbf\xbd", b"\xf4\x8f\xbf\xbf"]),
            list(&[BEYOND]),
        ),
        (
            "unexpected continuation",
            vec![],
            [
                list(&[
                    b"\x80",
                    b"\xbf",
                    b"\x80\xbf",
                    b"\x80\xbf\x80",
                    b"\x80\xbf\x80\xbf",
                    b"\x80\xbf\x80\xbf\x80",
                    b"\x80\xbf\x80\xbf\x80\xbf",
                ]),
                vec![(0x80..0xbf).collect()],
            ]
            .concat(),
        ),
        ("lonely start", vec![], [0xc0..0xdf, 0xe0..0xef, 0xf0..0xf7, 0xf8..0xfb, 0xfc..0xfd].map(lonely).to_vec()),
        ("last octet missing", vec![], cut.clone()),
        ("all of those together", vec![], vec![cut.concat()]),
        ("impossible octet", vec![], list(&[b"\xfe", b"\xff", b"\xfe\xfe\xff\xff"])),
        (
            "overlong /",
            vec![],
            list(&[
                b"\xc0\xaf",
                b"\xe0\x80\xaf",
                b"\xf0\x80\x80\xaf",
                b"\xf8\x80\x80\x80\xaf",
                b"\xfc\x80\x80\x80\x80\xaf",
            ]),
        ),
        (
            "largest overlong",
            vec![],
            list(&[
                b"\xc1\xbf",
                b"\xe0\x9f\xbf",
                b"\xf0\x8f\xbf\xbf",
                b"\xf8\x87\xbf\xbf\xbf",
                b"\xfc\x83\xbf\xbf\xbf\xbf",
            ]),
        ),
        (
            "overlong NUL",
            vec![],
            list(&[
                b"\xc0\x80",
                b"\xe0\x80\x80",
                b"\xf0\x80\x80\x80",
                b"\xf8\x80\x80\x80\x80",
                b"\xfc\x80\x80\x80\x80\x80",
            ]),
        ),
        (
            "surrogate",
            vec![],
            list(&[
                SURROGATE,
                b"\xed\xad\xbf",
                b"\xed\xae\x80",
                b"\xed\xaf\xbf",
                b"\xed\xb0\x80",
                b"\xed\xbe\x80",
                b"\xed\xbf\xbf",
            ]),
        ),
        (
            "surrogate pair",
            vec![],
            list(&[
                b"\xed\xa0\x80\xed\xb0\x80",
                b"\xed\xa0\x80\xed\xbf\xbf",
                b"\xed\xad\xbf\xed\xb0\x80",
                b"\xed\xad\xbf\xed\xbf\xbf",
                b"\xed\xae\x80\xed\xb0\x80",
                b"\xed\xae\x80\xed\xbf\xbf",
                b"\xed\xaf\xbf\xed\xb0\x80",
                b"\xed\xaf\xbf\xed\xbf\xbf",
            ]),
        ),
        ("non-character", non_characters, vec![]),
        ("special", specials, vec![]),
    ]
}
