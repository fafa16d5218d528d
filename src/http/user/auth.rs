//! `POST /pusher/auth` and `POST /pusher/user-auth` (section 1.8): Herald signs for the users whom its identity provider knows, so the app
//! has no endpoint to write.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use herald_protocol::signature::{channel_string, user_string};
use herald_protocol::{ChannelKind, ChannelName, SocketId};
use serde_json::{Map, Value, json};

use super::caller;
use super::form::{self, Channels};
use crate::apps::App;
use crate::http::fault::Fault;
use crate::http::pusher::body;
use crate::identity::Identity;
use crate::identity::rules::Verdict;
use crate::parts::Parts;

/// Authorizes subscriptions: one, or as many as are named.
///
/// # Errors
/// See [`Fault`]; of several channels, one that is not allowed fails by itself.
pub async fn channel(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let Asked { identity, app, form } = ask(&parts, request).await?;
    let authorize = |name: &str| authorization(&parts, &app, &identity, form.socket_id, name);
    match &form.channels {
        Channels::None => Err(Fault::Invalid("`channel_name` is missing".to_owned())),
        Channels::One(name) => Ok(answer(authorize(name)?)),
        Channels::Several(names) => {
            let mut answers = Map::new();
            for name in names {
                let answer = match authorize(name) {
                    Ok(data) => json!({ "status": 200, "data": data }),
                    Err(Fault::Forbidden(_)) => json!({ "status": 403 }),
                    Err(other) => return Err(other),
                };
                answers.insert(name.clone(), answer);
            }
            Ok(answer(Value::Object(answers)))
        }
    }
}

/// Signs a connection in as its user.
///
/// # Errors
/// See [`Fault`].
pub async fn user(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let Asked { identity, app, form } = ask(&parts, request).await?;
    let limit = app.limits().presence_user_info;
    let user_data = json!({ "id": identity.user, "user_info": user_info(&identity, limit) }).to_string();
    let signature = app.options.secret.sign(user_string(form.socket_id, &user_data).as_bytes());
    Ok(answer(json!({ "auth": format!("{}:{signature}", app.options.key), "user_data": user_data })))
}

/// A request whose user is known.
struct Asked {
    identity: Identity,
    app: Arc<App>,
    form: form::Form,
}

async fn ask(parts: &Parts, request: Request) -> Result<Asked, Fault> {
    let (head, body) = request.into_parts();
    let identity = match caller::identity(parts, &head.headers).await {
        Ok(identity) => identity,
        Err(fault) => {
            body::swallow(&head, body).await;
            return Err(fault);
        }
    };
    let form = form::read(parts, &head, body).await?;
    let app = caller::app(parts, &head, form.app.as_deref())?;
    Ok(Asked { identity, app, form })
}

fn authorization(
    parts: &Parts,
    app: &App,
    identity: &Identity,
    socket_id: SocketId,
    name: &str,
) -> Result<Value, Fault> {
    let name = ChannelName::parse(name, app.limits().channel_name)
        .map_err(|error| Fault::Invalid(format!("`channel_name`: {error}")))?;
    let policy = parts.identity.as_ref().map(|provider| &provider.policy).ok_or(Fault::NotFound)?;
    match policy.verdict(identity, &name) {
        Verdict::Allowed => {}
        Verdict::Denied => return Err(Fault::Forbidden("this channel is not allowed for this user".to_owned())),
        Verdict::Public => {
            return Err(Fault::Invalid(
                "`channel_name`: this channel needs no authorization; names that do begin with private- or presence-"
                    .to_owned(),
            ));
        }
    }
    let channel_data = name.kind().is_presence().then(|| {
        let user_info = user_info(identity, app.limits().presence_user_info);
        json!({ "user_id": identity.user, "user_info": user_info }).to_string()
    });
    let signed = channel_string(socket_id, name.as_str(), channel_data.as_deref());
    let mut answer = Map::new();
    answer.insert(
        "auth".to_owned(),
        format!("{}:{}", app.options.key, app.options.secret.sign(signed.as_bytes())).into(),
    );
    if let Some(channel_data) = channel_data {
        answer.insert("channel_data".to_owned(), channel_data.into());
    }
    if matches!(name.kind(), ChannelKind::PrivateEncrypted | ChannelKind::PrivateEncryptedCache) {
        let key = parts.config.auth.encryption_master_key.as_ref();
        let key = key.ok_or_else(|| {
            Fault::Forbidden("encrypted channels need a master key, which is not configured".to_owned())
        })?;
        answer.insert("shared_secret".to_owned(), key.shared_secret(name.as_str()).into());
    }
    Ok(Value::Object(answer))
}

/// What other members get to see of a user: never more than fits, and always the id.
fn user_info(identity: &Identity, limit: usize) -> Value {
    let info = json!({ "id": identity.user });
    if info.to_string().len() <= limit { info } else { json!({}) }
}

fn answer(value: Value) -> Response {
    let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (StatusCode::OK, headers, Json(value)).into_response()
}
