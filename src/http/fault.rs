//! What a request to Herald's own API can fail with, and the one place where that becomes HTTP (sections 1.8 and 8.6):
//! `{"error":{"code","message","request_id"}}`.

use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header, request};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};
use uuid::Uuid;

use super::error::{ApiError, Refusal};
use super::limits::Exceeded;
use super::pusher::body;
use crate::accounts::AccountError;
use crate::parts::Parts;
use crate::store::StoreError;

/// After how long another try makes sense when something is away.
const AWAY: Duration = Duration::from_secs(5);

/// Why a request is refused; the text says what is wrong and what is allowed.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The request is none, or says something that is not allowed.
    #[error("{0}")]
    Invalid(String),
    /// The request does not say for which app it is, and there are several.
    #[error(
        "there are several apps: say which by the query parameter `app` or the header X-Herald-App, an id or a key"
    )]
    AppRequired,
    /// There is no such app.
    #[error("there is no such app")]
    UnknownApp,
    /// Nobody is signed in. Why a token is refused stands in the log, not in the answer.
    #[error("{}", if *.given { "the token is not valid" } else { "a token is required: Authorization: Bearer …" })]
    Unauthenticated {
        /// Whether there was a token.
        given: bool,
        /// For the log.
        reason: String,
    },
    /// Whoever it is may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// No such address.
    #[error("there is nothing at this address")]
    NotFound,
    /// The address is right, the method is not.
    #[error("this method is not allowed here; allowed are {0}")]
    Method(&'static str),
    /// The body is larger than any valid one.
    #[error("the request body has more than {0} bytes")]
    TooLarge(usize),
    /// The body did not come in time, or not whole.
    #[error("the request body is incomplete or did not arrive in time")]
    BodyIncomplete,
    /// The body is in no form that is read here.
    #[error("the content type must be {0}")]
    MediaType(&'static str),
    /// The keys that tokens are checked with cannot be loaded.
    #[error("tokens cannot be checked at the moment")]
    AuthUnavailable,
    /// The app does not say whether a channel is allowed. Why stands in the log.
    #[error("the app does not say whether this channel is allowed; try again")]
    AuthorizerUnavailable(String),
    /// A webhook is not the sender's. Why stands in the log.
    #[error("the signature is not right")]
    NotVerified(String),
    /// A notification is not the sender's, which knows that by 401. Why stands in the log.
    #[error("the signature is not right")]
    SignatureRefused(String),
    /// A hook is not the sender's, or about something else than what is configured. Why stands in the log.
    #[error("this is no hook for here")]
    HookRefused(String),
    /// The user has no conversation with the support.
    #[error("the user has no conversation with the support that Crisp has verified; nothing is sent")]
    NoConversation,
    /// Users and notifications are not kept here, or the database is away.
    #[error("the database cannot be reached; nothing was changed")]
    StoreUnavailable(String),
    /// The database has no room.
    #[error("the database has no room left; nothing was changed")]
    StoreFull(String),
    /// The id of the request is another one's.
    #[error("this transaction_id (or Idempotency-Key) belongs to another request; nothing was created")]
    Conflict,
    /// The user was deleted, and does not come back.
    #[error("this user was deleted")]
    UserDeleted,
    /// There are no keys to encrypt tokens with.
    #[error("tokens cannot be kept: the server has no keys to encrypt them with (tokens.keys, HERALD_TOKEN_KEYS)")]
    EncryptionNotConfigured,
    /// The user's account at a service counts no more.
    #[error("the user has to connect this service again")]
    ReauthRequired,
    /// There is no token of a service at the moment.
    #[error("there is no token at the moment ({reason}); try again")]
    TokenUnavailable {
        /// Why, in a word.
        reason: String,
        /// When another try makes sense.
        again_in: Duration,
    },
    /// The caller asks too much.
    #[error(transparent)]
    RateLimited(#[from] Exceeded),
    /// A fault of Herald's own; the cause stands in the log.
    #[error("an internal error; the log of the server says more under this request_id")]
    Internal(String),
    /// A backend's request, refused as any of its others.
    #[error(transparent)]
    Backend(#[from] ApiError),
}

/// What any request may be refused with.
#[derive(Debug, Serialize, ToSchema)]
pub struct Failed {
    error: Reason,
}

/// Why.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reason {
    /// For programs, such as `invalid_request`.
    code: &'static str,
    /// For people: what is wrong, and what is allowed.
    message: String,
    /// Under which the server's log says more.
    request_id: Uuid,
    /// After how many seconds another try makes sense, where there were too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_after: Option<u64>,
}

/// The statuses of that, for the description of the API.
#[derive(IntoResponses)]
pub enum Refused {
    /// The request is not right: 400, 401, 403, 404, 405, 408, 409, 410, 413, 415 or 429. Nothing was changed.
    #[response(status = "4XX")]
    Wrong(Failed),
    /// Something is away (503), full (507) or broken (500). Nothing was changed; try again after `Retry-After` seconds.
    #[response(status = "5XX")]
    Away(Failed),
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Conflict,
            StoreError::Cancelled => Self::Internal(error.to_string()),
            StoreError::Unavailable(cause) => Self::StoreUnavailable(cause.to_string()),
            StoreError::Full(cause) => Self::StoreFull(cause.to_string()),
            StoreError::Broken(cause) => Self::Internal(cause.to_string()),
        }
    }
}

