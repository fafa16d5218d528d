//! What the store can fail with, and what either database's errors mean.

/// Why something was not kept or not found out. Nothing is half done then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, has no connection free in time, or did not answer in time.
    #[error("the database cannot be reached or does not answer in time")]
    Unavailable(#[source] sqlx::Error),
    /// It has no room left.
    #[error("the database has no room left")]
    Full(#[source] sqlx::Error),
    /// The id of the request belongs to another one.
    #[error("this transaction id belongs to another request")]
    Conflict,
    /// The job of which this was a step was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
    /// It says what makes no sense to Herald, or refuses a statement: a fault of ours, or a schema that others changed.
    #[error("the database refuses: {0}")]
    Broken(#[source] sqlx::Error),
}

/// SQLite: no room on the disk, an error of the disk, another process holds the file.
const SQLITE_FULL: &str = "13";
const SQLITE_IO_ERROR: u32 = 10;
const SQLITE_BUSY: [&str; 2] = ["5", "6"];
/// Postgres: the disk is full; and classes or codes of what passes: no connection, too many of them, an end, a statement or transaction that
/// took too long, a lock that was not had, a server that only reads, as after a failover.
const POSTGRES_FULL: &str = "53100";
const POSTGRES_AWAY: [&str; 10] = ["08", "53", "57P", "57014", "55P03", "40001", "40P01", "25006", "25P03", "25P04"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code()).map(|code| code.into_owned());
        let code = code.as_deref().unwrap_or_default();
        let is_disk = code.parse::<u32>().is_ok_and(|code| code < 10_000 && code & 0xff == SQLITE_IO_ERROR);
        match &error {
            _ if code == SQLITE_FULL || code == POSTGRES_FULL || is_disk => Self::Full(error),
            _ if SQLITE_BUSY.contains(&code) => Self::Unavailable(error),
            _ if code.len() == 5 && POSTGRES_AWAY.iter().any(|away| code.starts_with(away)) => Self::Unavailable(error),
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::BeginFailed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            _ => Self::Broken(error),
        }
    }
}
