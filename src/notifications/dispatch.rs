//! Ways to a user besides the inbox (section 8.8): the app's own backend is told what to send, by `notification.dispatch`, and sends it.
//!
//! What was announced is noted as a task by the same transaction. Here is decided, when its time has come, whether and when: what the user has
//! read by then, or does not want this way, is not sent; pauses, quiet hours and digests put it off, unless it is critical. So it is what the user
//! says now that counts, not what held when it was created. A backend that is away only postpones.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::tz::TimeZone;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::create::{Defaults, patterns, said};
use super::{Outage, TICK, hours};
use crate::integrations::standard_webhooks::Secrets;
use crate::metrics;
use crate::outgoing::service::{CallError, Limits, Retry, Service};
use crate::store::notification::{Notification, Severity};
use crate::store::people::User;
use crate::store::preferences::{Channel, Digest, Preference, Settings};
use crate::store::tasks::{Dispatch, Task, TaskKind};
use crate::store::time::Timestamp;
use crate::store::{Inbox, Store, StoreError};
use crate::work::{self, ATTEMPTS, pause};

/// Tasks that are taken at once, and users that are served at once.
const BATCH: usize = 40;
const USERS_AT_ONCE: usize = 4;
/// How long they are this node's.
const LOCK: Duration = Duration::from_secs(60);
/// An answer counts by its status.
const LIMITS: Limits = Limits { within: Duration::from_secs(5), bytes: 0 };
/// Bytes of a digest's notifications; the rest goes with another request.
const DIGEST_BYTES: usize = 256 * 1024;

/// What the loop needs.
#[derive(Debug)]
pub struct Dispatcher {
    /// Where tasks wait.
    pub store: Arc<dyn Store>,
    /// What the application says about preferences.
    pub defaults: Arc<Defaults>,
    /// The app's backend.
    pub service: Arc<Service>,
    /// Where it is.
    pub url: Url,
    /// What it is signed with.
    pub secrets: Secrets,
}

/// A user's tasks.
struct Work {
    app: String,
    user: String,
    /// With the notification that each is about, in their order.
    tasks: Vec<(Task, Uuid)>,
}

/// A request to be sent.
struct Message {
    tasks: Vec<Uuid>,
    /// The most that one of them was tried in vain.
    attempts: u32,
    digest: Digest,
    notifications: Vec<Value>,
    bytes: usize,
}

/// Whether and when something is to be sent.
enum Decision {
    /// Not, for good.
    Never,
    /// Then.
    Later(Timestamp),
    /// Now, by these ways.
    Now(Box<Notification>, BTreeSet<Channel>),
}

/// A user, and what decides about whatever is for one.
struct Recipient {
    user: User,
    settings: Settings,
    preferences: Vec<Preference>,
    zone: TimeZone,
}

