//! What a case is, and what it takes to pass: the frames that come back are exactly those expected, in their order, up to the end.

use std::fmt;

use crate::herald::Herald;
use crate::wire::{self, Client, Received};

/// One case of the suite.
pub(crate) struct Case {
    /// Its number in the suite.
    pub(crate) number: String,
    /// What it sends, in words.
    pub(crate) sends: String,
    /// What it sends; made when it runs, since some is large.
    pub(crate) steps: Box<dyn Fn() -> Vec<Step>>,
    /// What must come back besides what the steps wait for.
    pub(crate) expected: Expected,
    /// What the suite would call the result.
    pub(crate) verdict: Verdict,
}

/// One thing that a case does.
pub(crate) enum Step {
    /// One write.
    Write(Vec<u8>),
    /// Wait for this to come, and nothing else before it.
    Await(Answer),
}

/// A frame that must come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `pusher:pong`: the text message was read, whole and once. It stands for the suite's echo.
    Read,
    /// `pusher:error` without a code: the text message was read, and it is no JSON.
    NotJson,
    /// A WebSocket pong.
    Pong(Vec<u8>),
}

/// What comes back: answers, and the end.
pub(crate) struct Expected {
    pub(crate) answers: Vec<Answer>,
    pub(crate) end: End,
}

/// How the connection ends; in each case Herald then ends the stream first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It lives: our close with 1000 is answered with the same.
    Lives,
    /// The close among what was sent is answered with this code (or, as it had none, with none).
    Answered(Option<u16>),
    /// Herald fails it with this code.
    Failed(u16),
}

/// The suite's words for a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    /// Right, though later than the suite likes it.
    NonStrict,
    /// The standard leaves it open.
    Informational,
}

impl Case {
    pub(crate) fn new(
        number: impl Into<String>,
        sends: impl Into<String>,
        steps: impl Fn() -> Vec<Step> + 'static,
        answers: impl Into<Vec<Answer>>,
        end: End,
    ) -> Self {
        let expected = Expected { answers: answers.into(), end };
        Self { number: number.into(), sends: sends.into(), steps: Box::new(steps), expected, verdict: Verdict::Ok }
    }

    pub(crate) fn with(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    /// Runs the case on a connection of its own.
    pub(crate) fn prove(&self, herald: &Herald) -> Result<(), String> {
        let mut client = Client::connect(herald.address);
        for step in (self.steps)() {
            match step {
                Step::Write(octets) => client.write(&octets),
                Step::Await(answer) => match client.receive() {
                    Ok(received) if answer.is(&received) => {}
                    other => return Err(format!("waited for {answer}, got {other:?}")),
                },
            }
        }
        for answer in &self.expected.answers {
            match client.receive() {
                Ok(received) if answer.is(&received) => {}
                other => return Err(format!("expected {answer}, got {other:?}")),
            }
        }
        let code = match self.expected.end {
            End::Lives => {
                client.write(&wire::close(1000, b""));
                Some(1000)
            }
            End::Answered(code) => code,
            End::Failed(code) => Some(code),
        };
        match client.receive() {
            Ok(Received::Close(received, _)) if received == code => {}
            other => return Err(format!("expected a close frame with {code:?}, got {other:?}")),
        }
        match client.receive() {
            Ok(Received::End) => Ok(()),
            other => Err(format!("expected the end of the stream, got {other:?}")),
        }
    }
}

impl Answer {
    fn is(&self, received: &Received) -> bool {
        match (self, received) {
            (Self::Read, Received::Text(text)) => text == r#"{"event":"pusher:pong","data":"{}"}"#,
            (Self::NotJson, Received::Text(text)) => {
                text.starts_with(r#"{"event":"pusher:error","data":{"code":null,"message":"invalid message: "#)
            }
            (Self::Pong(payload), Received::Pong(received)) => payload == received,
            _ => false,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "`pusher:pong`",
            Self::NotJson => "`pusher:error` (not JSON)",
            Self::Pong(payload) if payload.is_empty() => "pong",
            Self::Pong(_) => "pong with the ping's payload",
        })
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, same) in self.answers.chunk_by(|a, b| a.to_string() == b.to_string()).enumerate() {
            f.write_str(if position > 0 { ", " } else { "" })?;
            match same {
                [answer] => write!(f, "{answer}")?,
                several => write!(f, "{} × {}", several.len(), several[0])?,
            }
        }
        f.write_str(if self.answers.is_empty() { "" } else { ", " })?;
        match self.end {
            End::Lives => f.write_str("lives on"),
            End::Answered(Some(code)) => write!(f, "closed with {code}"),
            End::Answered(None) => f.write_str("closed without a code"),
            End::Failed(code) => write!(f, "failed with {code}"),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "OK",
            Self::NonStrict => "NON-STRICT",
            Self::Informational => "INFORMATIONAL",
        })
    }
}
