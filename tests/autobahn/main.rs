//! The cases of the Autobahn WebSocket test suite, by their numbers, against the real binary.
//!
//! Herald does not echo, so a text is a `pusher:ping` of the wanted size and shape, and one `pusher:pong` proves that it was read
//! whole; Herald takes no binary messages, so those end with 1003. What each case sends and what must come back is a row of
//! [`cases`]; docs/autobahn.md is written from the rows (`HERALD_WRITE_DOCS=1`), and compared with them otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers included")]

mod case;
mod cases;
mod herald;
mod wire;

use std::fmt::Write as _;

use case::Verdict;
use herald::Herald;

#[test]
fn group_1_framing() {
    prove(1);
}

#[test]
fn group_2_pings_and_pongs() {
    prove(2);
}

#[test]
fn group_3_reserved_bits() {
    prove(3);
}

#[test]
fn group_4_opcodes() {
    prove(4);
}

#[test]
fn group_5_fragmentation() {
    prove(5);
}

#[test]
fn group_6_utf8() {
    prove(6);
}

#[test]
fn group_7_close_handling() {
    prove(7);
}

#[test]
fn group_9_limits_and_performance() {
    prove(9);
}

#[test]
fn group_10_autofragmentation() {
    prove(10);
}

fn prove(group: u8) {
    let herald = Herald::start();
    let mut failures = Vec::new();
    for case in cases::of_group(group) {
        if let Err(failure) = case.prove(&herald) {
            failures.push(format!("{} {}: {}: {failure}", case.number, case.sends, case.expected));
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/autobahn.md");
    let page = page();
    if std::env::var_os("HERALD_WRITE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == page, "docs/autobahn.md is out of date: run the tests with HERALD_WRITE_DOCS=1");
}

fn page() -> String {
    let groups = cases::GROUPS.map(|(group, title)| (group, title, cases::of_group(group)));
    let verdicts = || groups.iter().flat_map(|(_, _, cases)| cases).map(|case| case.verdict);
    let count = |verdict| verdicts().filter(|found| *found == verdict).count();
    let mut page = format!(
        "# Does Herald keep to the WebSocket standard?

The cases of the [Autobahn test suite](https://github.com/crossbario/autobahn-testsuite), run with every `make test` against the
real binary (`tests/autobahn`), which also compares this page: {} cases pass, {} of them OK, {} non-strict, {} informational.

The suite expects an echo. Herald speaks a protocol of its own, so

- a text is a `pusher:ping` of the size and shape that the case wants, and exactly one `pusher:pong` says that it was read whole;
  a text that is no JSON gets `pusher:error`, and the connection lives on;
- a binary message ends the connection with 1003: the cases in which the suite expects its echo prove the refusal;
- *lives on* means that our close with 1000 is then answered with the same; *failed with* and *closed with* name the code of
  Herald's one close frame, behind which Herald ends the stream first.

*Non-strict* means right, but later than the suite likes it: a frame is looked at when it is complete. 3.6 sends the ping that the
case is named after, where the suite sends a binary message. Groups 12 and 13 do not apply: Herald negotiates no compression.
",
        verdicts().count(),
        count(Verdict::Ok),
        count(Verdict::NonStrict),
        count(Verdict::Informational),
    );
    for (group, title, cases) in &groups {
        write!(page, "\n## {group} {title}\n\n| case | sends | Herald | result |\n|---|---|---|---|\n").unwrap();
        for case in cases {
            writeln!(page, "| {} | {} | {} | {} |", case.number, case.sends, case.expected, case.verdict).unwrap();
        }
    }
    page
}
