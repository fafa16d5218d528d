//! Which database it is, by the configuration, and its opening.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use herald_protocol::Secret;

use super::postgres::{MigrationError, Options, Postgres};
use super::sqlite::{self, Sqlite};
use super::tokens::Tokens as _;
use super::{Store, StoreError};
use crate::config::{Config, DatabaseUrl, Pooler};

/// The file in the data folder, where no other database is configured.
const FILE: &str = "herald.db";

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file.
    #[error("the database {} cannot be opened", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: sqlite::OpenError,
    },
    /// What is configured is no address that a connection could be made to. The cause may hold the password, so it is not kept.
    #[error("the address of the database ({0}) is not right")]
    Address(Box<DatabaseUrl>),
    /// The tables are not as they have to be.
    #[error("the database {url} cannot be used")]
    Tables {
        /// Which.
        url: Box<DatabaseUrl>,
        /// Why.
        #[source]
        cause: MigrationError,
    },
}

/// Opens what is configured. A Postgres that cannot be reached now counts as open: it is asked again whenever something is wanted of it.
///
/// # Errors
/// See [`OpenError`].
pub async fn open(config: &Config) -> Result<Arc<dyn Store>, OpenError> {
    let default_app = config.integrations_app();
    let path = match &config.database.url {
        None => config.server.data_dir.join(FILE),
        Some(DatabaseUrl::Sqlite(path)) => path.clone(),
        Some(url @ DatabaseUrl::Postgres(address)) => {
            let store = postgres(config, url, address, default_app)?;
            match store.prepare().await {
                Ok(()) => {
                    tracing::info!(database = %url, schema = config.database.schema, "users and notifications are kept there")
                }
                Err(error) if error.is_passing() => {
                    tracing::error!(database = %url, "the database cannot be reached; it is tried until it can");
                }
                Err(cause) => return Err(OpenError::Tables { url: Box::new(url.clone()), cause }),
            }
            return Ok(Arc::new(store));
        }
    };
    match Sqlite::open(&path, default_app).await {
        Ok(store) => Ok(Arc::new(store.dispatching(config.dispatch.url.is_some()))),
        Err(cause) => Err(OpenError::File { path, cause }),
    }
}

/// Brings the tables of the configured database up to date; says which it is.
///
/// # Errors
/// See [`OpenError`]; also when it cannot be reached.
pub async fn migrate(config: &Config) -> Result<String, OpenError> {
    let mut config = config.clone();
    config.database.migrate = true;
    if let Some(url @ DatabaseUrl::Postgres(address)) = &config.database.url {
        let store = postgres(&config, url, address, "")?;
        store.prepare().await.map_err(|cause| OpenError::Tables { url: Box::new(url.clone()), cause })?;
        store.close().await;
        return Ok(url.to_string());
    }
    open(&config).await?.close().await;
    let path = config.server.data_dir.join(FILE);
    Ok(config.database.url.map_or_else(|| format!("sqlite:{}", path.display()), |url| url.to_string()))
}

/// What was seen of a database.
#[derive(Debug)]
pub struct Examined {
    /// Which it is.
    pub name: String,
    /// The server's version; none of a file.
    pub version: Option<String>,
    /// What is wrong with its tables.
    pub tables: Option<MigrationError>,
    /// How many stored tokens there are under each key, where that can be told.
    pub tokens: Vec<(String, u64)>,
}

/// Looks at what is configured, and leaves nothing behind.
///
/// # Errors
/// See [`OpenError`]; also when it cannot be reached.
pub async fn examine(config: &Config) -> Result<Examined, OpenError> {
    if let Some(url @ DatabaseUrl::Postgres(address)) = &config.database.url {
        let mut config = config.clone();
        config.database.migrate = false;
        let store = postgres(&config, url, address, "")?;
        let unusable = |cause: StoreError| OpenError::Tables { url: Box::new(url.clone()), cause: cause.into() };
        let version = store.version().await.map_err(unusable)?;
        let tables = store.prepare().await.err();
        let tokens = if tables.is_none() { store.tokens_by_key().await.map_err(unusable)? } else { Vec::new() };
        store.close().await;
        return Ok(Examined { name: url.to_string(), version: Some(version), tables, tokens });
    }
    let path = match &config.database.url {
        Some(DatabaseUrl::Sqlite(path)) => path.clone(),
        _ => config.server.data_dir.join(FILE),
    };
    // What is not there yet is made by the start, in the nearest folder that is.
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let written = if there == path {
        std::fs::OpenOptions::new().append(true).open(&path).map(drop)
    } else {
        let trial = there.join(format!(".herald-doctor-{}", std::process::id()));
        std::fs::File::create_new(&trial).and_then(|_| std::fs::remove_file(&trial))
    };
    let file = |cause| OpenError::File { path: path.clone(), cause };
    written.map_err(|cause| file(sqlite::OpenError::Folder(cause)))?;
    let tokens = match there == path {
        true => sqlite::tokens_in(&path).await.map_err(|cause| file(cause.into()))?,
        false => Vec::new(),
    };
    Ok(Examined { name: format!("sqlite:{}", path.display()), version: None, tables: None, tokens })
}

fn postgres(config: &Config, url: &DatabaseUrl, address: &url::Url, default_app: &str) -> Result<Postgres, OpenError> {
    let options = Options {
        url: Secret::new(address.as_str()),
        schema: config.database.schema.clone(),
        max_connections: u32::try_from(config.database.max_connections).unwrap_or(u32::MAX),
        transaction_pooler: match config.database.pooler {
            Pooler::Auto => None,
            Pooler::Session => Some(false),
            Pooler::Transaction => Some(true),
        },
        migrate: config.database.migrate,
    };
    let store = Postgres::new(options, default_app).map_err(|_| OpenError::Address(Box::new(url.clone())))?;
    Ok(store.dispatching(config.dispatch.url.is_some()))
}
