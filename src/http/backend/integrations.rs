//! Users' accounts at other services, as a backend keeps them (section 8.6): tokens are put in and one that can be used now is taken out, by servers
//! only; a refresh token never leaves.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header, request};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::caller::Backend;
use super::users::user_id;
use crate::accounts::{Handed, Integration, Told};
use crate::config::section::is_service;
use crate::http::fault::{Fault, Refused};
use crate::http::user::inbox::Which;
use crate::integrations::oauth::{MAX_TOKEN, is_token};
use crate::parts::Parts;
use crate::seal::PlainToken;
use crate::store::accounts::{AccountKey, Said};
use crate::store::time::Timestamp;

/// The longest id at a service.
const MAX_ID: usize = 255;
/// The most scopes, and the longest.
const MAX_SCOPES: usize = 200;
const MAX_SCOPE: usize = 255;
/// The most that is kept with an account, as JSON: what Clerk takes as metadata.
const MAX_DATA: usize = 8 * 1024;

/// What a backend says of an account. What is not named stays as it is; `null` says that there is none.
#[derive(ToSchema)]
#[schema(as = NewIntegration)]
pub struct Written {
    /// The user's id there, for users with several accounts at one service.
    #[schema(max_length = 255)]
    pub service_user_id: Option<String>,
    /// What opens the service. Another one without `token_expires_at` expires nobody knows when.
    #[schema(max_length = 16_384)]
    pub access_token: Option<String>,
    /// What is given for another one, where `integrations.oauth` says where. It never leaves.
    #[schema(max_length = 16_384)]
    pub refresh_token: Option<String>,
    /// When the access token expires.
    #[schema(value_type = Option<Timestamp>)]
    pub token_expires_at: Option<String>,
    /// What it is good for.
    #[schema(max_items = 200)]
    pub scopes: Option<Vec<String>>,
    /// What else there is to keep: the user sees it. At most 8 KiB.
    #[schema(value_type = Option<Object>)]
    pub service_data: Option<Value>,
    /// Whether `service_data` is merged into the user's public metadata at Clerk, under the service's name.
    pub sync_metadata: Option<bool>,
}

/// How an account is now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Kept {
    integration: Integration,
}

