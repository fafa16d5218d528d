//! Answers that are remembered, so that a repeated request gets the first one (section 4.2, `Idempotency-Key`).
//!
//! Always: a key is running, answered or unknown; whoever runs holds a [`Turn`], and when that is dropped without an answer the key is
//! unknown again, so that one of those who wait gets the next turn. Keys and requests are remembered as digests, so they take the same
//! memory whatever their size.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

/// How long an answer is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Keys that are remembered for one app, and bytes of their answers.
const MAX_KEYS: usize = 100_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Characters of a key.
pub const MAX_LENGTH: usize = 255;

/// Why a key cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrepeatable {
    /// The header is no key.
    #[error("`Idempotency-Key` must be one value of 1 to {MAX_LENGTH} visible ASCII characters")]
    InvalidKey,
    /// The key belongs to another request.
    #[error("this `Idempotency-Key` was used for a request with another body or other parameters")]
    OtherRequest,
    /// The first one takes long.
    #[error("the first request with this `Idempotency-Key` is still running after {0:?}")]
    StillRunning(Duration),
    /// No more can be remembered.
    #[error(
        "as many `Idempotency-Key`s as are remembered ({MAX_KEYS} or 64 MiB of answers) were used within {REMEMBERED:?}"
    )]
    TooManyKeys {
        /// When the oldest is forgotten.
        wait: Duration,
    },
}

/// What a key or a request is remembered as.
pub type Digest = [u8; 32];

/// Each part counts with its length, so that no two lists of parts are the same bytes.
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// The answers that one app's backends may ask for again.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    entries: HashMap<Digest, Entry>,
    /// The answered ones, the oldest first.
    expiry: VecDeque<(Instant, Digest)>,
    /// Bytes of all answers.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    request: Digest,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Closes when the turn is over.
    Running(watch::Receiver<()>),
    Answered(Bytes),
}

/// What a request with a key is.
pub enum Claim<'a> {
    /// It does: nobody has asked before.
    First(Turn<'a>),
    /// It gets the first one's answer.
    Repeat(Bytes),
}

/// What a key is found to be.
enum Found {
    Unknown(watch::Sender<()>),
    Running(watch::Receiver<()>),
    Answered(Bytes),
}

/// The right to answer for a key; dropped without an answer, it passes on.
pub struct Turn<'a> {
    answers: &'a Answers,
    scope: Digest,
    _over: watch::Sender<()>,
}

impl Answers {
    /// Asks to run `request` under the key `scope`; a repeat waits `within` that time for the first.
    ///
    /// # Errors
    /// See [`Unrepeatable`].
    pub async fn claim(&self, scope: Digest, request: Digest, within: Duration) -> Result<Claim<'_>, Unrepeatable> {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let found = self.0.lock().find(scope, request, Instant::now())?;
            let mut running = match found {
                Found::Unknown(over) => return Ok(Claim::First(Turn { answers: self, scope, _over: over })),
                Found::Answered(answer) => return Ok(Claim::Repeat(answer)),
                Found::Running(running) => running,
            };
            // It never changes, it only closes.
            if tokio::time::timeout_at(deadline, running.changed()).await.is_err() {
                return Err(Unrepeatable::StillRunning(within));
            }
        }
    }
}

impl Remembered {
    fn find(&mut self, scope: Digest, request: Digest, now: Instant) -> Result<Found, Unrepeatable> {
        self.forget(now);
        match self.entries.get(&scope) {
            Some(entry) if entry.request != request => Err(Unrepeatable::OtherRequest),
            Some(Entry { state: State::Answered(answer), .. }) => Ok(Found::Answered(answer.clone())),
            Some(Entry { state: State::Running(running), .. }) => Ok(Found::Running(running.clone())),
            None if self.entries.len() >= MAX_KEYS || self.bytes >= MAX_BYTES => {
                let wait = self.expiry.front().map(|(until, _)| *until - now);
                Err(Unrepeatable::TooManyKeys { wait: wait.unwrap_or_default() })
            }
            None => {
                let (over, running) = watch::channel(());
                self.entries.insert(scope, Entry { request, state: State::Running(running) });
                Ok(Found::Unknown(over))
            }
        }
    }

    fn answered(&mut self, scope: Digest, answer: Bytes, now: Instant) {
        let Some(entry) = self.entries.get_mut(&scope) else { return };
        self.bytes += answer.len();
        self.expiry.push_back((now + REMEMBERED, scope));
        entry.state = State::Answered(answer);
    }

