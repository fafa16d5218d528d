//! An app's `.env`: names and values, read as the app itself reads them (section 9, trap 3).
//!
//! `NAME=value`, `export NAME=value`, comments, and values between a pair of quotes, which may go on over several lines. What stands
//! between quotes is taken as it is; nothing is expanded. A name alone says nothing, as for Docker.
//!
//! Always: an error names the line and never what stands there.

/// A line that cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Which, from 1 on.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub message: &'static str,
}

const EXPECTED: &str = "it must be NAME=value, a comment that begins with #, or empty";

/// The variables of a file, in its order, where a name that comes again counts again; and all lines that cannot be read.
#[must_use]
pub fn parse(text: &str) -> (Vec<(String, String)>, Vec<Unreadable>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let (mut variables, mut problems) = (Vec::new(), Vec::new());
    let (mut rest, mut line) = (text.as_str(), 1);
    while !rest.is_empty() {
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let mut lines = 1;
        let mut problem = |message| problems.push(Unreadable { line, message });
        match assignment(first) {
            Line::Nothing => {}
            Line::Unknown => problem(EXPECTED),
            Line::Assignment(name, value) => match value.chars().next().filter(|first| "\"'`".contains(*first)) {
                None => variables.push((name.to_owned(), without_comment(value).to_owned())),
                Some(quote) => {
                    // Where the value begins in what is left of the file, for it may go on beyond its line.
                    let begin = first.len() - value.len() + quote.len_utf8();
                    let quoted = rest.get(begin..).and_then(|rest| until(quote, rest));
                    match quoted {
                        None => problem("the quote at the beginning of the value is not closed"),
                        Some((value, behind)) => {
                            lines += value.matches('\n').count();
                            if without_comment(behind).is_empty() {
                                variables.push((name.to_owned(), value.to_owned()));
                            } else {
                                problem("nothing but a comment may stand behind the quote that closes the value");
                            }
                        }
                    }
                }
            },
        }
        rest = after;
        for _ in 1..lines {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
        }
        line += lines;
    }
    (variables, problems)
}

enum Line<'a> {
    Nothing,
    Assignment(&'a str, &'a str),
    Unknown,
}

fn assignment(line: &str) -> Line<'_> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Line::Nothing;
    }
    let unexported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let line = unexported.unwrap_or(line).trim_start();
    let is_name = |name: &str| {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        plain && !name.is_empty()
    };
    match line.split_once('=') {
        Some((name, value)) if is_name(name.trim_end()) => Line::Assignment(name.trim_end(), value.trim_start()),
        None if is_name(line) => Line::Nothing,
        _ => Line::Unknown,
    }
}

/// What is in front of the quote that closes, and what is behind it in its line. In double quotes `\"` closes nothing.
fn until(quote: char, text: &str) -> Option<(&str, &str)> {
    let escapes = quote == '"';
    let mut is_escaped = false;
    let (end, _) = text.char_indices().find(|(_, character)| {
        let closes = *character == quote && !is_escaped;
        is_escaped = escapes && *character == '\\' && !is_escaped;
        closes
    })?;
    let behind = text.get(end + quote.len_utf8()..)?;
    Some((text.get(..end)?, behind.split_once('\n').map_or(behind, |(line, _)| line)))
}

/// A value without the comment behind it, which begins with a `#` after a space.
fn without_comment(value: &str) -> &str {
    let mut before = ' ';
    let begin = value.char_indices().find(|(_, character)| {
        let begins = *character == '#' && before.is_whitespace();
        before = *character;
        begins
    });
    begin.and_then(|(at, _)| value.get(..at)).unwrap_or(value).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_value_is_read() {
        for (text, expected) in [
            ("A=b", &[("A", "b")][..]),
            ("A=b\nB=c\n", &[("A", "b"), ("B", "c")]),
            ("A=b\r\nB=c\r\n", &[("A", "b"), ("B", "c")]),
            ("\u{feff}A=b", &[("A", "b")]),
            ("  A = b c  ", &[("A", "b c")]),
            ("A=", &[("A", "")]),
            ("A=\"\"", &[("A", "")]),
            ("export A=b\nexport\tB='c'\nexporter=d", &[("A", "b"), ("B", "c"), ("exporter", "d")]),
            (
                "# A=b\n\n   # B=c\nC=d # why\nD=e#f\nE=# why\nF='g' # why\nG=\"h # i\"",
                &[("C", "d"), ("D", "e#f"), ("E", ""), ("F", "g"), ("G", "h # i")],
            ),
            ("A=\"say \\\"hi\\\"\"", &[("A", "say \\\"hi\\\"")]),
            ("A=\"ends with \\\\\"", &[("A", "ends with \\\\")]),
            ("A='\\'", &[("A", "\\")]),
            ("A=`\"both\" 'quotes'`", &[("A", "\"both\" 'quotes'")]),
            ("A=it's\nB=a\"b\"", &[("A", "it's"), ("B", "a\"b\"")]),
            ("A=\" spaces \"", &[("A", " spaces ")]),
            ("A=\"one\ntwo\n\nthree\"\nB=c", &[("A", "one\ntwo\n\nthree"), ("B", "c")]),
            ("A='one\r\ntwo' # why\r\nB=c", &[("A", "one\ntwo"), ("B", "c")]),
            ("A=a=b==", &[("A", "a=b==")]),
            ("A=one\\ntwo", &[("A", "one\\ntwo")]),
            ("A=$B ${C}", &[("A", "$B ${C}")]),
            ("PATH\nexport HOME", &[]),
            ("A=first\nA=second", &[("A", "first"), ("A", "second")]),
            ("A=ä\nB=\"€\n\"", &[("A", "ä"), ("B", "€\n")]),
        ] {
            let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            assert_eq!(parse(text), (expected, Vec::new()), "{text:?}");
        }
    }

    #[test]
    fn every_line_that_is_wrong_is_told_by_its_number() {
        let text = "A=b\nnot this\n=c\nB=\"one\ntwo\" three\nC='d' # why\nmy name=e\nD=\"never\nclosed";
        let (variables, problems) = parse(text);
        assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [2, 3, 4, 7, 8]);
        assert_eq!(variables.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["A", "C"]);
    }
}