/// `PUT /v1/users/{user_id}/integrations/{service}`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    put, path = "/v1/users/{user_id}/integrations/{service}", tag = "users", operation_id = "put_integration",
    summary = "Keep a user's account at a service, with its tokens",
    params(Which, ("user_id" = String, Path, min_length = 1, max_length = 255, description = "The user's id"),
        ("service" = String, Path, pattern = "^[a-z0-9][a-z0-9_.-]{0,63}$", description = "The service")),
    request_body = Written,
    responses((status = 200, body = Kept), (status = 410, description = "The user was deleted"), Refused),
    security(("signature" = []), ("api_key" = [])),
)]
pub async fn put(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Response, Fault> {
    let (user, service) = (user_id(&backend)?, service(backend.value("service"))?);
    let accounts = parts.accounts()?;
    // A parser's own words would quote what is wrong, and that may be a token.
    let body = serde_json::from_slice(&backend.body).map_err(|_| invalid("the body must be a JSON object"))?;
    let mut body = Members(body);
    let service_user = match body.text("service_user_id")? {
        Said::Is(id) => id,
        Said::Nothing | Said::Gone => String::new(),
    };
    if !is_id_there(&service_user) {
        return Err(wrong_id());
    }
    let told = Told {
        key: AccountKey { app: backend.app.id(), user, service, service_user: &service_user },
        access: body.token("access_token")?,
        refresh: body.token("refresh_token")?,
        expires_at: body.time("token_expires_at")?,
        scopes: body.scopes()?,
        data: body.data()?,
        sync_metadata: body.flag("sync_metadata")?,
    };
    if told.sync_metadata && !accounts.writes_metadata {
        return Err(invalid("`sync_metadata` needs Clerk's secret key (auth.secret_key, CLERK_SECRET_KEY)"));
    }
    Ok(answer(Kept { integration: accounts.put(told).await? }))
}

/// `DELETE /v1/users/{user_id}/integrations/{service}`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    delete, path = "/v1/users/{user_id}/integrations/{service}", tag = "users", operation_id = "delete_user_integration",
    summary = "Forget a user's account at a service, with its tokens",
    params(Which, ("user_id" = String, Path, min_length = 1, max_length = 255, description = "The user's id"),
        ("service" = String, Path, description = "The service"),
        ("service_user_id" = Option<String>, Query, description = "Which account there, if the user has several")),
    responses((status = 204, description = "It is forgotten"), Refused), security(("signature" = []), ("api_key" = [])),
)]
pub async fn delete(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<StatusCode, Fault> {
    let (app, user, which) = (backend.app.id(), user_id(&backend)?, account(&backend.head)?);
    parts.accounts()?.delete(app, user, service(backend.value("service"))?, which.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A token that can be used now.
#[derive(Serialize, ToSchema)]
pub struct Token<'a> {
    access_token: &'a str,
    /// When it expires, if that is known.
    expires_at: Option<Timestamp>,
}

/// `POST /v1/users/{user_id}/integrations/{service}/token`: refreshed if it is due, asked of Clerk if that holds it.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    post, path = "/v1/users/{user_id}/integrations/{service}/token", tag = "users", operation_id = "integration_token",
    summary = "A token of a user's that can be used now",
    params(Which, ("user_id" = String, Path, min_length = 1, max_length = 255, description = "The user's id"),
        ("service" = String, Path, description = "The service"),
        ("service_user_id" = Option<String>, Query, description = "Which account there, if the user has several")),
    responses((status = 200, body = Token<'static>), (status = 409, description = "The user has to connect it again"), Refused),
    security(("signature" = []), ("api_key" = [])),
)]
pub async fn token(State(parts): State<Arc<Parts>>, backend: Backend) -> Result<Response, Fault> {
    let (app, user, which) = (backend.app.id(), user_id(&backend)?, account(&backend.head)?);
    let accounts = parts.accounts()?;
    let handed = accounts.token(app, user, service(backend.value("service"))?, which.as_deref()).await?;
    let Handed { access, expires_at } = &handed;
    Ok(answer(Token { access_token: access.expose(), expires_at: *expires_at }))
}

/// The name of a service.
///
/// # Errors
/// For one that is none.
pub fn service(name: &str) -> Result<&str, Fault> {
    let wrong = || invalid("a service has 1 to 64 characters of a-z, 0-9, _, - and ., a letter or digit first");
    Some(name).filter(|name| is_service(name)).ok_or_else(wrong)
}

/// Which of a user's accounts at a service a request names: `service_user_id` of the query.
///
/// # Errors
/// For what cannot be an id.
pub fn account(head: &request::Parts) -> Result<Option<String>, Fault> {
    let mut query = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes());
    let named = query.find(|(name, _)| name == "service_user_id").map(|(_, id)| id.into_owned());
    if named.as_deref().is_none_or(is_id_there) { Ok(named) } else { Err(wrong_id()) }
}

fn is_id_there(id: &str) -> bool {
    id.len() <= MAX_ID && !id.chars().any(char::is_control)
}

fn wrong_id() -> Fault {
    invalid(format!("`service_user_id` may have {MAX_ID} bytes, and no control characters"))
}

/// The members of a body.
struct Members(Map<String, Value>);

impl Members {
    fn take<T>(&mut self, name: &str, read: impl FnOnce(Value) -> Result<T, Fault>) -> Result<Said<T>, Fault> {
        match self.0.remove(name) {
            None => Ok(Said::Nothing),
            Some(Value::Null) => Ok(Said::Gone),
            Some(value) => read(value).map(Said::Is),
        }
    }

    fn text(&mut self, name: &str) -> Result<Said<String>, Fault> {
        self.take(name, |value| match value {
            Value::String(text) => Ok(text),
            _ => Err(invalid(format!("`{name}` must be text"))),
        })
    }

    fn token(&mut self, name: &str) -> Result<Said<PlainToken>, Fault> {
        let wrong = || invalid(format!("`{name}` must be text of 1 to {MAX_TOKEN} printable ASCII characters"));
        match self.text(name)?.map(PlainToken::from) {
            Said::Is(token) if !is_token(&token) => Err(wrong()),
            said => Ok(said),
        }
    }

    fn time(&mut self, name: &str) -> Result<Said<Timestamp>, Fault> {
        let wrong = || invalid(format!("`{name}` must be a time such as 2026-01-31T12:00:00Z"));
        self.take(name, |value| value.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong))
    }

    fn flag(&mut self, name: &str) -> Result<bool, Fault> {
        match self
            .take(name, |value| value.as_bool().ok_or_else(|| invalid(format!("`{name}` must be true or false"))))?
        {
            Said::Is(flag) => Ok(flag),
            Said::Nothing | Said::Gone => Ok(false),
        }
    }

    fn scopes(&mut self) -> Result<Said<Vec<String>>, Fault> {
        let wrong =
            || invalid(format!("`scopes` must be a list of at most {MAX_SCOPES} texts of at most {MAX_SCOPE} bytes"));
        let is_scope = |text: &String| (1..=MAX_SCOPE).contains(&text.len()) && !text.chars().any(char::is_control);
        self.take("scopes", |value| {
            let scopes: Option<Vec<String>> = serde_json::from_value(value).ok();
            scopes.filter(|all| all.len() <= MAX_SCOPES && all.iter().all(is_scope)).ok_or_else(wrong)
        })
    }

    fn data(&mut self) -> Result<Said<Value>, Fault> {
        self.take("service_data", |value| {
            let text = value.to_string();
            if !value.is_object() || text.contains("\\u0000") {
                Err(invalid("`service_data` must be an object without U+0000"))
            } else if text.len() > MAX_DATA {
                Err(invalid(format!("`service_data` has {} bytes as JSON, {MAX_DATA} are allowed", text.len())))
            } else {
                Ok(value)
            }
        })
    }
}

fn invalid(text: impl Into<String>) -> Fault {
    Fault::Invalid(text.into())
}

fn answer(what: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(what)).into_response()
}
