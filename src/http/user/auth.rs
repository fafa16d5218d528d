//! `POST /pusher/auth` and `POST /pusher/user-auth` (section 1.8): Herald signs for the users whom its identity provider knows, so the app
//! has no endpoint to write.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use herald_protocol::signature::{channel_string, user_string};
use herald_protocol::{ChannelKind, ChannelName};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::caller;
use super::form::{self, Channels};
use crate::apps::App;
use crate::http::fault::{Fault, Refused};
use crate::http::limits::Policy;
use crate::http::pusher::body;
use crate::hub::Binding;
use crate::identity::Identity;
use crate::identity::rules::Verdict;
use crate::integrations::authorizer::Word;
use crate::parts::Parts;
use crate::store::people::{Standing, User};
use crate::store::time::Timestamp;

/// Channels of a batch about which the app is asked at once.
const AT_ONCE: usize = 8;
/// How long a connection outlives its token where there is no session that could end it.
const WITHOUT_SESSION: Duration = Duration::from_secs(60 * 60);

/// What a client asks for, as a form or as JSON.
#[derive(ToSchema)]
pub struct AuthorizationRequest {
    /// The connection's id.
    #[schema(pattern = "^[0-9]+\\.[0-9]+$", example = "1234.5678")]
    pub socket_id: String,
    /// The channel. Several at once are `channel_name[0]`, `channel_name[1]`, …; the answer has `{"status","data"}` under each name then.
    #[schema(min_length = 1, pattern = "^(private|presence)-[-a-zA-Z0-9_=@,.;]+$", example = "private-user-user_2abc")]
    pub channel_name: String,
    /// Which app, where there are several.
    pub app: Option<String>,
}

/// What the client presents to the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Authorization {
    auth: String,
    /// Who the user is, on presence channels: JSON in a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    channel_data: Option<String>,
    /// The key of an encrypted channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    shared_secret: Option<String>,
}

/// Which connection signs in.
#[derive(ToSchema)]
pub struct SignInRequest {
    /// The connection's id.
    #[schema(pattern = "^[0-9]+\\.[0-9]+$", example = "1234.5678")]
    pub socket_id: String,
    /// Which app, where there are several.
    pub app: Option<String>,
}

/// What it presents to the server.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignIn {
    auth: String,
    /// Who the user is: JSON in a string.
    user_data: String,
}

/// Authorizes subscriptions: one, or as many as are named.
///
/// # Errors
/// See [`Fault`]; of several channels, one that is not allowed fails by itself.
#[utoipa::path(
    post, path = "/pusher/auth", tag = "auth", operation_id = "authorize_channel", summary = "Authorize a subscription; also under /api/pusher/auth",
    request_body(content(
        (AuthorizationRequest = "application/x-www-form-urlencoded"), (AuthorizationRequest = "application/json"))),
    responses((status = 200, body = Authorization), Refused), security(("session" = [])),
)]
pub async fn channel(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let mut asked = ask(&parts, request).await?;
    if asked.form.channels.names().iter().any(|name| name.starts_with("presence-")) {
        asked.known = known(&parts, asked.known, &asked.identity).await?;
    }
    match &asked.form.channels {
        Channels::None => Err(Fault::Invalid("`channel_name` is missing".to_owned())),
        Channels::One(name) => Ok(answer(authorization(&parts, &asked, name).await?)),
        Channels::Several(names) => {
            // Where the app is asked about them, a few at a time.
            let mut all = Vec::with_capacity(names.len());
            for some in names.chunks(AT_ONCE) {
                all.extend(join_all(some.iter().map(|name| authorization(&parts, &asked, name))).await);
            }
            let mut answers = Map::new();
            for (name, authorization) in names.iter().zip(all) {
                let answer = match authorization {
                    Ok(data) => json!({ "status": 200, "data": data }),
                    Err(Fault::Forbidden(_)) => json!({ "status": 403 }),
                    Err(other) => return Err(other),
                };
                answers.insert(name.clone(), answer);
            }
            Ok(answer(answers))
        }
    }
}

/// Signs a connection in as its user.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    post, path = "/pusher/user-auth", tag = "auth", operation_id = "sign_in", summary = "Sign a connection in; also under /api/pusher/user-auth",
    request_body(content((SignInRequest = "application/x-www-form-urlencoded"), (SignInRequest = "application/json"))),
    responses((status = 200, body = SignIn), Refused), security(("session" = [])),
)]
pub async fn user(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let Asked { identity, app, form, known } = ask(&parts, request).await?;
    let known = self::known(&parts, known, &identity).await?;
    let limit = app.limits().presence_user_info;
    let user_info = user_info(&identity, known.as_ref(), &parts.config.auth.user_info_metadata, limit);
    let user_data = json!({ "id": identity.user, "user_info": user_info }).to_string();
    let (key, signature) = app.sign(user_string(form.socket_id, &user_data).as_bytes());
    Ok(answer(SignIn { auth: format!("{key}:{signature}"), user_data }))
}

/// A request whose user is known.
struct Asked {
    identity: Identity,
    app: Arc<App>,
    form: form::Form,
    /// What is known of the user besides.
    known: Option<User>,
}

async fn ask(parts: &Parts, request: Request) -> Result<Asked, Fault> {
    let (head, body) = request.into_parts();
    let mut identity = match caller::identity(parts, &head, Policy::Auth).await {
        Ok(identity) => identity,
        Err(fault) => {
            body::swallow(&head, body).await;
            return Err(fault);
        }
    };
    let form = form::read(parts, &head, body).await?;
    let app = caller::app(parts, &head, form.app.as_deref())?;
    let binding =
        Binding { user: identity.user.clone(), session: identity.session.clone(), expires: expiry(&identity) };
    parts.hub.bind(&app, form.socket_id, binding).await.map_err(|_| Fault::AuthUnavailable)?;
    // Bound first, looked up then: whoever is ended in between is found by one or the other.
    let standing = standing(parts, &identity).await;
    if standing.is_refused() {
        return Err(caller::ended());
    }
    if standing.has_left {
        identity.org = None; // the token still says so, for a minute
    }
    Ok(Asked { identity, app, form, known: standing.user })
}

