//! The embedded default: one SQLite file (section 8.3).
//!
//! One connection writes, each transaction from `BEGIN IMMEDIATE` on, so that writers wait for each other in order and none meets another's
//! half-done work; a few others read meanwhile. What is committed is on the disk (`synchronous = FULL`): a notification that was answered
//! survives a power cut.

mod accounts;
mod due;
mod files;
mod inbox;
mod jobs;
mod make;
mod outbox;
mod people;
mod preferences;
mod support;
mod tasks;
mod tokens;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, SqlStr, Sqlite as Database, Transaction};
use uuid::Uuid;

pub use tokens::tokens_in;

use super::event::{About, envelope};
use super::notification::{Counts, InboxState};
#[cfg(doc)]
use super::tasks::TaskKind;
use super::time::Timestamp;
use super::{Inbox, Store, StoreError};

/// What makes and changes the tables, in this order. What was released once is never edited: the database remembers its digest.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "begin", include_str!("../../../migrations/sqlite/0001_begin.sql")),
    (2, "ways", include_str!("../../../migrations/sqlite/0002_ways.sql")),
    (3, "integrations", include_str!("../../../migrations/sqlite/0003_integrations.sql")),
    (4, "files", include_str!("../../../migrations/sqlite/0004_files.sql")),
    (5, "support", include_str!("../../../migrations/sqlite/0005_support.sql")),
    (6, "accounts", include_str!("../../../migrations/sqlite/0006_accounts.sql")),
];

/// Connections that read.
const READERS: u32 = 4;
/// How long somebody waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
    default_app: String,
    dispatches: bool,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made or read.
    #[error("the folder of the database cannot be made")]
    Folder(#[source] std::io::Error),
    /// It is no database, or not Herald's.
    #[error("the database cannot be opened")]
    Database(#[from] sqlx::Error),
    /// It was made by a newer Herald, or changed by hand.
    #[error("the database's tables cannot be brought up to date")]
    Migrations(#[from] MigrateError),
}

impl Sqlite {
    /// Opens the file, makes it if it is not there, and brings its tables up to date. Rows that others insert under the app `default`
    /// become `default_app`'s.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: &Path, default_app: &str) -> Result<Self, OpenError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(OpenError::Folder)?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(BUSY)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false) // a file does not go away
            .after_release(|connection, _| Box::pin(is_clean(connection)))
            .connect_with(options.clone().create_if_missing(true))
            .await?;
        migrator().run(&writer).await?;
        sqlx::query("INSERT INTO store (id) SELECT $1 WHERE NOT EXISTS (SELECT 1 FROM store)")
            .bind(Uuid::now_v7().to_string())
            .execute(&writer)
            .await?;
        // Whoever had taken them was the last process with this file, and is gone.
        sqlx::query("UPDATE outbox SET locked_until = NULL WHERE delivered_at IS NULL").execute(&writer).await?;
        sqlx::query("UPDATE fanout_jobs SET locked_until = NULL WHERE status = 'running'").execute(&writer).await?;
        sqlx::query("UPDATE jobs SET locked_until = NULL WHERE done_at IS NULL").execute(&writer).await?;
        sqlx::query("UPDATE user_integrations SET refresh_locked_until = NULL WHERE refresh_locked_until IS NOT NULL")
            .execute(&writer)
            .await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false)
            .connect_with(options.read_only(true))
            .await?;
        Ok(Self { writer, readers, default_app: default_app.to_owned(), dispatches: false })
    }

    /// Whether it is noted of what is announced that it is to go by other ways than the inbox too ([`TaskKind::Dispatch`]).
    #[must_use]
    pub fn dispatching(self, dispatches: bool) -> Self {
        Self { dispatches, ..self }
    }

    async fn write(&self) -> Result<Transaction<'static, Database>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Everything that is read in it is of one moment.
    async fn read(&self) -> Result<Transaction<'static, Database>, StoreError> {
        Ok(self.readers.begin().await?)
    }
}

/// Whether a connection can be used again. A full disk ends a transaction on SQLite's side alone: the rollback that follows then fails, and
/// the connection would begin every later transaction within one that is none.
async fn is_clean(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    if connection.is_in_transaction() {
        connection.ping().await?; // after whatever rollback was still to be done
    }
    Ok(!connection.is_in_transaction())
}

fn migrator() -> Migrator {
    let migration = |&(version, name, sql): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect())
}

