//! Group 7: how a connection is closed.

use super::{hello, message, message_of, together};
use crate::case::{Answer, Case, End, Verdict};
use crate::wire::{CLOSE, CONTINUATION, PING, TEXT, close, frame, unfinished};

pub(super) fn all() -> Vec<Case> {
    let normal = || close(1000, b"");
    let answered = End::Answered(Some(1000));
    let fragments = || {
        let text = message(b"fragment1fragment2");
        let (begin, end) = text.split_at(40);
        [unfinished(TEXT, begin), frame(CONTINUATION, end)]
    };
    let mut cases = vec![
        Case::new("7.1.1", "text, then close", move || together([hello(), normal()]), [Answer::Read], answered),
        Case::new("7.1.2", "two closes", move || together([normal(), frame(CLOSE, b"")]), [], answered),
        Case::new("7.1.3", "ping after close", move || together([normal(), frame(PING, b"")]), [], answered),
        Case::new("7.1.4", "text after close", move || together([normal(), hello()]), [], answered),
        Case::new(
            "7.1.5",
            "fragment, close, last fragment",
            move || {
                let [begin, end] = fragments();
                together([begin, normal(), end])
            },
            [],
            answered,
        ),
        Case::new(
            "7.1.6",
            "text of 256 KiB, text, close, ping",
            move || together([frame(TEXT, &message_of(256 << 10)), hello(), normal(), frame(PING, b"")]),
            [Answer::Read, Answer::Read],
            answered,
        )
        .with(Verdict::Informational),
        Case::new("7.3.1", "close without payload", || together([frame(CLOSE, b"")]), [], End::Answered(None)),
        Case::new("7.3.2", "close with 1 octet", || together([frame(CLOSE, b"a")]), [], End::Failed(1002)),
        Case::new("7.3.3", "close with code", move || together([normal()]), [], answered),
        Case::new("7.3.4", "close with code and reason", || together([close(1000, b"Hello World!")]), [], answered),
        Case::new("7.3.5", "close with a reason of 123 octets", || together([close(1000, &[b'*'; 123])]), [], answered),
        Case::new(
            "7.3.6",
            "close with a reason of 124 octets",
            || together([close(1000, &[b'*'; 124])]),
            [],
            End::Failed(1002),
        ),
        Case::new(
            "7.5.1",
            "close with a reason that is no UTF-8",
            || together([close(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited")]),
            [],
            End::Failed(1007),
        ),
    ];
    let valid = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
    let invalid = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
    let with_code = |number: String, code: u16, end| {
        Case::new(number, format!("close with code {code}"), move || together([close(code, b"")]), [], end)
    };
    for (code, number) in valid.into_iter().zip(1..) {
        cases.push(with_code(format!("7.7.{number}"), code, End::Answered(Some(code))));
    }
    for (code, number) in invalid.into_iter().zip(1..) {
        cases.push(with_code(format!("7.9.{number}"), code, End::Failed(1002)));
    }
    for (code, number) in [5000, 65_535].into_iter().zip(1..) {
        let case = with_code(format!("7.13.{number}"), code, End::Failed(1002));
        cases.push(case.with(Verdict::Informational));
    }
    cases
}