    fn forget(&mut self, now: Instant) {
        while let Some((until, scope)) = self.expiry.front()
            && *until <= now
        {
            if let Some(Entry { state: State::Answered(answer), .. }) = self.entries.remove(scope) {
                self.bytes -= answer.len();
            }
            self.expiry.pop_front();
        }
    }
}

impl Turn<'_> {
    /// Remembers the answer for those who repeat the request.
    pub fn answered(self, answer: &Bytes) {
        self.answers.0.lock().answered(self.scope, answer.clone(), Instant::now());
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut remembered = self.answers.0.lock();
        if matches!(remembered.entries.get(&self.scope), Some(Entry { state: State::Running(_), .. })) {
            remembered.entries.remove(&self.scope);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const DEADLINE: Duration = Duration::from_secs(10);

    fn number(number: usize) -> Digest {
        digest([&number.to_be_bytes()[..]])
    }

    async fn first(answers: &Answers, key: usize) -> Turn<'_> {
        match answers.claim(number(key), number(1), SOON).await {
            Ok(Claim::First(turn)) => turn,
            _ => panic!("the key {key} is known"),
        }
    }

    async fn refused(answers: &Answers, key: usize, request: usize) -> Option<Unrepeatable> {
        answers.claim(number(key), number(request), SOON).await.err()
    }

    #[tokio::test]
    async fn a_repeat_waits_for_the_first_but_not_for_ever() {
        let answers = Answers::default();
        let turn = first(&answers, 0).await;
        assert_eq!(refused(&answers, 0, 1).await, Some(Unrepeatable::StillRunning(SOON)));
        assert_eq!(refused(&answers, 0, 2).await, Some(Unrepeatable::OtherRequest));
        let repeat = answers.claim(number(0), number(1), DEADLINE);
        let answer = Bytes::from_static(b"{}");
        let (repeat, ()) = tokio::join!(repeat, async { turn.answered(&answer) });
        assert!(matches!(repeat, Ok(Claim::Repeat(repeated)) if repeated == answer));
        assert_eq!(refused(&answers, 0, 2).await, Some(Unrepeatable::OtherRequest));
    }

    #[tokio::test]
    async fn a_turn_that_ends_without_an_answer_passes_on() {
        let answers = Answers::default();
        let turn = first(&answers, 0).await;
        let waiting = answers.claim(number(0), number(1), DEADLINE);
        let (next, ()) = tokio::join!(waiting, async { drop(turn) });
        assert!(matches!(next, Ok(Claim::First(_))));
        drop(next);
        drop(first(&answers, 0).await);
        assert!(answers.0.lock().entries.is_empty());
    }

    #[test]
    fn answers_are_forgotten_after_ten_minutes() {
        let (mut remembered, start) = (Remembered::default(), Instant::now());
        let turn = remembered.find(number(0), number(1), start);
        assert!(matches!(turn, Ok(Found::Unknown(_))));
        remembered.answered(number(0), Bytes::from_static(b"{}"), start);
        let mut at = |millis| remembered.find(number(0), number(1), start + Duration::from_millis(millis));
        assert!(matches!(at(599_999), Ok(Found::Answered(_))));
        assert!(matches!(at(600_000), Ok(Found::Unknown(_))));
        assert_eq!((remembered.bytes, remembered.expiry.len(), remembered.entries.len()), (0, 0, 1));
    }

    #[test]
    fn memory_is_bounded() {
        let (mut remembered, start) = (Remembered::default(), Instant::now());
        for key in 0..MAX_KEYS {
            assert!(remembered.find(number(key), number(1), start).is_ok());
            remembered.answered(number(key), Bytes::from_static(b"{}"), start);
        }
        let wait = Duration::from_secs(599);
        let too_many = remembered.find(number(MAX_KEYS), number(1), start + Duration::from_secs(1)).err();
        assert_eq!(too_many, Some(Unrepeatable::TooManyKeys { wait }));
        assert!(matches!(remembered.find(number(7), number(1), start), Ok(Found::Answered(_))), "known keys go on");
        assert!(matches!(remembered.find(number(MAX_KEYS), number(1), start + REMEMBERED), Ok(Found::Unknown(_))));

        let mut remembered = Remembered::default();
        assert!(remembered.find(number(0), number(1), start).is_ok());
        remembered.answered(number(0), vec![b' '; MAX_BYTES].into(), start);
        assert!(matches!(remembered.find(number(1), number(1), start), Err(Unrepeatable::TooManyKeys { .. })));
    }
}