/// When a connection has to end that no session can end (section 1.6).
fn expiry(identity: &Identity) -> Option<SystemTime> {
    let until = Duration::try_from_secs_f64(identity.expires_at).ok()? + WITHOUT_SESSION;
    UNIX_EPOCH.checked_add(until).filter(|_| identity.session.is_none())
}

/// What the store knows of the user. Without an answer the token alone counts, as long as it lives: clients must get in while the database is
/// away.
async fn standing(parts: &Parts, identity: &Identity) -> Standing {
    let Some(notifications) = &parts.notifications else { return Standing::default() };
    let org = identity.org.as_ref().map(|org| org.id.as_str());
    let standing = notifications.store.standing(&identity.user, identity.session.as_deref(), org).await;
    standing.unwrap_or_else(|error| {
        tracing::warn!(%error, "a token counts without a look at its session");
        Standing::default()
    })
}

/// The user, from the identity provider where nothing but an id was kept. Without an answer the id has to do: clients must get in while the
/// provider is away.
pub(super) async fn known(parts: &Parts, kept: Option<User>, identity: &Identity) -> Result<Option<User>, Fault> {
    if kept.as_ref().is_some_and(|user| user.source_updated_at > 0) {
        return Ok(kept);
    }
    let Some(users) = parts.identity.as_ref().and_then(|provider| provider.users.as_ref()) else { return Ok(kept) };
    let found = users.get(&identity.user).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "others see an id alone");
        None
    });
    if let (Some(user), Some(notifications)) = (&found, &parts.notifications)
        && let Err(error) = notifications.store.put_user(user, Timestamp::now()).await
    {
        tracing::debug!(%error, "a user is not kept");
    }
    if found.as_ref().is_some_and(|user| user.banned) {
        return Err(caller::ended());
    }
    Ok(found.or(kept))
}

async fn authorization(parts: &Parts, asked: &Asked, name: &str) -> Result<Authorization, Fault> {
    let Asked { identity, app, form, known } = asked;
    let name = ChannelName::parse(name, app.limits().channel_name)
        .map_err(|error| Fault::Invalid(format!("`channel_name`: {error}")))?;
    let provider = parts.identity.as_ref().ok_or(Fault::NotFound)?;
    let mut told = None;
    match provider.policy.verdict(identity, &name) {
        Verdict::Allowed => {}
        Verdict::Unspoken => {
            let authorizer = provider.authorizer.as_ref().ok_or(Fault::NotFound)?;
            let word = authorizer.ask(app, identity, &form.socket_id.to_string(), name.as_str()).await;
            match word.map_err(|error| Fault::AuthorizerUnavailable(error.to_string()))? {
                Word::Yes(user_info) => told = user_info,
                Word::No => return Err(denied()),
            }
        }
        Verdict::Denied => return Err(denied()),
        Verdict::Public => {
            return Err(Fault::Invalid(
                "`channel_name`: this channel needs no authorization; names that do begin with private- or presence-"
                    .to_owned(),
            ));
        }
    }
    let channel_data = name.kind().is_presence().then(|| {
        let limit = app.limits().presence_user_info;
        let told = told.map(Value::Object).filter(|told| told.to_string().len() <= limit);
        let user_info =
            told.unwrap_or_else(|| user_info(identity, known.as_ref(), &parts.config.auth.user_info_metadata, limit));
        json!({ "user_id": identity.user, "user_info": user_info }).to_string()
    });
    let signed = channel_string(form.socket_id, name.as_str(), channel_data.as_deref());
    let shared_secret = if matches!(name.kind(), ChannelKind::PrivateEncrypted | ChannelKind::PrivateEncryptedCache) {
        let key = parts.config.auth.encryption_master_key.as_ref();
        let key = key.ok_or_else(|| {
            Fault::Forbidden("encrypted channels need a master key, which is not configured".to_owned())
        })?;
        Some(key.shared_secret(name.as_str()))
    } else {
        None
    };
    let (key, signature) = app.sign(signed.as_bytes());
    let auth = format!("{key}:{signature}");
    Ok(Authorization { auth, channel_data, shared_secret })
}

fn denied() -> Fault {
    Fault::Forbidden("this channel is not allowed for this user".to_owned())
}

/// What other members get to see of a user: the id, name and picture, and of what everybody may know these members, as far as that fits; never
/// an address.
fn user_info(identity: &Identity, known: Option<&User>, metadata: &[String], limit: usize) -> Value {
    let mut info = json!({ "id": identity.user });
    let Some(known) = known else { return info };
    let about = [("name", &known.name), ("image_url", &known.image_url)];
    let about = about.into_iter().filter_map(|(member, value)| Some((member, value.as_deref()?.into())));
    let named = metadata.iter().filter_map(|name| Some((name.as_str(), known.public_metadata.get(name)?.clone())));
    for (member, value) in about.chain(named) {
        if info.get(member).is_some() {
            continue;
        }
        info[member] = value;
        if info.to_string().len() > limit {
            info.as_object_mut().map(|info| info.remove(member));
        }
    }
    if info.to_string().len() <= limit { info } else { json!({}) }
}

fn answer(value: impl Serialize) -> Response {
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::OK, headers, Json(value)).into_response()
}
