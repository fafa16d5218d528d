//! A user's accounts at other services (section 8.6): which there are, and one that is to be forgotten. Never a token.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header, request};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::caller;
use crate::accounts::Integration;
use crate::http::backend::integrations::{account, service};
use crate::http::fault::{Fault, Refused};
use crate::http::pusher::body;
use crate::http::user::inbox::Which;
use crate::parts::Parts;

/// A user's accounts.
#[derive(Debug, Serialize, ToSchema)]
pub struct Integrations {
    items: Vec<Integration>,
}

/// `GET /v1/integrations`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/integrations", tag = "integrations", operation_id = "list_integrations", summary = "The services that the user has connected",
    params(Which), responses((status = 200, body = Integrations), Refused), security(("session" = [])),
)]
pub async fn list(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (user, head) = begin(&parts, request).await?;
    let app = caller::app(&parts, &head, None)?;
    let items = parts.accounts()?.list(app.id(), &user).await?;
    Ok(([(header::CACHE_CONTROL, "private, no-store")], Json(Integrations { items })).into_response())
}

/// `DELETE /v1/integrations/{service}`: the account is forgotten, its tokens with it. What the service itself still lets the app do is said there.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    delete, path = "/v1/integrations/{service}", tag = "integrations", operation_id = "delete_integration",
    summary = "Forget the user's account at a service",
    params(Which, ("service" = String, Path, description = "The service"),
        ("service_user_id" = Option<String>, Query, description = "Which account there, if the user has several")),
    responses((status = 204, description = "It is forgotten, with its tokens"), Refused), security(("session" = [])),
)]
pub async fn delete(
    State(parts): State<Arc<Parts>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Fault> {
    let (user, head) = begin(&parts, request).await?;
    let app = caller::app(&parts, &head, None)?;
    let which = account(&head)?;
    parts.accounts()?.delete(app.id(), &user, service(&name)?, which.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn begin(parts: &Parts, request: Request) -> Result<(String, request::Parts), Fault> {
    let (head, body) = request.into_parts();
    body::swallow(&head, body).await;
    Ok((caller::served(parts, &head).await?.user, head))
}
