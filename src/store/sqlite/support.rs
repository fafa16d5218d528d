//! Conversations with the support.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;

use super::{Sqlite, people, tasks};
use crate::store::StoreError;
use crate::store::people::Inbound;
use crate::store::support::{Support, SupportChange, SupportEvent, SupportSession, Whose};
use crate::store::tasks::NewTask;
use crate::store::time::Timestamp;

#[async_trait]
impl Support for Sqlite {
    async fn apply_to_support(
        &self,
        website: &str,
        inbound: &Inbound<'_>,
        event: &SupportEvent,
        task: Option<&NewTask<'_>>,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let mut tx = self.write().await?;
        let place = (website, event.session.as_str());
        let known = find(&mut tx, place, now).await?;
        if !people::note(&mut tx, inbound, now).await? {
            return Ok(known.user);
        }
        let (proven, is_of_user) = match &event.change {
            SupportChange::Proven(emails) => (owner(&mut tx, emails).await?, false),
            SupportChange::Email(email) => (None, is_of(&mut tx, known.user.as_deref(), email).await?),
            _ => (None, false),
        };
        let next = known.told(event, proven, is_of_user, now);
        let state = if let SupportChange::State(state) = &event.change { Some(state.as_str()) } else { None };
        let sql = "UPDATE support_sessions SET user_id = $3, verified = $3 IS NOT NULL, changed_at = $4, told_at = $5,
                state = coalesce($6, state), updated_at = $7 WHERE website_id = $1 AND session_id = $2";
        let put = sqlx::query(sql).bind(place.0).bind(place.1).bind(&next.user).bind(next.changed_at);
        put.bind(next.told_at).bind(state).bind(now).execute(&mut *tx).await?;
        if let Some(task) = task.filter(|_| next.user.is_none()) {
            tasks::note(&mut tx, task, now).await?;
        }
        tx.commit().await?;
        Ok(next.user)
    }

    async fn whose_support(
        &self,
        website: &str,
        session: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Whose, StoreError> {
        let mut tx = self.write().await?;
        let whose = find(&mut tx, (website, session), now).await?.whose(since, now);
        if whose == Whose::Ask {
            let sql = "UPDATE support_sessions SET asked_at = $3 WHERE website_id = $1 AND session_id = $2";
            sqlx::query(sql).bind(website).bind(session).bind(now).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(whose)
    }

    async fn support_answered(
        &self,
        website: &str,
        session: &str,
        emails: &[String],
        asked: Timestamp,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        let mut tx = self.write().await?;
        let known = find(&mut tx, (website, session), now).await?;
        let user = owner(&mut tx, emails).await?;
        let next = known.answered(user, asked);
        let sql = "UPDATE support_sessions SET user_id = $3, verified = $3 IS NOT NULL, answered_at = $4
            WHERE website_id = $1 AND session_id = $2";
        let put = sqlx::query(sql).bind(website).bind(session).bind(&next.user).bind(next.answered_at);
        put.execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(next.user)
    }

    async fn support_of(&self, website: &str, user: &str) -> Result<Option<String>, StoreError> {
        let sql = "SELECT session_id FROM support_sessions WHERE user_id = $1 AND website_id = $2
            ORDER BY updated_at DESC, session_id LIMIT 1";
        Ok(sqlx::query_scalar(sql).bind(user).bind(website).fetch_optional(&self.readers).await?)
    }
}

/// What is known of a conversation; of a new one that it is there.
async fn find(
    connection: &mut SqliteConnection,
    (website, session): (&str, &str),
    now: Timestamp,
) -> Result<SupportSession, StoreError> {
    let sql =
        "INSERT INTO support_sessions (website_id, session_id, updated_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    sqlx::query(sql).bind(website).bind(session).bind(now).execute(&mut *connection).await?;
    let sql = "SELECT user_id, changed_at, told_at, asked_at, answered_at FROM support_sessions
        WHERE website_id = $1 AND session_id = $2";
    let (user, changed_at, told_at, asked_at, answered_at) =
        sqlx::query_as(sql).bind(website).bind(session).fetch_one(connection).await?;
    Ok(SupportSession { user, changed_at, told_at, asked_at, answered_at })
}

/// The only user who has one of these addresses; none if there are several.
async fn owner(connection: &mut SqliteConnection, emails: &[String]) -> Result<Option<String>, StoreError> {
    let mut found = BTreeSet::new();
    for email in emails {
        let sql = "SELECT id FROM users WHERE lower(email) = lower($1) LIMIT 2";
        let users: Vec<String> = sqlx::query_scalar(sql).bind(email).fetch_all(&mut *connection).await?;
        found.extend(users);
    }
    Ok(found.pop_first().filter(|_| found.is_empty()))
}

/// Whether the address is this user's.
async fn is_of(connection: &mut SqliteConnection, user: Option<&str>, email: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE id = $1 AND lower(email) = lower($2))";
    Ok(sqlx::query_scalar(sql).bind(user).bind(email).fetch_one(connection).await?)
}
