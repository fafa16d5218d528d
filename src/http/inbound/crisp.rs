//! `POST /webhooks/crisp` (section 3.3): conversations with the support as Crisp tells of them. Whoever a conversation belongs to is told of replies
//! right after the commit; where that is nobody, Crisp is asked whose it is, if it may be.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::http::fault::{Fault, Refused, read_body};
use crate::integrations::crisp::hook::{self, Hook, Unreadable};
use crate::integrations::crisp::lookup::Lookup;
use crate::integrations::crisp::{Crisp, news};
use crate::parts::Parts;
use crate::store::people::Inbound;
use crate::store::tasks::{NewTask, TaskKind};
use crate::store::time::Timestamp;

/// The largest body.
const MAX_BYTES: usize = 1024 * 1024;

/// It need not be sent again.
#[derive(Debug, Serialize, ToSchema)]
pub struct Taken {}

/// Applies a hook. Whether Crisp sends it again unless the answer is 200 is not known, so it gets that for all that a repetition would not change.
///
/// # Errors
/// 403 for what is not Crisp's or about another website, without a word why; 500 when it could not be kept.
#[utoipa::path(
    post, path = "/webhooks/crisp", tag = "webhooks", operation_id = "crisp_webhook", summary = "What Crisp tells of conversations with the support",
    params(("x-crisp-signature" = Option<String>, Header, description = "Of a plugin's hook"),
        ("x-crisp-request-timestamp" = Option<String>, Header, description = "Signed too; in milliseconds or seconds"),
        ("key" = Option<String>, Query, description = "Of a website's hook, which is not signed")),
    request_body(content = Object, description = "As Crisp sends it"), responses((status = 200, body = Taken), Refused),
)]
pub async fn receive(State(parts): State<Arc<Parts>>, request: Request) -> Result<Json<Taken>, Fault> {
    let (head, body) = request.into_parts();
    let body = read_body(&parts, &head, body, MAX_BYTES).await?;
    let now = Timestamp::now();
    let now_ms = now.as_micros() / 1_000;
    let crisp = parts.crisp.as_ref().ok_or(Fault::NotFound)?;
    let query = head.uri.query().unwrap_or_default();
    let verified = crisp.trusted.verify(&head.headers, query, &body, u64::try_from(now_ms).unwrap_or_default());
    verified.map_err(|error| Fault::HookRefused(error.to_string()))?;
    // There is no id, but a repetition is the same to the byte.
    let event_id = HEXLOWER.encode(&Sha256::digest(&body));
    match hook::read(&body, &crisp.website_id, &event_id, now_ms) {
        Err(error @ Unreadable::Website) => return Err(Fault::HookRefused(error.to_string())),
        Err(error) => tracing::warn!(%error, event_id, "a hook of Crisp's is ignored"),
        Ok(hook) => apply(&parts, crisp, &event_id, hook, now).await?,
    }
    Ok(Json(Taken {}))
}

async fn apply(parts: &Parts, crisp: &Crisp, event_id: &str, hook: Hook, now: Timestamp) -> Result<(), Fault> {
    let Hook { kind, event, news, asks } = hook;
    let Some(event) = event else {
        tracing::debug!(event_id, kind, "a hook of Crisp's says nothing that is kept");
        return Ok(());
    };
    let notifications = parts.notifications()?;
    let inbound = Inbound { source: "crisp", event_id, kind: &kind };
    let lookup = Lookup { session: event.session.clone(), news, since: now.as_micros() };
    let payload = serde_json::to_string(&lookup).map_err(|error| Fault::Internal(error.to_string()))?;
    let dedupe_key = lookup.news.as_ref().map_or(event_id, |news| &news.transaction_id);
    let task = NewTask { kind: TaskKind::SupportLookup, dedupe_key, user: None, payload: &payload, available_at: now };
    let task = (asks && crisp.rest.is_some()).then_some(&task);
    let user = notifications.store.apply_to_support(&crisp.website_id, &inbound, &event, task, now).await?;
    tracing::debug!(event_id, kind, "a hook of Crisp's was received");
    if let (Some(user), Some(news)) = (user, &lookup.news) {
        news::tell(notifications, parts.config.integrations_app(), &user, news, now).await?;
    }
    Ok(())
}