#[async_trait]
impl Store for Sqlite {
    async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.readers).await?;
        Ok(())
    }

    async fn id(&self) -> Result<Uuid, StoreError> {
        let id: String = sqlx::query_scalar("SELECT id FROM store").fetch_one(&self.readers).await?;
        Ok(id.parse().map_err(|error: uuid::Error| sqlx::Error::Decode(error.into()))?)
    }

    async fn purge(&self, keep: Duration, limit: usize, now: Timestamp) -> Result<bool, StoreError> {
        self.purge_rows(keep, limit, now).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

const NEXT_REV: &str = "INSERT INTO inbox_state (app_id, user_id, rev) VALUES ($1, $2, 1)
    ON CONFLICT (app_id, user_id) DO UPDATE SET rev = inbox_state.rev + 1 RETURNING rev";

/// Takes the inbox's next revision.
async fn next_rev(connection: &mut SqliteConnection, inbox: Inbox<'_>) -> Result<i64, StoreError> {
    Ok(sqlx::query_scalar(NEXT_REV).bind(inbox.app).bind(inbox.user).fetch_one(connection).await?)
}

/// Where the inbox stands.
async fn state(connection: &mut SqliteConnection, inbox: Inbox<'_>, now: Timestamp) -> Result<InboxState, StoreError> {
    let sql = "SELECT rev FROM inbox_state WHERE app_id = $1 AND user_id = $2";
    let rev: Option<i64> =
        sqlx::query_scalar(sql).bind(inbox.app).bind(inbox.user).fetch_optional(&mut *connection).await?;
    Ok(InboxState { rev: rev.unwrap_or_default(), counts: counts(connection, inbox, now).await? })
}

const COUNTS: &str = "SELECT
    (SELECT count(*) FROM (SELECT 1 FROM user_notifications INDEXED BY un_unread_idx WHERE app_id = $1 AND user_id = $2 AND read_at IS NULL
        AND archived_at IS NULL AND deleted_at IS NULL AND announced_at IS NOT NULL AND (expires_at IS NULL OR expires_at > $3)
        ORDER BY visible_at DESC LIMIT $4)),
    (SELECT count(*) FROM (SELECT 1 FROM user_notifications INDEXED BY un_unseen_idx WHERE app_id = $1 AND user_id = $2 AND seen_at IS NULL
        AND archived_at IS NULL AND deleted_at IS NULL AND announced_at IS NOT NULL AND (expires_at IS NULL OR expires_at > $3)
        ORDER BY visible_at DESC LIMIT $4))";

async fn counts(connection: &mut SqliteConnection, inbox: Inbox<'_>, now: Timestamp) -> Result<Counts, StoreError> {
    let (unread, unseen) = sqlx::query_as(COUNTS)
        .bind(inbox.app)
        .bind(inbox.user)
        .bind(now)
        .bind(Counts::MOST)
        .fetch_one(connection)
        .await?;
    Ok(Counts { unread, unseen })
}

/// Puts an event about the revision that was just taken into the outbox, and returns where the inbox stands with it.
async fn tell(
    connection: &mut SqliteConnection,
    inbox: Inbox<'_>,
    rev: i64,
    event: &str,
    about: About<'_>,
    now: Timestamp,
) -> Result<InboxState, StoreError> {
    let state = InboxState { rev, counts: counts(connection, inbox, now).await? };
    put_event(connection, inbox, state, event, about, now).await?;
    Ok(state)
}

/// The same, where it is known already where the inbox stands.
async fn put_event(
    connection: &mut SqliteConnection,
    inbox: Inbox<'_>,
    state: InboxState,
    event: &str,
    about: About<'_>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO outbox (app_id, user_id, rev, event, payload, available_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $6)";
    sqlx::query(sql)
        .bind(inbox.app)
        .bind(inbox.user)
        .bind(state.rev)
        .bind(event)
        .bind(envelope(inbox.app, inbox.user, state, now, about))
        .bind(now)
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether the user has a row, a new one if need be; never for one that was deleted.
async fn is_known(
    connection: &mut SqliteConnection,
    user: &str,
    only_known: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    if !only_known {
        let sql = "INSERT INTO users (id, created_at, updated_at) SELECT $1, $2, $2
            WHERE NOT EXISTS (SELECT 1 FROM user_tombstones WHERE id = $1) ON CONFLICT DO NOTHING";
        sqlx::query(sql).bind(user).bind(now).execute(&mut *connection).await?;
    }
    let found: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM users WHERE id = $1").bind(user).fetch_optional(connection).await?;
    Ok(found.is_some())
}
