//! Tables, made and changed in one transaction under a lock, so nodes that start at once do not meet, also behind a transaction pooler.

use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{Mode, Postgres, Tx};
use crate::store::StoreError;
use crate::store::time::Timestamp;

/// What makes and changes the tables, in this order. What was released once is never edited: the database remembers its digest.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "begin", include_str!("../../../migrations/postgres/0001_begin.sql")),
    (2, "ways", include_str!("../../../migrations/postgres/0002_ways.sql")),
    (3, "integrations", include_str!("../../../migrations/postgres/0003_integrations.sql")),
    (4, "files", include_str!("../../../migrations/postgres/0004_files.sql")),
    (5, "support", include_str!("../../../migrations/postgres/0005_support.sql")),
    (6, "accounts", include_str!("../../../migrations/postgres/0006_accounts.sql")),
];
/// The number of the lock, which means this.
const LOCK: i64 = 0x4845_5241_4C44;

/// Why the tables are not as this Herald needs them.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// It cannot be reached, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// They are to be made by hand.
    #[error(
        "the schema {schema:?} is at version {found}, this Herald needs {needed}: run `herald migrate`, or let it be done at the start"
    )]
    Behind {
        /// The schema.
        schema: String,
        /// Its version; 0 where there is nothing.
        found: i64,
        /// What is needed.
        needed: i64,
    },
    /// A newer Herald was here.
    #[error("the schema {schema:?} is at version {found}, made by a newer Herald; this one knows {known}")]
    Newer {
        /// The schema.
        schema: String,
        /// Its version.
        found: i64,
        /// The newest that is known.
        known: i64,
    },
    /// A migration is not the one that was run.
    #[error(
        "migration {0} of the schema is not the one that this Herald knows: the tables are another program's, or were changed by hand"
    )]
    Changed(i64),
}

impl MigrationError {
    /// Whether the tables are only to be brought up to date.
    #[must_use]
    pub const fn is_behind(&self) -> bool {
        matches!(self, Self::Behind { .. })
    }

    /// Whether waiting may help.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Store(StoreError::Unavailable(_)))
    }
}

impl From<MigrationError> for StoreError {
    fn from(error: MigrationError) -> Self {
        match error {
            MigrationError::Store(error) => error,
            other => Self::Broken(sqlx::Error::Configuration(other.into())),
        }
    }
}

pub(super) async fn run(store: &Postgres, migrate: bool) -> Result<(), MigrationError> {
    let schema = &store.options.schema;
    let mut tx = store.open(Mode::Change).await?;
    if is_current(&applied(&mut tx, schema).await?) {
        return Ok(());
    }
    execute(&mut tx, "SET LOCAL statement_timeout TO 0; SET LOCAL lock_timeout TO 60000").await?;
    tx.query("SELECT pg_advisory_xact_lock($1)").bind(LOCK).execute(tx.on()).await.map_err(StoreError::from)?;
    let found = applied(&mut tx, schema).await?;
    for ((version, digest), (known, _, sql)) in found.iter().zip(MIGRATIONS) {
        if (version, digest) != (known, &digest_of(sql)) {
            return Err(MigrationError::Changed(*version));
        }
    }
    let (last, needed) = (found.last().map_or(0, |(version, _)| *version), MIGRATIONS.len());
    if found.len() > needed {
        let known = i64::try_from(needed).unwrap_or(i64::MAX);
        return Err(MigrationError::Newer { schema: schema.clone(), found: last, known });
    }
    let missing = MIGRATIONS.get(found.len()..).unwrap_or_default();
    if !missing.is_empty() && !migrate {
        let needed = i64::try_from(needed).unwrap_or(i64::MAX);
        return Err(MigrationError::Behind { schema: schema.clone(), found: last, needed });
    }
    if found.is_empty() && !missing.is_empty() {
        if !exists(&mut tx, "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)", schema).await? {
            execute(&mut tx, &format!("CREATE SCHEMA {schema}")).await?;
        }
        let sql = "CREATE TABLE migrations (version BIGINT PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL,
            applied_at TIMESTAMPTZ NOT NULL)";
        execute(&mut tx, sql).await?;
    }
    for (version, name, sql) in missing {
        execute(&mut tx, sql).await?;
        let noted = tx
            .query("INSERT INTO migrations (version, name, digest, applied_at) VALUES ($1, $2, $3, $4)")
            .bind(version)
            .bind(*name)
            .bind(digest_of(sql))
            .bind(Timestamp::now());
        noted.execute(tx.on()).await.map_err(StoreError::from)?;
        tracing::info!(version, name, "the database's tables are brought up to date");
    }
    let sql = "INSERT INTO store (id) SELECT $1 WHERE NOT EXISTS (SELECT 1 FROM store)";
    tx.query(sql).bind(Uuid::now_v7()).execute(tx.on()).await.map_err(StoreError::from)?;
    tx.commit().await?;
    Ok(())
}

/// Whether nothing is left to do.
fn is_current(found: &[(i64, String)]) -> bool {
    found.len() == MIGRATIONS.len()
        && found
            .iter()
            .zip(MIGRATIONS)
            .all(|((version, digest), (known, _, sql))| (version, digest) == (known, &digest_of(sql)))
}

/// Versions and digests of what was run here.
async fn applied(tx: &mut Tx, schema: &str) -> Result<Vec<(i64, String)>, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'migrations')";
    if !exists(tx, sql, schema).await? {
        return Ok(Vec::new());
    }
    Ok(tx.rows("SELECT version, digest FROM migrations ORDER BY version").fetch_all(tx.on()).await?)
}

async fn exists(tx: &mut Tx, sql: &str, schema: &str) -> Result<bool, StoreError> {
    Ok(tx.value(sql).bind(schema).fetch_one(tx.on()).await?)
}

/// Statements without parameters.
async fn execute(tx: &mut Tx, sql: &str) -> Result<(), StoreError> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(tx.on()).await?;
    Ok(())
}

fn digest_of(sql: &str) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(sql.as_bytes()))
}