impl Dispatcher {
    /// Works until it is stopped, which ends it between two batches.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut outage = Outage::default();
        loop {
            while !stop.is_cancelled() && self.pass(&mut outage).await {}
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    /// One batch; whether there may be more.
    async fn pass(&self, outage: &mut Outage) -> bool {
        let Some(limit) = work::batch(&self.service, BATCH) else { return false };
        let now = Timestamp::now();
        let taken = self.store.take_tasks(TaskKind::Dispatch, limit, now.after(LOCK), now).await;
        let Some(taken) = outage.note("dispatch", taken) else { return false };
        let is_full = taken.len() == limit;
        let mut work: Vec<Work> = Vec::new();
        for task in taken {
            let Ok(about) = serde_json::from_str::<Dispatch>(&task.payload) else {
                outage.note("dispatch", self.store.finish_tasks(&[task.id], Some("it cannot be read"), now).await);
                continue;
            };
            let user = task.user.clone().unwrap_or_default();
            match work.iter_mut().find(|work| (&work.app, &work.user) == (&about.app, &user)) {
                Some(work) => work.tasks.push((task, about.notification)),
                None => work.push(Work { app: about.app, user, tasks: vec![(task, about.notification)] }),
            }
        }
        let mut is_well = true;
        for chunk in work.chunks(USERS_AT_ONCE) {
            for served in join_all(chunk.iter().map(|work| self.serve(work, now))).await {
                is_well &= outage.note("dispatch", served).unwrap_or(false);
            }
        }
        is_full && is_well
    }

    /// Serves a user's tasks; false if the backend is to be left alone for a while.
    async fn serve(&self, work: &Work, now: Timestamp) -> Result<bool, StoreError> {
        let inbox = Inbox { app: &work.app, user: &work.user };
        let Some(recipient) = self.recipient(inbox).await? else {
            let ids: Vec<Uuid> = work.tasks.iter().map(|(task, _)| task.id).collect();
            self.store.finish_tasks(&ids, None, now).await?;
            return Ok(true);
        };
        let mut messages: Vec<Message> = Vec::new();
        let mut seen = HashSet::new();
        for (task, id) in work.tasks.iter().rev() {
            // The newest task of a notification that has grown stands for all of them.
            let decision =
                if seen.insert(*id) { self.decide(inbox, *id, &recipient, now).await? } else { Decision::Never };
            match decision {
                Decision::Never => self.store.finish_tasks(&[task.id], None, now).await?,
                Decision::Later(at) => self.store.postpone_tasks(&[task.id], at, None).await?,
                Decision::Now(notification, channels) => {
                    let is_critical = notification.draft.severity == Severity::Critical;
                    let digest = if is_critical { Digest::Instant } else { recipient.settings.digest };
                    add(&mut messages, task, digest, &notification, &channels);
                }
            }
        }
        let mut is_well = true;
        for message in messages.into_iter().rev() {
            is_well &= self.send(message, &work.app, &recipient.user).await?;
        }
        Ok(is_well)
    }

    /// Who it is for; `None` if nobody is to be written to any more.
    async fn recipient(&self, inbox: Inbox<'_>) -> Result<Option<Recipient>, StoreError> {
        let standing = self.store.standing(inbox.user, None, None).await?;
        let Some(user) = standing.user.filter(|user| !standing.is_deleted && !user.banned) else { return Ok(None) };
        let settings = self.store.settings(inbox).await?;
        let preferences = self.store.preferences(inbox).await?;
        let zones = [settings.timezone.as_deref(), user.timezone.as_deref()];
        let zone = zones.into_iter().flatten().find_map(hours::zone).unwrap_or(TimeZone::UTC);
        Ok(Some(Recipient { user, settings, preferences, zone }))
    }

    async fn decide(
        &self,
        inbox: Inbox<'_>,
        id: Uuid,
        recipient: &Recipient,
        now: Timestamp,
    ) -> Result<Decision, StoreError> {
        let Some((notification, _)) = self.store.notification(inbox, id, now).await? else {
            return Ok(Decision::Never);
        };
        let is_settled = notification.read_at.is_some()
            || notification.archived_at.is_some()
            || notification.snoozed_until.is_some();
        let channels = self.channels(&notification, &recipient.preferences);
        if is_settled || channels.is_empty() {
            return Ok(Decision::Never);
        }
        let is_critical = notification.draft.severity == Severity::Critical;
        let due = if is_critical {
            now
        } else {
            hours::due(&recipient.settings, &recipient.zone, notification.visible_at, now)
        };
        Ok(if due > now { Decision::Later(due) } else { Decision::Now(Box::new(notification), channels) })
    }

    /// The ways that it may go and that the user wants.
    fn channels(&self, notification: &Notification, own: &[Preference]) -> BTreeSet<Channel> {
        let draft = &notification.draft;
        let patterns = patterns(&draft.kind);
        let is_mandatory = self.defaults.is_mandatory(draft);
        let is_wanted = |channel: Channel| {
            is_mandatory || said(own, &patterns, channel).unwrap_or_else(|| self.defaults.otherwise(&patterns, channel))
        };
        let is_allowed = |channel: &Channel| draft.channels.as_ref().is_none_or(|allowed| allowed.contains(channel));
        let ways = Channel::ALL.into_iter().filter(|channel| *channel != Channel::InApp);
        ways.filter(is_allowed).filter(|channel| is_wanted(*channel)).collect()
    }

    /// Sends it; false if the backend is to be left alone for a while.
    async fn send(&self, message: Message, app: &str, user: &User) -> Result<bool, StoreError> {
        let Message { tasks, attempts, digest, notifications, .. } = message;
        let now = Timestamp::now();
        let body = json!({
            "type": "notification.dispatch",
            "timestamp": now,
            "data": {
                "app_id": app,
                "user": {
                    "id": user.id, "email": user.email, "name": user.name, "image_url": user.image_url,
                    "locale": user.locale, "timezone": user.timezone,
                },
                "digest": digest,
                "notifications": notifications,
            },
        })
        .to_string();
        // The same for the same notifications, so that the backend knows a repetition.
        let mut names: Vec<String> = tasks.iter().map(Uuid::to_string).collect();
        names.sort_unstable();
        let mut id = data_encoding::HEXLOWER.encode(&Sha256::digest(names.join(" ").as_bytes()));
        id.truncate(32);
        let id = format!("msg_{id}");
        let timestamp = u64::try_from(now.as_micros() / 1_000_000).unwrap_or_default();
        let signature = self.secrets.sign(&id, timestamp, body.as_bytes());
        let request = |client: &Client| {
            client
                .post(self.url.clone())
                .header("content-type", "application/json")
                .header("webhook-id", &id)
                .header("webhook-timestamp", timestamp.to_string())
                .header("webhook-signature", &signature)
                .body(body.clone())
        };
        let reason = match self.service.send(request, LIMITS, Retry::Never).await {
            Ok(answer) if answer.status.is_success() => {
                metrics::dispatched("delivered");
                self.store.finish_tasks(&tasks, None, now).await?;
                return Ok(true);
            }
            Err(CallError::Rejected(left)) => {
                self.store.postpone_tasks(&tasks, now.after(left.max(TICK)), None).await?;
                return Ok(false);
            }
            Ok(answer) => format!("it answered {}", answer.status),
            Err(error) => error.to_string(),
        };
        if attempts + 1 >= ATTEMPTS {
            metrics::dispatched("given_up");
            tracing::error!(id, attempts, reason, "what was to be dispatched is given up");
            self.store.finish_tasks(&tasks, Some(&reason), now).await?;
        } else {
            metrics::dispatched("retried");
            tracing::warn!(id, attempts, reason, "not dispatched, it is tried again");
            self.store.postpone_tasks(&tasks, now.after(pause(attempts)), Some(&reason)).await?;
        }
        Ok(true)
    }
}

/// Puts a notification into the digest that it belongs to, or into a message of its own.
fn add(
    messages: &mut Vec<Message>,
    task: &Task,
    digest: Digest,
    notification: &Notification,
    channels: &BTreeSet<Channel>,
) {
    let mut told = serde_json::to_value(notification).unwrap_or_default();
    told["channels"] = json!(channels);
    let bytes = told.to_string().len();
    let has_room = |message: &&mut Message| {
        digest != Digest::Instant && message.digest == digest && message.bytes + bytes <= DIGEST_BYTES
    };
    match messages.iter_mut().find(has_room) {
        Some(message) => {
            message.tasks.push(task.id);
            message.attempts = message.attempts.max(task.attempts);
            message.notifications.push(told);
            message.bytes += bytes;
        }
        None => messages.push(Message {
            tasks: vec![task.id],
            attempts: task.attempts,
            digest,
            notifications: vec![told],
            bytes,
        }),
    }
}
