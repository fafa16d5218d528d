//! Groups 9 and 10: large messages, and many. The app of these tests allows 20 MiB of data.

use super::{chopped, message, message_of, octets, one_by_one, together};
use crate::case::{Answer, Case, End, Step};
use crate::wire::{BINARY, TEXT, fragments, frame};

const KI: usize = 1 << 10;
const MI: usize = 1 << 20;
/// Messages of one case of 9.7, each sent when the one before is answered.
const ROUND_TRIPS: usize = 1_000;

/// Group 9.
pub(super) fn limits() -> Vec<Case> {
    let mut cases = Vec::new();
    let payload = |opcode, length| if opcode == TEXT { message_of(length) } else { octets(length) };
    let expected = |opcode| match opcode {
        TEXT => (vec![Answer::Read], End::Lives),
        _ => (vec![], End::Failed(1003)),
    };
    let mut add = |family: u8, number: u8, opcode: u8, sends: String, steps: Box<dyn Fn() -> Vec<Step>>| {
        let (answers, end) = expected(opcode);
        cases.push(Case::new(format!("9.{family}.{number}"), sends, steps, answers, end));
    };
    for (family, opcode, kind) in [(1, TEXT, "text"), (2, BINARY, "binary")] {
        for (length, number) in [64 * KI, 256 * KI, MI, 4 * MI, 8 * MI, 16 * MI].into_iter().zip(1..) {
            let sends = format!("{kind} of {}", shown(length));
            add(family, number, opcode, sends, Box::new(move || together([frame(opcode, &payload(opcode, length))])));
        }
    }
    for (family, opcode, kind) in [(3, TEXT, "text"), (4, BINARY, "binary")] {
        let sizes = [64, 256, KI, 4 * KI, 16 * KI, 64 * KI, 256 * KI, MI, 4 * MI];
        for (size, number) in sizes.into_iter().zip(1..) {
            let sends = format!("{kind} of 4 MiB in fragments of {}", shown(size));
            let steps = move || vec![Step::Write(fragments(opcode, &payload(opcode, 4 * MI), size).concat())];
            add(family, number, opcode, sends, Box::new(steps));
        }
    }
    for (family, opcode, kind) in [(5, TEXT, "text"), (6, BINARY, "binary")] {
        for (size, number) in [64, 128, 256, 512, KI, 2 * KI].into_iter().zip(1..) {
            let sends = format!("{kind} of 1 MiB, sent in chops of {}", shown(size));
            add(family, number, opcode, sends, Box::new(move || chopped(&frame(opcode, &payload(opcode, MI)), size)));
        }
    }
    for (length, number) in [0, 16, 64, 256, KI, 4 * KI].into_iter().zip(1..) {
        let sends = format!("{ROUND_TRIPS} texts with data of {}, one after the other's answer", shown(length));
        let steps = move || {
            let text = frame(TEXT, &message(&vec![b'*'; length]));
            (1..ROUND_TRIPS)
                .flat_map(|_| [Step::Write(text.clone()), Step::Await(Answer::Read)])
                .chain([Step::Write(text.clone())])
                .collect()
        };
        add(7, number, TEXT, sends, Box::new(steps));
    }
    for (length, number) in [0, 16, 64, 256, KI, 4 * KI].into_iter().zip(1..) {
        let sends = format!("binaries of {}; the first is the last", shown(length));
        add(8, number, BINARY, sends, Box::new(move || together([frame(BINARY, &octets(length))])));
    }
    cases
}

/// Group 10.
pub(super) fn autofragmentation() -> Vec<Case> {
    let steps = || one_by_one(fragments(TEXT, &message_of(65_536), 1_300));
    vec![Case::new("10.1.1", "text of 65536 octets in fragments of 1300", steps, [Answer::Read], End::Lives)]
}

fn shown(length: usize) -> String {
    match length {
        MI.. => format!("{} MiB", length / MI),
        KI.. => format!("{} KiB", length / KI),
        _ => format!("{length} octets"),
    }
}