impl From<AccountError> for Fault {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Store(error) => error.into(),
            AccountError::NoKeys => Self::EncryptionNotConfigured,
            AccountError::UserDeleted => Self::UserDeleted,
            AccountError::NotConnected => Self::NotFound,
            AccountError::Several => Self::Invalid(
                "the user has several accounts at this service: say which by the query parameter `service_user_id`"
                    .to_owned(),
            ),
            AccountError::Ended => Self::ReauthRequired,
            AccountError::Unavailable { reason, again_in } => Self::TokenUnavailable { reason, again_in },
        }
    }
}

impl Fault {
    /// Status and code.
    fn shape(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::AppRequired => (StatusCode::BAD_REQUEST, "app_required"),
            Self::UnknownApp => (StatusCode::NOT_FOUND, "unknown_app"),
            Self::Unauthenticated { given: true, .. } => (StatusCode::UNAUTHORIZED, "invalid_token"),
            Self::Unauthenticated { given: false, .. } => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::BodyIncomplete => (StatusCode::REQUEST_TIMEOUT, "body_incomplete"),
            Self::MediaType(_) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            Self::AuthUnavailable | Self::AuthorizerUnavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "auth_unavailable")
            }
            Self::NotVerified(_) => (StatusCode::BAD_REQUEST, "invalid_signature"),
            Self::SignatureRefused(_) => (StatusCode::UNAUTHORIZED, "invalid_signature"),
            Self::HookRefused(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::NoConversation => (StatusCode::NOT_FOUND, "no_conversation"),
            Self::StoreUnavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::StoreFull(_) => (StatusCode::INSUFFICIENT_STORAGE, "store_full"),
            Self::Conflict => (StatusCode::CONFLICT, "transaction_conflict"),
            Self::UserDeleted => (StatusCode::GONE, "user_deleted"),
            Self::EncryptionNotConfigured => (StatusCode::SERVICE_UNAVAILABLE, "encryption_not_configured"),
            Self::ReauthRequired => (StatusCode::CONFLICT, "reauth_required"),
            Self::TokenUnavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "token_unavailable"),
            Self::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "rate_limited"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
            Self::Backend(error) => (error.status(), backend_code(error.status())),
        }
    }

    /// What stands in the log: it may say more than the answer.
    fn reason(&self) -> String {
        match self {
            Self::Unauthenticated { reason, .. }
            | Self::NotVerified(reason)
            | Self::SignatureRefused(reason)
            | Self::HookRefused(reason)
            | Self::AuthorizerUnavailable(reason)
            | Self::StoreUnavailable(reason)
            | Self::StoreFull(reason)
            | Self::Internal(reason) => format!("{self} ({reason})"),
            _ => self.to_string(),
        }
    }

    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::Unauthenticated { .. } => (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
            Self::AuthUnavailable | Self::AuthorizerUnavailable(_) | Self::StoreUnavailable(_) | Self::StoreFull(_) => {
                (header::RETRY_AFTER, HeaderValue::from(AWAY.as_secs()))
            }
            Self::TokenUnavailable { again_in, .. } => (header::RETRY_AFTER, HeaderValue::from(again_in.as_secs() + 1)),
            Self::Method(allowed) => (header::ALLOW, HeaderValue::from_static(allowed)),
            Self::TooLarge(_) | Self::BodyIncomplete => (header::CONNECTION, HeaderValue::from_static("close")),
            Self::RateLimited(exceeded) => (header::RETRY_AFTER, HeaderValue::from(exceeded.retry_after_seconds())),
            Self::Backend(error) => (header::RETRY_AFTER, HeaderValue::from(error.retry_after()?)),
            _ => return None,
        })
    }
}

/// The body of a request to Herald's own API, of at most so many bytes.
///
/// # Errors
/// [`Fault::TooLarge`] and [`Fault::BodyIncomplete`].
pub async fn read_body(parts: &Parts, head: &request::Parts, body: Body, most: usize) -> Result<Bytes, Fault> {
    let body = body::read(head, body, most, parts.config.server.request_timeout).await;
    body.map_err(|error| match error {
        ApiError::BodyTooLarge(limit) => Fault::TooLarge(limit),
        _ => Fault::BodyIncomplete,
    })
}

const fn backend_code(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "unauthenticated",
        StatusCode::FORBIDDEN => "forbidden",
        StatusCode::NOT_FOUND => "unknown_app",
        StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
        StatusCode::PAYLOAD_TOO_LARGE => "too_large",
        StatusCode::REQUEST_TIMEOUT => "body_incomplete",
        StatusCode::TOO_MANY_REQUESTS => "rate_limited",
        StatusCode::SERVICE_UNAVAILABLE => "unavailable",
        _ => "invalid_request",
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let (status, code) = self.shape();
        let request_id = Uuid::now_v7();
        let retry_after = match &self {
            Self::RateLimited(exceeded) => Some(exceeded.retry_after_seconds()),
            Self::Backend(error) => error.retry_after().filter(|_| status == StatusCode::TOO_MANY_REQUESTS),
            _ => None,
        };
        let error = Reason { code, message: self.to_string(), request_id, retry_after };
        let mut response = (status, Json(Failed { error })).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().extend(self.header());
        response.extensions_mut().insert(Refusal(format!("{} [{request_id}]", self.reason())));
        response
    }
}
