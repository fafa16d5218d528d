//! Making notifications (section 8.5): for a thousand users as many statements as for one.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use uuid::Uuid;

use super::inbox::{COLUMNS, notification};
use super::{Postgres, Tx, jobs, json, tasks};
use crate::store::StoreError;
use crate::store::event::{About, EventName, envelope};
use crate::store::notification::{Counts, InboxState, Notification};
use crate::store::sending::{Create, Created, Wanted};
use crate::store::time::Timestamp;

/// Where a group's open item is met, it grows.
const GROW: &str = "ON CONFLICT (app_id, user_id, group_key)
    WHERE group_key IS NOT NULL AND read_at IS NULL AND archived_at IS NULL AND deleted_at IS NULL
    DO UPDATE SET group_count = user_notifications.group_count + 1, severity = excluded.severity, title = excluded.title,
        message = excluded.message, action_url = excluded.action_url, image_url = excluded.image_url, actor = excluded.actor,
        object = excluded.object, data = excluded.data, channels = excluded.channels, rev = excluded.rev, seen_at = NULL, expires_at = excluded.expires_at,
        updated_at = excluded.updated_at,
        visible_at = CASE WHEN user_notifications.snoozed_until IS NOT NULL THEN user_notifications.visible_at
            ELSE excluded.visible_at END";

impl Postgres {
    pub(super) async fn make(&self, create: &Create<'_>, now: Timestamp) -> Result<Created, StoreError> {
        let mut tx = self.begin().await?;
        let mut created = Created::default();
        let known = known(&mut tx, create, now).await?;
        created.unknown = create.recipients.iter().filter(|user| !known.contains(*user)).cloned().collect();
        let users: Vec<String> = create.recipients.iter().filter(|user| known.contains(*user)).cloned().collect();
        let unwanted = match &create.wanted {
            Some(wanted) => unwanted(&mut tx, create.app, &users, wanted).await?,
            None => HashSet::new(),
        };
        let ids: Vec<Option<Uuid>> = users.iter().map(|user| (!unwanted.contains(user)).then(Uuid::now_v7)).collect();
        let new = note(&mut tx, create, &users, &ids, now).await?;
        created.duplicates = (users.len() - new.len()) as u64;
        let (mut recipients, mut made) = (Vec::new(), Vec::new());
        for (user, id) in users.into_iter().zip(ids).filter(|(user, _)| new.contains(user)) {
            match id {
                Some(id) => {
                    recipients.push(user);
                    made.push(id);
                }
                None => created.suppressed += 1,
            }
        }
        created.created = recipients.len() as u64;
        if !recipients.is_empty() {
            let announced = deliver(&mut tx, create, &recipients, &made, now).await?;
            if self.dispatches && !announced.is_empty() {
                tasks::dispatch(&mut tx, create.app, &announced, now).await?;
            }
        }
        if let Some(step) = &create.job {
            jobs::note(&mut tx, step, &created).await?;
        }
        tx.commit().await?;
        Ok(created)
    }
}

/// Which recipients have a row, new ones if need be; whoever was deleted has none.
async fn known(tx: &mut Tx, create: &Create<'_>, now: Timestamp) -> Result<HashSet<String>, StoreError> {
    if !create.only_known {
        let sql = "INSERT INTO users (id, created_at, updated_at) SELECT u, $2, $2 FROM unnest($1::text[]) AS u
            WHERE NOT EXISTS (SELECT 1 FROM user_tombstones t WHERE t.id = u) ON CONFLICT DO NOTHING";
        tx.query(sql).bind(create.recipients).bind(now).execute(tx.on()).await?;
    }
    // Whoever is being deleted is waited for.
    let sql =
        "SELECT id FROM users WHERE id = ANY($1) AND NOT EXISTS (SELECT 1 FROM user_tombstones t WHERE t.id = users.id)
        ORDER BY id FOR KEY SHARE";
    let rows: Vec<String> = tx.value(sql).bind(create.recipients).fetch_all(tx.on()).await?;
    Ok(rows.into_iter().collect())
}

