//! What the chat on a user's page needs to know (sections 3.2 and 8.6). The user is always the token's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{auth, caller};
use crate::http::fault::{Fault, Refused};
use crate::http::pusher::body;
use crate::integrations::crisp::identity::{sign, token_id};
use crate::parts::Parts;

/// Members of what everybody may know of a user that those who help see too.
const SUBSCRIPTION: &str = "subscription";
const SIGNUP_DATE: &str = "signup_date";

/// Who somebody is in the chat. What is not known is not there.
#[derive(Debug, Serialize, ToSchema)]
pub struct SupportIdentity {
    /// The website's id at Crisp.
    website_id: String,
    /// The user's verified primary address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    email: Option<String>,
    /// The name to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    nickname: Option<String>,
    /// A picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    avatar: Option<String>,
    /// Shows Crisp that the address is the user's; for exactly this one, capital letters and all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    signature: Option<String>,
    session_data: SessionData,
    /// `CRISP_TOKEN_ID`: finds the user's conversation again on every device. It is the user's alone.
    token_id: String,
}

/// What those who help see beside it.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionData {
    user_id: String,
    /// `subscription` of the public metadata, or the plan of the session token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    subscription: Option<String>,
    /// `signup_date` of the public metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    signup_date: Option<String>,
}

/// `GET /v1/support/identity`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/support/identity", tag = "support", operation_id = "support_identity", summary = "Who the user is in the chat with the support",
    responses((status = 200, body = SupportIdentity), Refused), security(("session" = [])),
)]
pub async fn identity(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (head, body) = request.into_parts();
    body::swallow(&head, body).await;
    let identity = caller::served(&parts, &head).await?;
    let crisp = parts.crisp.as_deref().ok_or(Fault::NotFound)?;
    let app = parts.apps.by_id(parts.config.integrations_app()).ok_or(Fault::UnknownApp)?;
    let kept = parts.notifications()?.store.standing(&identity.user, None, None).await?.user;
    let known = auth::known(&parts, kept, &identity).await?;
    let metadata = known.as_ref().map(|user| &user.public_metadata);
    let text = |member: &str| metadata.and_then(|metadata| metadata[member].as_str()).map(str::to_owned);
    let email = known.as_ref().and_then(|user| user.email.clone());
    let signature = email.as_deref().zip(crisp.identity_secret.as_ref()).map(|(email, secret)| sign(email, secret));
    let answer = SupportIdentity {
        website_id: crisp.website_id.clone(),
        email,
        nickname: known.as_ref().and_then(|user| user.name.clone()),
        avatar: known.as_ref().and_then(|user| user.image_url.clone()),
        signature,
        session_data: SessionData {
            subscription: text(SUBSCRIPTION).or_else(|| plan(&identity.claims)),
            signup_date: text(SIGNUP_DATE),
            user_id: identity.user.clone(),
        },
        token_id: token_id(&identity.user, &app.options().secret),
    };
    Ok(([(header::CACHE_CONTROL, "private, no-store")], Json(answer)).into_response())
}

/// The plan that the user has by the session token, not the organization's.
fn plan(claims: &Map<String, Value>) -> Option<String> {
    claims.get("pla")?.as_str()?.strip_prefix("u:").map(str::to_owned)
}
