//! Postgres, for production and for clusters (section 8.3).
//!
//! Everything is done in a transaction of its own that begins by saying in which schema and for how long: so it works alike on a
//! connection of its own and behind a pooler that gives each transaction any connection. Behind such a one nothing is prepared by a name
//! (section 9, trap 2).
//!
//! Who writes to an inbox locks its row of `inbox_state` first: changes of one inbox follow each other, and each reads what the one before
//! has written. Several inboxes are locked in the order of their users' ids.
//!
//! It may be away when the server starts, and at any time after that: what is asked of it fails then, and works again when it is back.

mod accounts;
mod due;
mod files;
mod inbox;
mod jobs;
mod make;
mod migrate;
mod outbox;
mod people;
mod preferences;
mod support;
mod tasks;
mod tokens;

use std::str::FromStr as _;
use std::time::Duration;

use async_trait::async_trait;
use rand::RngExt as _;
use serde::Serialize;
use sqlx::postgres::{PgArguments, PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgRow};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{AssertSqlSafe, FromRow, Postgres as Database, Transaction, Type};
use tokio::sync::{Mutex, OnceCell};
use url::Url;
use uuid::Uuid;

use super::event::{About, envelope};
use super::notification::{Counts, InboxState};
#[cfg(doc)]
use super::tasks::TaskKind;
use super::time::Timestamp;
use super::{Inbox, Store, StoreError};

pub use migrate::MigrationError;

/// How long somebody waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(2);
/// How long a statement may take, and a transaction may stand still.
const STATEMENT: Duration = Duration::from_secs(5);
/// How long all of it may take: a connection that was cut without a word says nothing.
const ALTOGETHER: Duration = Duration::from_secs(15);
/// How often a transaction is tried that met another one, and what the server says then: not serializable, deadlock.
const ATTEMPTS: u32 = 5;
const COLLISIONS: [&str; 2] = ["40001", "40P01"];
/// Parameters of an address that the driver knows.
const PARAMETERS: [&str; 15] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "ssl-ca",
    "ssl-mode",
    "ssl-root-cert",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];
/// The port of transaction poolers, as Supabase has it.
const POOLER_PORT: u16 = 6543;

/// Where it is, and how it is to be used.
#[derive(Clone, Debug)]
pub struct Options {
    /// `postgres://…`, with the password.
    pub url: herald_protocol::Secret,
    /// The schema with Herald's tables: small letters, digits and `_`.
    pub schema: String,
    /// Connections at most.
    pub max_connections: u32,
    /// Whether a pooler gives each transaction any connection; `None`: if the port is that of one.
    pub transaction_pooler: Option<bool>,
    /// Whether tables are made and changed when it is first reached.
    pub migrate: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Postgres {
    pool: PgPool,
    options: Options,
    /// What each transaction begins with.
    settings: String,
    persistent: bool,
    default_app: String,
    dispatches: bool,
    /// Set once the tables are as this Herald needs them.
    prepared: OnceCell<()>,
    /// Held by whoever finds that out.
    preparing: Mutex<()>,
}

impl Postgres {
    /// A database that is not reached yet. Rows that others insert under the app `default` become `default_app`'s.
    ///
    /// # Errors
    /// When the address is none.
    pub fn new(options: Options, default_app: &str) -> Result<Self, sqlx::Error> {
        let address = PgConnectOptions::from_str(&known_parameters(options.url.expose())?)?
            .application_name("herald")
            .extra_float_digits(None);
        let says_so = options.url.expose().contains("pgbouncer=true"); // as Prisma is told of one
        let is_pooled = options.transaction_pooler.unwrap_or(says_so || address.get_port() == POOLER_PORT);
        let address = if is_pooled { address.statement_cache_capacity(0) } else { address };
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(ACQUIRE)
            .connect_lazy_with(address);
        let settings = format!(
            "SET LOCAL search_path TO {}; SET LOCAL statement_timeout TO {}; SET LOCAL idle_in_transaction_session_timeout TO {}",
            options.schema,
            STATEMENT.as_millis(),
            STATEMENT.as_millis()
        );
        if is_pooled {
            tracing::info!("the database is behind a transaction pooler: nothing is prepared there");
        }
        Ok(Self {
            pool,
            options,
            settings,
            persistent: !is_pooled,
            default_app: default_app.to_owned(),
            dispatches: false,
            prepared: OnceCell::new(),
            preparing: Mutex::default(),
        })
    }

    /// Whether it is noted of what is announced that it is to go by other ways than the inbox too ([`TaskKind::Dispatch`]).
    #[must_use]
    pub fn dispatching(self, dispatches: bool) -> Self {
        Self { dispatches, ..self }
    }

