//! What a backend's request can fail with, and the one place where that becomes HTTP (section 4.1).

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use herald_protocol::InvalidChannelName;
use herald_protocol::json::JsonError;

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
    #[error("{0}")]
    Unauthorized(String),
    /// The body is larger than any valid one.
    #[error("the request body has more than {0} bytes")]
    BodyTooLarge(usize),
    /// The body did not come in time.
    #[error("the request body did not arrive within {0:?}")]
    BodyTooSlow(std::time::Duration),
    /// The body is not the JSON that it must be.
    #[error("{0}")]
    Json(#[from] JsonError),
    /// A channel's name is none.
    #[error("{0}")]
    Channel(#[from] InvalidChannelName),
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
    /// The server is short of CPU.
    #[error(transparent)]
    Overloaded(#[from] crate::hub::Overloaded),
    /// No such address.
    #[error("there is nothing at this address")]
    NotFound,
    /// The address is right, the method is not.
    #[error("this method is not allowed here")]
    MethodNotAllowed,
}

const fn status(error: &ApiError) -> StatusCode {
    match error {
        ApiError::UnknownApp(_) | ApiError::NotFound => StatusCode::NOT_FOUND,
        ApiError::AppDisabled(_) => StatusCode::FORBIDDEN,
        ApiError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
        ApiError::BodyTooLarge(_) | ApiError::EventTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ApiError::BodyTooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        ApiError::Json(_) | ApiError::Channel(_) | ApiError::Parameter(_) => StatusCode::BAD_REQUEST,
        ApiError::Overloaded(_) => StatusCode::SERVICE_UNAVAILABLE,
        ApiError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = status(&self);
        tracing::info!(status = status.as_u16(), reason = %self, "request refused");
        let body = serde_json::json!({ "error": self.to_string(), "code": status.as_u16() });
        let retry = matches!(self, Self::Overloaded(_)).then_some([("retry-after", "1")]);
        (status, retry.map(axum::response::AppendHeaders), Json(body)).into_response()
    }
}