/// Who does not want such ones in the inbox: the preference for the longest of the patterns says it, else the application's.
async fn unwanted(
    tx: &mut Tx,
    app: &str,
    users: &[String],
    wanted: &Wanted<'_>,
) -> Result<HashSet<String>, StoreError> {
    let sql = "SELECT user_id, type, enabled FROM notification_preferences
        WHERE app_id = $1 AND user_id = ANY($2) AND channel = 'in_app' AND type = ANY($3)";
    let query = tx.rows(sql).bind(app).bind(users).bind(wanted.patterns);
    let rows: Vec<(String, String, bool)> = query.fetch_all(tx.on()).await?;
    let said: HashMap<(&str, &str), bool> =
        rows.iter().map(|(user, kind, enabled)| ((user.as_str(), kind.as_str()), *enabled)).collect();
    let wants = |user: &String| {
        let own = wanted.patterns.iter().find_map(|pattern| said.get(&(user.as_str(), pattern.as_str())).copied());
        own.unwrap_or(wanted.otherwise)
    };
    Ok(users.iter().filter(|user| !wants(user)).cloned().collect())
}

/// Notes the request for these users, waiting for whoever notes the same; those who did not have it.
async fn note(
    tx: &mut Tx,
    create: &Create<'_>,
    users: &[String],
    ids: &[Option<Uuid>],
    now: Timestamp,
) -> Result<HashSet<String>, StoreError> {
    let sql =
        "INSERT INTO notification_dedupe (app_id, user_id, transaction_id, request_hash, notification_id, created_at)
        SELECT $1, u, $2, $3, n, $6 FROM unnest($4::text[], $5::uuid[]) AS t(u, n)
        ON CONFLICT DO NOTHING RETURNING user_id";
    let new: Vec<String> = tx
        .value(sql)
        .bind(create.app)
        .bind(create.transaction_id)
        .bind(create.request_hash)
        .bind(users)
        .bind(ids)
        .bind(now)
        .fetch_all(tx.on())
        .await?;
    let sql = "SELECT EXISTS (SELECT 1 FROM notification_dedupe
            WHERE app_id = $1 AND transaction_id = $2 AND user_id = ANY($4) AND request_hash <> $3)
        OR ($5 AND EXISTS (SELECT 1 FROM fanout_jobs WHERE app_id = $1 AND transaction_id = $2 AND request_hash <> $3))";
    let query = tx.value(sql).bind(create.app).bind(create.transaction_id).bind(create.request_hash);
    let is_anothers = query.bind(users).bind(create.job.is_none()).fetch_one(tx.on()).await?;
    if is_anothers { Err(StoreError::Conflict) } else { Ok(new.into_iter().collect()) }
}

