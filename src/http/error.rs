//! What a backend's request can fail with, and the one place where that becomes HTTP (section 4.1).

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_protocol::json::JsonError;
use herald_protocol::user::InvalidUserId;
use herald_protocol::{ChannelName, InvalidChannelName};

use super::limits::Exceeded;
use super::pusher::auth::AuthError;
use crate::answers::Unrepeatable;
use crate::cluster::{Unclaimed, Unpublished, Unreachable};

/// Why a request is refused; the text says what is wrong and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No app has the id of the path.
    #[error("no app has the id {0:?}")]
    UnknownApp(String),
    /// The app is disabled.
    #[error("the app {0:?} is disabled")]
    AppDisabled(String),
    /// Authentication failed.
    #[error(transparent)]
    Unauthorized(#[from] AuthError),
    /// The body is larger than any valid one.
    #[error("the request body has more than {0} bytes")]
    BodyTooLarge(usize),
    /// The body did not come in time.
    #[error("the request body did not arrive within {0:?}")]
    BodyTooSlow(Duration),
    /// The body ended before its announced end, or its chunks are none.
    #[error("the request body is incomplete")]
    BodyIncomplete,
    /// The body is not the JSON that it must be.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// A channel's name is none.
    #[error("channel {name:?}: {reason}")]
    Channel {
        /// The beginning of what stood there.
        name: String,
        /// The rule that it breaks.
        reason: InvalidChannelName,
    },
    /// A user's id is none.
    #[error("{0}")]
    User(#[from] InvalidUserId),
    /// A parameter has a value that is not allowed.
    #[error("{0}")]
    Parameter(String),
    /// An event's data is too large.
    #[error("`data` has {actual} bytes, {limit} are allowed")]
    EventTooLarge {
        /// Decoded size in bytes.
        actual: usize,
        /// What the app allows.
        limit: usize,
    },
    /// An event of a batch is wrong, so none was published.
    #[error("batch[{index}]: {error}")]
    InBatch {
        /// Its position, from 0.
        index: usize,
        /// What is wrong with it.
        error: Box<ApiError>,
    },
    /// There were too many wrong requests from the same address.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// The app's rate limit is reached.
    #[error("more than {limit} {what} a second; {limit} are allowed")]
    TooMany {
        /// What there was too much of.
        what: &'static str,
        /// What the app allows.
        limit: usize,
        /// How much later there may be more.
        wait: Duration,
    },
    /// An `Idempotency-Key` that cannot be honoured.
    #[error(transparent)]
    Unrepeatable(#[from] Unrepeatable),
    /// The server is short of CPU.
    #[error(transparent)]
    Overloaded(#[from] crate::hub::Overloaded),
    /// Other nodes cannot be asked or told.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// No such address.
    #[error("there is nothing at this address")]
    NotFound,
    /// The address is right, the method is not.
    #[error("this method is not allowed here")]
    MethodNotAllowed,
}

impl From<Unpublished> for ApiError {
    fn from(error: Unpublished) -> Self {
        match error {
            Unpublished::Overloaded(error) => Self::Overloaded(error),
            Unpublished::Unreachable(error) => Self::Unreachable(error),
        }
    }
}

impl From<Unclaimed> for ApiError {
    fn from(error: Unclaimed) -> Self {
        match error {
            Unclaimed::Unrepeatable(error) => Self::Unrepeatable(error),
            Unclaimed::Unreachable(error) => Self::Unreachable(error),
        }
    }
}

impl ApiError {
    /// Reads a channel's name as the app allows it; the error quotes it.
    ///
    /// # Errors
    /// [`ApiError::Channel`].
    pub fn channel(name: &str, max_len: usize) -> Result<ChannelName, Self> {
        ChannelName::parse(name, max_len)
            .map_err(|reason| Self::Channel { name: name.chars().take(64).collect(), reason })
    }

    /// The status that it is answered with.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        status(self)
    }

    /// After how many seconds another try makes sense.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        let wait = match self {
            Self::Exceeded(exceeded) => exceeded.retry_after,
            Self::TooMany { wait, .. } | Self::Unrepeatable(Unrepeatable::TooManyKeys { wait, .. }) => *wait,
            Self::Overloaded(_) | Self::Unreachable(_) | Self::Unrepeatable(Unrepeatable::StillRunning(_)) => {
                Duration::from_secs(1)
            }
            _ => return None,
        };
        Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1))
    }
}

/// Goes with the answer to a refused request: the reason, for the line in the log that `super::watch` writes.
#[derive(Clone, Debug)]
pub struct Refusal(pub String);

const fn status(error: &ApiError) -> StatusCode {
    match error {
        ApiError::UnknownApp(_) | ApiError::NotFound => StatusCode::NOT_FOUND,
        ApiError::AppDisabled(_) => StatusCode::FORBIDDEN,
        ApiError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        ApiError::BodyTooLarge(_) | ApiError::EventTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ApiError::BodyTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        ApiError::InBatch { error, .. } => status(error),
        ApiError::BodyIncomplete
        | ApiError::Json(_)
        | ApiError::Channel { .. }
        | ApiError::User(_)
        | ApiError::Parameter(_)
        | ApiError::Unrepeatable(Unrepeatable::InvalidKey) => StatusCode::BAD_REQUEST,
        ApiError::Unrepeatable(Unrepeatable::OtherRequest | Unrepeatable::StillRunning(_)) => StatusCode::CONFLICT,
        ApiError::Exceeded(_) | ApiError::TooMany { .. } | ApiError::Unrepeatable(Unrepeatable::TooManyKeys { .. }) => {
            StatusCode::TOO_MANY_REQUESTS
        }
        ApiError::Overloaded(_) | ApiError::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
        ApiError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = status(&self);
        let body = serde_json::json!({ "error": self.to_string(), "code": status.as_u16() });
        let mut response = (status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(self, Self::BodyTooLarge(_) | Self::BodyTooSlow(_) | Self::BodyIncomplete) {
            // What is left of the body would be taken for the next request.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.extensions_mut().insert(Refusal(self.to_string()));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_try_is_advised_in_whole_seconds_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
            let error = ApiError::TooMany { what: "events", limit: 1, wait: Duration::from_millis(millis) };
            assert_eq!(error.into_response().headers()["retry-after"], seconds.to_string(), "{millis} ms");
        }
        assert!(ApiError::NotFound.into_response().headers().get("retry-after").is_none());
    }

    #[test]
    fn an_event_of_a_batch_fails_as_it_would_alone() {
        let error = Box::new(ApiError::EventTooLarge { actual: 2, limit: 1 });
        let error = ApiError::InBatch { index: 3, error };
        assert_eq!(error.to_string(), "batch[3]: `data` has 2 bytes, 1 are allowed");
        assert_eq!(error.into_response().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
