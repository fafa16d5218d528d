//! The HTTP API for backends (section 4): every request is signed ([`auth`]), then asks or acts on the hub.
//!
//! [`routes`] is the contents page. A request that acts goes through [`act`]: its repetition under the same `Idempotency-Key` gets the
//! same answer (`super::idempotency`).

pub mod auth;
pub mod body;
pub mod channels;
pub mod events;
pub(in crate::http) mod finish;
pub mod parameters;
pub mod users;

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use super::error::ApiError;
use super::idempotency::{self, Answered};
use crate::parts::Parts;
use auth::Signed;

/// The routes; the prefix stands in the patterns, since the path is signed exactly as the client wrote it.
pub fn routes(prefix: &str) -> Router<Arc<Parts>> {
    Router::new()
        .route(&format!("{prefix}/apps/{{app_id}}/events"), acting(events::trigger))
        .route(&format!("{prefix}/apps/{{app_id}}/batch_events"), acting(events::trigger_batch))
        .route(&format!("{prefix}/apps/{{app_id}}/channels"), get(channels::list))
        .route(&format!("{prefix}/apps/{{app_id}}/channels/{{channel}}"), get(channels::show))
        .route(&format!("{prefix}/apps/{{app_id}}/channels/{{channel}}/users"), get(channels::users))
        .route(&format!("{prefix}/apps/{{app_id}}/users/{{user_id}}/terminate_connections"), acting(users::terminate))
        .route(&format!("{prefix}/apps/{{app_id}}/connections"), get(users::connections))
        // The PyPI library (3.3.4) leaves the app out.
        .route(&format!("{prefix}/users/{{user_id}}/terminate_connections"), acting(users::terminate))
}

/// Refuses with `error`, but not before the body was read.
pub async fn refuse(request: Request, error: ApiError) -> ApiError {
    let (head, body) = request.into_parts();
    body::swallow(&head, body).await;
    error
}

/// What an endpoint answers with 200: JSON, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub Bytes);

impl Answer {
    /// `{}`
    pub const EMPTY: Self = Self(Bytes::from_static(b"{}"));
}

impl From<String> for Answer {
    fn from(json: String) -> Self {
        Self(json.into())
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.0));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// A POST route whose `endpoint` changes something. What is begun is finished, also when its client has gone.
fn acting<F>(endpoint: fn(Arc<Parts>, Arc<Signed>) -> F) -> MethodRouter<Arc<Parts>>
where
    F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
{
    post(async move |State(parts): State<Arc<Parts>>, signed: Signed| {
        finish::finish(parts.connections.clone(), act(parts, signed, endpoint)).await
    })
}

/// Does what a request asks `endpoint` for, once.
///
/// # Errors
/// Those of the endpoint, and a repetition that cannot be answered.
pub async fn act<F>(
    parts: Arc<Parts>,
    signed: Signed,
    endpoint: fn(Arc<Parts>, Arc<Signed>) -> F,
) -> Result<Answered, ApiError>
where
    F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
{
    let (cluster, signed) = (Arc::clone(&parts.hub.cluster), Arc::new(signed));
    let answer = pin!(endpoint(parts, Arc::clone(&signed)));
    idempotency::once(&*cluster, &signed, answer).await
}
