//! `Idempotency-Key` (section 4.2): a request that is repeated gets the first answer and changes nothing again.
//!
//! [`once`] wraps whatever changes something; what was answered is remembered in the app's [`crate::answers::Answers`], and by
//! the cluster for other nodes.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::pusher::Answer;
use super::pusher::auth::Signed;
use crate::answers::{Claim, Digest, MAX_LENGTH, Unrepeatable, digest};
use crate::cluster::Cluster;

/// How long a repeat waits for the first.
const WAIT: Duration = Duration::from_secs(10);

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// What a request that changes something is answered with 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// JSON, encoded.
    pub json: Bytes,
    /// It was done before, and not again.
    pub is_repeat: bool,
}

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        let replayed = self.is_repeat.then(|| [(REPLAYED, HeaderValue::from_static("true"))]);
        (replayed, Answer(self.json)).into_response()
    }
}

/// Answers with what `work` answers, or if the request says that it is a repeat, with what the first one was answered, by whichever node.
///
/// # Errors
/// Those of `work`, which are not remembered, and [`Unrepeatable`].
pub async fn once(
    cluster: &dyn Cluster,
    signed: &Signed,
    work: impl Future<Output = Result<Answer, ApiError>>,
) -> Result<Answered, ApiError> {
    let first = |answer: Answer| Answered { json: answer.0, is_repeat: false };
    let Some(scope) = scope(signed)? else { return work.await.map(first) };
    let parameters = signed.parameters.iter().flat_map(|(name, value)| [name, value]).map(str::as_bytes);
    let request = digest(parameters.chain([&*signed.body]));
    let answer = match signed.app.answers.claim(scope, request, WAIT).await? {
        Claim::Repeat(answer) => answer,
        Claim::First(turn) => match cluster.claim(&signed.app, scope, request, WAIT).await? {
            Some(answer) => {
                turn.answered(&answer);
                answer
            }
            None => {
                let done = work.await;
                cluster.settle(&signed.app, scope, done.as_ref().ok().map(|answer| &answer.0)).await;
                let answer = done?;
                turn.answered(&answer.0);
                return Ok(first(answer));
            }
        },
    };
    Ok(Answered { json: answer, is_repeat: true })
}

/// What a request's `Idempotency-Key` stands for: itself on its route.
///
/// # Errors
/// When it is none.
pub fn scope(signed: &Signed) -> Result<Option<Digest>, Unrepeatable> {
    let key = key(&signed.head.headers)?;
    Ok(key.map(|key| digest([signed.head.uri.path(), key].map(str::as_bytes))))
}

/// The key of a request, if it has one.
fn key(headers: &HeaderMap) -> Result<Option<&str>, Unrepeatable> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let valid = (1..=MAX_LENGTH).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(key) if valid && values.next().is_none() => Ok(Some(key)),
        _ => Err(Unrepeatable::InvalidKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_may_be() {
        let key_of = |values: &[&str]| {
            let headers = values.iter().map(|value| (KEY, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
            key(&headers.collect()).map(|key| key.map(str::to_owned))
        };
        let longest = "k".repeat(255);
        assert_eq!(key_of(&[]), Ok(None));
        assert_eq!(key_of(&["!~"]), Ok(Some("!~".to_owned())));
        assert_eq!(key_of(&[&longest]), Ok(Some(longest.clone())));
        for wrong in [&[""][..], &["a b"], &["é"], &[&"k".repeat(256)], &["a", "a"]] {
            assert_eq!(key_of(wrong), Err(Unrepeatable::InvalidKey), "{wrong:?}");
        }
    }
}