/// Puts it into the inboxes of these users, whose ids are sorted; returns whose were announced, each with an event: none if it is for later.
async fn deliver(
    tx: &mut Tx,
    create: &Create<'_>,
    users: &[String],
    ids: &[Uuid],
    now: Timestamp,
) -> Result<Vec<(String, Notification)>, StoreError> {
    let later = create.deliver_at.filter(|at| *at > now);
    let revs = match later {
        Some(_) => vec![None; users.len()],
        None => {
            let sql = "INSERT INTO inbox_state (app_id, user_id, rev) SELECT $1, u, 1 FROM unnest($2::text[]) AS u
                ON CONFLICT (app_id, user_id) DO UPDATE SET rev = inbox_state.rev + 1 RETURNING user_id, rev";
            let query = tx.rows(sql).bind(create.app).bind(users);
            let taken: Vec<(String, i64)> = query.fetch_all(tx.on()).await?;
            let taken: HashMap<String, i64> = taken.into_iter().collect();
            users.iter().map(|user| taken.get(user).copied()).collect()
        }
    };
    let draft = create.draft;
    let sql = format!(
        "INSERT INTO user_notifications (id, app_id, user_id, org_id, type, severity, title, message, action_url, image_url,
            actor, object, data, transaction_id, group_key, rev, visible_at, announced_at, expires_at, created_at, updated_at,
            channels)
        SELECT n, $1, u, $5, $6, $7, $8, $9, $10, $11, $12::json, $13::json, $14::json, $15, $16, r, $17, $18, $19, $20, $20,
            $21::json
            FROM unnest($2::text[], $3::uuid[], $4::bigint[]) AS t(u, n, r)
        {} RETURNING user_id, {COLUMNS}",
        if draft.group_key.is_some() { GROW } else { "" }
    );
    let rows = tx
        .query(&sql)
        .bind(create.app)
        .bind(users)
        .bind(ids)
        .bind(&revs)
        .bind(&draft.org_id)
        .bind(&draft.kind)
        .bind(draft.severity.as_str())
        .bind(&draft.title)
        .bind(&draft.message)
        .bind(&draft.action_url)
        .bind(&draft.image_url)
        .bind(draft.actor.as_ref().map(json))
        .bind(draft.object.as_ref().map(json))
        .bind(draft.data.as_ref().map(json))
        .bind(create.transaction_id)
        .bind(&draft.group_key)
        .bind(later.unwrap_or(now))
        .bind(later.is_none().then_some(now))
        .bind(draft.expires_at)
        .bind(now)
        .bind(draft.channels.as_ref().map(json))
        .fetch_all(tx.on())
        .await?;
    if later.is_some() {
        return Ok(Vec::new());
    }
    let mut made = Vec::with_capacity(rows.len());
    for row in &rows {
        made.push((row.try_get::<String, _>("user_id")?, notification(row)?));
    }
    tell(tx, create.app, &made, now).await?;
    Ok(made)
}

/// An event for each of these.
async fn tell(tx: &mut Tx, app: &str, made: &[(String, Notification)], now: Timestamp) -> Result<(), StoreError> {
    let users: Vec<&str> = made.iter().map(|(user, _)| user.as_str()).collect();
    let sql = "SELECT u,
        (SELECT count(*) FROM (SELECT 1 FROM user_notifications WHERE app_id = $1 AND user_id = u AND read_at IS NULL
            AND archived_at IS NULL AND deleted_at IS NULL AND announced_at IS NOT NULL AND (expires_at IS NULL OR expires_at > $3)
            ORDER BY visible_at DESC LIMIT $4) unread),
        (SELECT count(*) FROM (SELECT 1 FROM user_notifications WHERE app_id = $1 AND user_id = u AND seen_at IS NULL
            AND archived_at IS NULL AND deleted_at IS NULL AND announced_at IS NOT NULL AND (expires_at IS NULL OR expires_at > $3)
            ORDER BY visible_at DESC LIMIT $4) unseen)
        FROM unnest($2::text[]) AS u";
    let query = tx.rows(sql).bind(app).bind(&users).bind(now).bind(Counts::MOST);
    let counted: Vec<(String, i64, i64)> = query.fetch_all(tx.on()).await?;
    let counted: HashMap<&str, Counts> = counted
        .iter()
        .map(|(user, unread, unseen)| (user.as_str(), Counts { unread: *unread, unseen: *unseen }))
        .collect();
    let (mut revs, mut events, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
    for (user, notification) in made {
        let rev = notification.rev.unwrap_or_default();
        let state = InboxState { rev, counts: counted.get(user.as_str()).copied().unwrap_or_default() };
        let event = if notification.group_count == 1 { EventName::Created } else { EventName::Updated };
        revs.push(rev);
        events.push(event.as_str());
        payloads.push(envelope(app, user, state, now, About::One(notification)));
    }
    let sql = "INSERT INTO outbox (app_id, user_id, rev, event, payload, available_at, created_at)
        SELECT $1, u, r, e, p, $6, $6 FROM unnest($2::text[], $3::bigint[], $4::text[], $5::text[]) AS t(u, r, e, p)";
    let query = tx.query(sql).bind(app).bind(&users).bind(&revs).bind(&events).bind(&payloads).bind(now);
    query.execute(tx.on()).await?;
    Ok(())
}
