//! Groups 1 to 5: how frames are cut.

use std::slice::from_ref;

use super::{chopped, hello, message, message_of, octets, one_by_one, together};
use crate::case::{Answer, Case, End, Step};
use crate::wire::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, reserved, unfinished};

/// Group 1: the three forms of a frame's length.
pub(super) fn sizes() -> Vec<Case> {
    let empty = || together([frame(TEXT, b"")]);
    let mut cases = vec![Case::new("1.1.1", "empty text", empty, [Answer::NotJson], End::Lives)];
    for (number, length) in [(2, 125), (3, 126), (4, 127), (5, 128), (6, 65_535), (7, 65_536)] {
        let steps = move || together([frame(TEXT, &message_of(length))]);
        let sends = format!("text of {length} octets");
        cases.push(Case::new(format!("1.1.{number}"), sends, steps, [Answer::Read], End::Lives));
    }
    let steps = || chopped(&frame(TEXT, &message_of(65_536)), 997);
    let sends = "text of 65536 octets, sent in chops of 997 octets";
    cases.push(Case::new("1.1.8", sends, steps, [Answer::Read], End::Lives));
    for (number, length) in [(1, 0), (2, 125), (3, 126), (4, 127), (5, 128), (6, 65_535), (7, 65_536)] {
        let steps = move || together([frame(BINARY, &octets(length))]);
        let sends = format!("binary of {length} octets");
        cases.push(Case::new(format!("1.2.{number}"), sends, steps, [], End::Failed(1003)));
    }
    let steps = || chopped(&frame(BINARY, &octets(65_536)), 997);
    let sends = "binary of 65536 octets, sent in chops of 997 octets";
    cases.push(Case::new("1.2.8", sends, steps, [], End::Failed(1003)));
    cases
}

/// Group 2.
pub(super) fn pings() -> Vec<Case> {
    const UNSOLICITED: &[u8] = b"unsolicited pong payload";
    let noise = b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff";
    let tenfold = || (0..10).map(|number| format!("payload-{number}").into_bytes());
    let ten_pongs = || tenfold().map(Answer::Pong).collect::<Vec<_>>();
    let pong = |payload: &[u8]| [Answer::Pong(payload.to_vec())];
    vec![
        Case::new("2.1", "ping without payload", || together([frame(PING, b"")]), pong(b""), End::Lives),
        Case::new(
            "2.2",
            "ping with text",
            || together([frame(PING, b"Hello, world!")]),
            pong(b"Hello, world!"),
            End::Lives,
        ),
        Case::new(
            "2.3",
            "ping with octets that are no UTF-8",
            move || together([frame(PING, noise)]),
            pong(noise),
            End::Lives,
        ),
        Case::new(
            "2.4",
            "ping with 125 octets",
            || together([frame(PING, &octets(125))]),
            pong(&octets(125)),
            End::Lives,
        ),
        Case::new("2.5", "ping with 126 octets", || together([frame(PING, &octets(126))]), [], End::Failed(1002)),
        Case::new(
            "2.6",
            "ping with 125 octets, sent octet by octet",
            || chopped(&frame(PING, &octets(125)), 1),
            pong(&octets(125)),
            End::Lives,
        ),
        Case::new("2.7", "pong nobody asked for, without payload", || together([frame(PONG, b"")]), [], End::Lives),
        Case::new("2.8", "pong nobody asked for", || together([frame(PONG, UNSOLICITED)]), [], End::Lives),
        Case::new(
            "2.9",
            "pong nobody asked for, then ping",
            || together([frame(PONG, UNSOLICITED), frame(PING, b"ping payload")]),
            pong(b"ping payload"),
            End::Lives,
        ),
        Case::new(
            "2.10",
            "10 pings at once",
            move || vec![Step::Write(tenfold().flat_map(|payload| frame(PING, &payload)).collect())],
            ten_pongs(),
            End::Lives,
        ),
        Case::new(
            "2.11",
            "10 pings, sent octet by octet",
            move || tenfold().flat_map(|payload| chopped(&frame(PING, &payload), 1)).collect(),
            ten_pongs(),
            End::Lives,
        ),
    ]
}

