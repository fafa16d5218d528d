//! The body of a request, bounded in size and time, also where it is of no use.
//!
//! Who refuses a request before its body was read closes the connection on bytes that are still coming, and the kernel then takes the
//! answer back with a reset. So what remains is read and thrown away first, as far as that is reasonable.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::header;
use axum::http::request;
use futures_util::poll;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::http::error::ApiError;

/// How much of a body that nobody wants is read, and for how long.
const SWALLOWED_BYTES: usize = 4 * 1024 * 1024;
const SWALLOWED_FOR: Duration = Duration::from_secs(2);

/// Reads a body of at most `limit` bytes that must be there `within` that time.
///
/// # Errors
/// When it is too large, too slow or incomplete.
pub async fn read(head: &request::Parts, mut body: Body, limit: usize, within: Duration) -> Result<Bytes, ApiError> {
    if body.size_hint().lower() > limit as u64 {
        swallow(head, body).await;
        return Err(ApiError::BodyTooLarge(limit));
    }
    let collected = {
        let mut collecting = pin!(Limited::new(&mut body, limit).collect());
        // Most bodies are there with their head; a timer is for those that are not.
        match poll!(collecting.as_mut()) {
            Poll::Ready(collected) => collected,
            Poll::Pending => {
                tokio::time::timeout(within, collecting).await.map_err(|_| ApiError::BodyTooSlow(within))?
            }
        }
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            throw_away(body).await;
            Err(ApiError::BodyTooLarge(limit))
        }
        Err(_) => Err(ApiError::BodyIncomplete),
    }
}

/// Reads a body away before its request is refused. A client that waits to be asked for it is not asked.
pub async fn swallow(head: &request::Parts, body: Body) {
    if !head.headers.contains_key(header::EXPECT) {
        throw_away(body).await;
    }
}

async fn throw_away(mut body: Body) {
    let all = async {
        let mut left = SWALLOWED_BYTES;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // What is still coming after that is the client's loss: it may see a reset in place of the answer.
    _ = tokio::time::timeout(SWALLOWED_FOR, all).await;
}
