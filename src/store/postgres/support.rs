//! Conversations with the support.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{Postgres, Tx, again, people, tasks};
use crate::store::StoreError;
use crate::store::people::Inbound;
use crate::store::support::{Support, SupportChange, SupportEvent, SupportSession, Whose};
use crate::store::tasks::NewTask;
use crate::store::time::Timestamp;

#[async_trait]
impl Support for Postgres {
    async fn apply_to_support(
        &self,
        website: &str,
        inbound: &Inbound<'_>,
        event: &SupportEvent,
        task: Option<&NewTask<'_>>,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
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
            let sql =
                "UPDATE support_sessions SET user_id = $3, verified = $3 IS NOT NULL, changed_at = $4, told_at = $5,
                    state = coalesce($6, state), updated_at = $7 WHERE website_id = $1 AND session_id = $2";
            let put = tx.query(sql).bind(place.0).bind(place.1).bind(&next.user).bind(next.changed_at);
            put.bind(next.told_at).bind(state).bind(now).execute(tx.on()).await?;
            if let Some(task) = task.filter(|_| next.user.is_none()) {
                tasks::note(&mut tx, task, now).await?;
            }
            tx.commit().await?;
            Ok(next.user)
        })
        .await
    }

    async fn whose_support(
        &self,
        website: &str,
        session: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Whose, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let whose = find(&mut tx, (website, session), now).await?.whose(since, now);
            if whose == Whose::Ask {
                let sql = "UPDATE support_sessions SET asked_at = $3 WHERE website_id = $1 AND session_id = $2";
                tx.query(sql).bind(website).bind(session).bind(now).execute(tx.on()).await?;
            }
            tx.commit().await?;
            Ok(whose)
        })
        .await
    }

    async fn support_answered(
        &self,
        website: &str,
        session: &str,
        emails: &[String],
        asked: Timestamp,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let known = find(&mut tx, (website, session), now).await?;
            let user = owner(&mut tx, emails).await?;
            let next = known.answered(user, asked);
            let sql = "UPDATE support_sessions SET user_id = $3, verified = $3 IS NOT NULL, answered_at = $4
                WHERE website_id = $1 AND session_id = $2";
            let put = tx.query(sql).bind(website).bind(session).bind(&next.user).bind(next.answered_at);
            put.execute(tx.on()).await?;
            tx.commit().await?;
            Ok(next.user)
        })
        .await
    }

    async fn support_of(&self, website: &str, user: &str) -> Result<Option<String>, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let sql = "SELECT session_id FROM support_sessions WHERE user_id = $1 AND website_id = $2
                ORDER BY updated_at DESC, session_id LIMIT 1";
            let found = tx.value(sql).bind(user).bind(website).fetch_optional(tx.on()).await?;
            tx.commit().await?;
            Ok(found)
        })
        .await
    }
}

/// What is known of a conversation, which stays so until the transaction ends; of a new one that it is there.
async fn find(tx: &mut Tx, (website, session): (&str, &str), now: Timestamp) -> Result<SupportSession, StoreError> {
    let sql =
        "INSERT INTO support_sessions (website_id, session_id, updated_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    tx.query(sql).bind(website).bind(session).bind(now).execute(tx.on()).await?;
    let sql = "SELECT user_id, changed_at, told_at, asked_at, answered_at FROM support_sessions
        WHERE website_id = $1 AND session_id = $2 FOR UPDATE";
    let (user, changed_at, told_at, asked_at, answered_at) =
        tx.rows(sql).bind(website).bind(session).fetch_one(tx.on()).await?;
    Ok(SupportSession { user, changed_at, told_at, asked_at, answered_at })
}

/// The only user who has one of these addresses; none if there are several.
async fn owner(tx: &mut Tx, emails: &[String]) -> Result<Option<String>, StoreError> {
    let mut found = BTreeSet::new();
    for email in emails {
        let sql = "SELECT id FROM users WHERE lower(email) = lower($1) LIMIT 2";
        let users: Vec<String> = tx.value(sql).bind(email).fetch_all(tx.on()).await?;
        found.extend(users);
    }
    Ok(found.pop_first().filter(|_| found.is_empty()))
}

/// Whether the address is this user's.
async fn is_of(tx: &mut Tx, user: Option<&str>, email: &str) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE id = $1 AND lower(email) = lower($2))";
    Ok(tx.value(sql).bind(user).bind(email).fetch_one(tx.on()).await?)
}