    /// Reaches it, and sees to its tables.
    ///
    /// # Errors
    /// See [`MigrationError`].
    pub async fn prepare(&self) -> Result<(), MigrationError> {
        if self.prepared.initialized() {
            return Ok(());
        }
        // Whoever comes meanwhile waits a little and is told to come again: not one after the other for a server that does not answer.
        let Ok(_turn) = tokio::time::timeout(ACQUIRE, self.preparing.lock()).await else {
            return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut).into());
        };
        self.prepared.get_or_try_init(|| migrate::run(self, self.options.migrate)).await.copied()
    }

    /// The server's version.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses.
    pub async fn version(&self) -> Result<String, StoreError> {
        let mut tx = self.open(Mode::Still).await?;
        Ok(tx.value("SHOW server_version").fetch_one(tx.on()).await?)
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        self.begin_as(Mode::Change).await
    }

    async fn begin_as(&self, mode: Mode) -> Result<Tx, StoreError> {
        self.prepare().await?;
        self.open(mode).await
    }

    /// The same before the tables are known to be there.
    async fn open(&self, mode: Mode) -> Result<Tx, StoreError> {
        let begin = match mode {
            Mode::Still => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Mode::Change | Mode::Forgetful => "BEGIN",
        };
        let more = if mode == Mode::Forgetful { "; SET LOCAL synchronous_commit TO off" } else { "" };
        let transaction = self.pool.begin_with(AssertSqlSafe(format!("{begin}; {}{more}", self.settings))).await?;
        Ok(Tx { transaction, persistent: self.persistent })
    }
}

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// To change something, or to read with one statement.
    Change,
    /// To read with several statements, all of one moment.
    Still,
    /// It need not be on the disk when it is over: what a crash of the database takes back is done once more.
    Forgetful,
}

/// A transaction, and how statements are sent in it.
struct Tx {
    transaction: Transaction<'static, Database>,
    persistent: bool,
}

impl Tx {
    fn query<'q>(&self, sql: &'q str) -> Query<'q, Database, PgArguments> {
        sqlx::query(AssertSqlSafe(sql.to_owned())).persistent(self.persistent)
    }

    fn rows<'q, T: for<'r> FromRow<'r, PgRow>>(&self, sql: &'q str) -> QueryAs<'q, Database, T, PgArguments> {
        sqlx::query_as(AssertSqlSafe(sql.to_owned())).persistent(self.persistent)
    }

    fn value<'q, T>(&self, sql: &'q str) -> QueryScalar<'q, Database, T, PgArguments>
    where
        (T,): for<'r> FromRow<'r, PgRow>,
        T: Type<Database>,
    {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).persistent(self.persistent)
    }

    fn on(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

/// Does a transaction, again if it met another one so that the server had to end one of them, within the time that anything may take.
async fn again<T, F>(mut transaction: impl FnMut() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let attempts = async {
        for number in 1..ATTEMPTS {
            match transaction().await {
                Err(StoreError::Unavailable(error)) if is_collision(&error) => {
                    let pause = rand::rng().random_range(0..20 * u64::from(number));
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                done => return done,
            }
        }
        transaction().await
    };
    match tokio::time::timeout(ALTOGETHER, attempts).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut)),
    }
}

fn is_collision(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| COLLISIONS.contains(&&*code))
}

/// The address without what other libraries have put there for themselves, such as Prisma's `pgbouncer=true`: the driver would tell the log.
fn known_parameters(address: &str) -> Result<String, sqlx::Error> {
    let mut url: Url = address.parse().map_err(|error: url::ParseError| sqlx::Error::Configuration(error.into()))?;
    let known: Vec<(String, String)> = url
        .query_pairs()
        .filter(|(name, _)| PARAMETERS.contains(&&**name))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    url.set_query(None);
    if !known.is_empty() {
        url.query_pairs_mut().extend_pairs(known);
    }
    Ok(url.into())
}

/// JSON that is kept as it is written.
fn json(value: &impl Serialize) -> String {
    // Values, and structs of them: they always have a JSON form.
    serde_json::to_string(value).unwrap_or_default()
}