/// Group 3.
pub(super) fn reserved_bits() -> Vec<Case> {
    let second = |bits| reserved(bits, TEXT, &message(b"Hello, world!"));
    let ping = || frame(PING, b"");
    let fails = End::Failed(1002);
    vec![
        Case::new("3.1", "text with RSV 1", move || together([second(1)]), [], fails),
        Case::new(
            "3.2",
            "text, text with RSV 2, ping",
            move || together([hello(), second(2), ping()]),
            [Answer::Read],
            fails,
        ),
        Case::new(
            "3.3",
            "text, text with RSV 3, ping, sent frame by frame",
            move || one_by_one([hello(), second(3), ping()]),
            [Answer::Read],
            fails,
        ),
        Case::new(
            "3.4",
            "text, text with RSV 4, ping, sent octet by octet",
            move || chopped(&[hello(), second(4), ping()].concat(), 1),
            [Answer::Read],
            fails,
        ),
        Case::new(
            "3.5",
            "binary with RSV 5",
            || together([reserved(5, BINARY, b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff")]),
            [],
            fails,
        ),
        Case::new("3.6", "ping with RSV 6", || together([reserved(6, PING, b"Hello, world!")]), [], fails),
        Case::new("3.7", "close with RSV 7", || together([reserved(7, CLOSE, b"")]), [], fails),
    ]
}

/// Group 4: the reserved opcodes, first of data frames, then of control frames.
pub(super) fn opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (family, first) in [("4.1", 3), ("4.2", 11)] {
        let fails = End::Failed(1002);
        let number = |number: u8| format!("{family}.{number}");
        let sends = |before: &str, position: u8, after: &str| format!("{before}opcode {}{after}", first + position);
        let unknown = move |position: u8, payload: &[u8]| frame(first + position, payload);
        let between =
            move |position, payload: &'static [u8]| move || [hello(), unknown(position, payload), frame(PING, b"")];
        cases.extend([
            Case::new(number(1), sends("", 0, ""), move || together([unknown(0, b"")]), [], fails),
            Case::new(
                number(2),
                sends("", 1, " with payload"),
                move || together([unknown(1, b"reserved opcode payload")]),
                [],
                fails,
            ),
            Case::new(
                number(3),
                sends("text, ", 2, ", ping"),
                move || together(between(2, b"")()),
                [Answer::Read],
                fails,
            ),
            Case::new(
                number(4),
                sends("text, ", 3, " with payload, ping"),
                move || together(between(3, b"Hello, world!")()),
                [Answer::Read],
                fails,
            ),
            Case::new(
                number(5),
                sends("text, ", 4, " with payload, ping, sent octet by octet"),
                move || chopped(&between(4, b"Hello, world!")().concat(), 1),
                [Answer::Read],
                fails,
            ),
        ]);
    }
    cases
}

/// A frame of a case of group 5: opcode, whether it is the last of its message, payload.
type Fragment = (u8, bool, Vec<u8>);

const ENDS: bool = true;
const GOES_ON: bool = false;

/// Group 5.
pub(super) fn fragmentation() -> Vec<Case> {
    const FAILS: End = End::Failed(1002);
    let whole = message(b"fragment1fragment2");
    let (begin, end) = whole.split_at(whole.len() / 2);
    let halves: [Fragment; 2] = [(TEXT, GOES_ON, begin.to_vec()), (CONTINUATION, ENDS, end.to_vec())];
    let [first, last] = halves.clone();
    let text: Fragment = (TEXT, ENDS, message(b"Hello, world!"));
    let ping: Fragment = (PING, ENDS, b"ping payload".to_vec());
    let of_nothing = |ends| (CONTINUATION, ends, b"non-continuation payload".to_vec());
    let control = |opcode| [(opcode, GOES_ON, b"fragment1".to_vec()), (CONTINUATION, ENDS, b"fragment2".to_vec())];
    let twice = |frames: Vec<Fragment>| [frames.clone(), frames].concat();
    let (pong, read) = (Answer::Pong(ping.2.clone()), Answer::Read);

    let mut cases = Vec::new();
    let mut add = |sends: &str, frames: &[Fragment], answers: &[Answer], end, chops: &[Chop]| {
        for &chop in chops {
            let (number, frames) = (cases.len() + 1, frames.to_vec());
            let sends = format!("{sends}{chop}");
            cases.push(Case::new(format!("5.{number}"), sends, move || chop.steps(&frames), answers, end));
        }
    };
    let (once, each) = ([Chop::Together], [Chop::Together, Chop::Frames, Chop::Octets]);
    add("ping in 2 fragments", &control(PING), &[], FAILS, &once);
    add("pong in 2 fragments", &control(PONG), &[], FAILS, &once);
    add("text in 2 fragments", &halves, from_ref(&read), End::Lives, &each);
    let pinged = [first.clone(), ping, last.clone()];
    add("text in 2 fragments, a ping between them", &pinged, &[pong, read.clone()], End::Lives, &each);
    add("continuation of nothing, then text", &[of_nothing(ENDS), text.clone()], &[], FAILS, &each);
    add("unfinished continuation of nothing, then text", &[of_nothing(GOES_ON), text.clone()], &[], FAILS, &each);
    let behind = [first.clone(), last.clone(), of_nothing(GOES_ON), text];
    add("text in 2 fragments, unfinished continuation of nothing, text", &behind, &[read], FAILS, &once);
    let unfinished = twice(vec![of_nothing(GOES_ON), first.clone(), last.clone()]);
    add("twice: unfinished continuation of nothing, text in 2 fragments", &unfinished, &[], FAILS, &once);
    let finished = twice(vec![of_nothing(ENDS), first.clone(), last.clone()]);
    add("twice: continuation of nothing, text in 2 fragments", &finished, &[], FAILS, &once);
    let two_beginnings = [first, (TEXT, ENDS, last.2)];
    add("text in 2 fragments, both with the opcode of text", &two_beginnings, &[], FAILS, &once);
    for chop in [Chop::Together, Chop::Frames] {
        let number = cases.len() + 1;
        let sends = format!(
            "text in 5 fragments, a ping after the 2nd and the 4th; it goes on when the first is answered{chop}"
        );
        let answers = [Answer::Pong(b"pongme 2!".to_vec()), Answer::Read];
        cases.push(Case::new(format!("5.{number}"), sends, move || pings_between(chop), answers, End::Lives));
    }
    cases
}

fn pings_between(chop: Chop) -> Vec<Step> {
    let text = message(b"fragment1fragment2fragment3fragment4fragment5");
    let mut parts = text.chunks(text.len().div_ceil(5)).map(<[u8]>::to_vec);
    let mut next = |opcode, ends| (opcode, ends, parts.next().unwrap_or_default());
    let begin = [next(TEXT, GOES_ON), next(CONTINUATION, GOES_ON), (PING, ENDS, b"pongme 1!".to_vec())];
    let rest = [
        next(CONTINUATION, GOES_ON),
        next(CONTINUATION, GOES_ON),
        (PING, ENDS, b"pongme 2!".to_vec()),
        next(CONTINUATION, ENDS),
    ];
    let mut steps = chop.steps(&begin);
    steps.push(Step::Await(Answer::Pong(b"pongme 1!".to_vec())));
    steps.extend(chop.steps(&rest));
    steps
}

/// How frames are cut into writes.
#[derive(Clone, Copy)]
enum Chop {
    Together,
    Frames,
    Octets,
}

impl Chop {
    fn steps(self, frames: &[Fragment]) -> Vec<Step> {
        let frames = frames.iter().map(|(opcode, ends, payload)| match ends {
            true => frame(*opcode, payload),
            false => unfinished(*opcode, payload),
        });
        match self {
            Self::Together => vec![Step::Write(frames.flatten().collect())],
            Self::Frames => one_by_one(frames),
            Self::Octets => chopped(&frames.flatten().collect::<Vec<_>>(), 1),
        }
    }
}

impl std::fmt::Display for Chop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Together => "",
            Self::Frames => ", sent frame by frame",
            Self::Octets => ", sent octet by octet",
        })
    }
}
