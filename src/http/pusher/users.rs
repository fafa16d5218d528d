//! Connections and the users behind them, as a backend sees them (section 4.2).

use std::sync::Arc;

use axum::extract::State;
use herald_protocol::UserId;
use herald_protocol::json::members;

use super::Answer;
use super::auth::Signed;
use crate::http::error::ApiError;
use crate::parts::Parts;

/// `POST /users/{user_id}/terminate_connections`: ends every connection of a user.
///
/// # Errors
/// When the id is none, the body is neither empty nor an object, or other nodes cannot be told.
pub async fn terminate(parts: Arc<Parts>, signed: Arc<Signed>) -> Result<Answer, ApiError> {
    let user = UserId::parse(signed.value("user_id"))?;
    let [] = members(signed.json()?, [])?;
    parts.hub.terminate(&signed.app, &user).await?;
    Ok(Answer::EMPTY)
}

/// `GET /connections`: how many there are.
///
/// # Errors
/// When the cluster cannot be asked.
pub async fn connections(State(parts): State<Arc<Parts>>, signed: Signed) -> Result<Answer, ApiError> {
    Ok(format!(r#"{{"connections":{}}}"#, parts.hub.cluster.connections(&signed.app).await?).into())
}