#[async_trait]
impl Store for Postgres {
    async fn ping(&self) -> Result<(), StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            tx.query("SELECT 1").execute(tx.on()).await?;
            tx.commit().await
        })
        .await
    }

    async fn id(&self) -> Result<Uuid, StoreError> {
        again(|| async {
            let mut tx = self.begin().await?;
            let id = tx.value("SELECT id FROM store").fetch_one(tx.on()).await?;
            tx.commit().await?;
            Ok(id)
        })
        .await
    }

    async fn purge(&self, keep: Duration, limit: usize, now: Timestamp) -> Result<bool, StoreError> {
        again(|| self.purge_rows(keep, limit, now)).await
    }

    async fn close(&self) {
        _ = tokio::time::timeout(ALTOGETHER, self.pool.close()).await;
    }
}

/// Keeps others from changing this inbox until the transaction ends.
async fn lock(tx: &mut Tx, inbox: Inbox<'_>) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM inbox_state WHERE app_id = $1 AND user_id = $2 FOR UPDATE";
    tx.query(sql).bind(inbox.app).bind(inbox.user).execute(tx.on()).await?;
    Ok(())
}

/// Takes the inbox's next revision.
async fn next_rev(tx: &mut Tx, inbox: Inbox<'_>) -> Result<i64, StoreError> {
    let sql = "INSERT INTO inbox_state (app_id, user_id, rev) VALUES ($1, $2, 1)
        ON CONFLICT (app_id, user_id) DO UPDATE SET rev = inbox_state.rev + 1 RETURNING rev";
    Ok(tx.value(sql).bind(inbox.app).bind(inbox.user).fetch_one(tx.on()).await?)
}

/// Where the inbox stands.
async fn state(tx: &mut Tx, inbox: Inbox<'_>, now: Timestamp) -> Result<InboxState, StoreError> {
    let sql = "SELECT coalesce((SELECT rev FROM inbox_state WHERE app_id = $1 AND user_id = $2), 0),
        (SELECT count(*) FROM (SELECT 1 FROM user_notifications WHERE app_id = $1 AND user_id = $2 AND read_at IS NULL
            AND archived_at IS NULL AND deleted_at IS NULL AND announced_at IS NOT NULL AND (expires_at IS NULL OR expires_at > $3)
            ORDER BY visible_at DESC LIMIT $4) unread),
        (SELECT count(*) FROM (SELECT 1 FROM user_notifications WHERE app_id = $1 AND user_id = $2 AND seen_at IS NULL
            AND archived_at IS NULL AND deleted_at IS NULL AND announced_at IS NOT NULL AND (expires_at IS NULL OR expires_at > $3)
            ORDER BY visible_at DESC LIMIT $4) unseen)";
    let query = tx.rows(sql).bind(inbox.app).bind(inbox.user).bind(now).bind(Counts::MOST);
    let (rev, unread, unseen) = query.fetch_one(tx.on()).await?;
    Ok(InboxState { rev, counts: Counts { unread, unseen } })
}

/// Puts an event about the revision that was just taken into the outbox, and returns where the inbox stands with it.
async fn tell(
    tx: &mut Tx,
    inbox: Inbox<'_>,
    event: &str,
    about: About<'_>,
    now: Timestamp,
) -> Result<InboxState, StoreError> {
    let state = state(tx, inbox, now).await?;
    let sql = "INSERT INTO outbox (app_id, user_id, rev, event, payload, available_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $6)";
    tx.query(sql)
        .bind(inbox.app)
        .bind(inbox.user)
        .bind(state.rev)
        .bind(event)
        .bind(envelope(inbox.app, inbox.user, state, now, about))
        .bind(now)
        .execute(tx.on())
        .await?;
    Ok(state)
}

/// Whether the user has a row, a new one if need be; never for one that was deleted.
async fn is_known(tx: &mut Tx, user: &str, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "INSERT INTO users (id, created_at, updated_at) SELECT $1, $2, $2
        WHERE NOT EXISTS (SELECT 1 FROM user_tombstones WHERE id = $1) ON CONFLICT DO NOTHING";
    tx.query(sql).bind(user).bind(now).execute(tx.on()).await?;
    // Whoever is being deleted is waited for.
    let sql =
        "SELECT id FROM users WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM user_tombstones WHERE id = $1) FOR KEY SHARE";
    let known: Option<String> = tx.value(sql).bind(user).fetch_optional(tx.on()).await?;
    Ok(known.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_other_libraries_have_put_into_the_address_is_left_out() {
        for (address, known) in [
            ("postgres://a:b@db:6543/app?pgbouncer=true&connection_limit=1", "postgres://a:b@db:6543/app"),
            ("postgres://a:b@db/app?schema=public&sslmode=require", "postgres://a:b@db/app?sslmode=require"),
            ("postgres://a:b@db/app", "postgres://a:b@db/app"),
        ] {
            assert_eq!(known_parameters(address).unwrap(), known);
        }
    }
}
