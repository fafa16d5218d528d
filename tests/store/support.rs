//! A database of the test's own, and what most tests do with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use herald::store::notification::{Draft, Filter, InboxState, Notification};
use herald::store::postgres::Options;
use herald::store::sending::{Create, Created};
use herald::store::sqlite::Sqlite;
use herald::store::time::Timestamp;
use herald::store::{Inbox, Store, StoreError};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;

use super::postgres::Postgres;

pub(crate) const APP: &str = "shop";
pub(crate) const ANN: Inbox<'static> = Inbox { app: APP, user: "user_ann" };

/// A store, and where it lies.
pub(crate) struct Fixture {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) place: Place,
    /// When the test begins; later moments are made from it.
    pub(crate) start: Timestamp,
}

/// Where a store lies.
pub(crate) enum Place {
    /// In a folder that goes with the test.
    File(TempDir),
    /// In a schema; the server goes with the test, if it is the test's own.
    Server(Postgres),
}

/// A file.
pub(crate) async fn sqlite() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("herald.db"), APP).await.unwrap();
    Fixture::new(Arc::new(store.dispatching(true)), Place::File(folder))
}

/// A schema of Postgres.
pub(crate) async fn postgres() -> Fixture {
    let server = Postgres::start().await;
    let store = connect(&server);
    store.prepare().await.unwrap();
    Fixture::new(Arc::new(store.dispatching(true)), Place::Server(server))
}

/// Herald's store in a schema.
pub(crate) fn connect(server: &Postgres) -> herald::store::postgres::Postgres {
    herald::store::postgres::Postgres::new(options(server), APP).unwrap()
}

pub(crate) fn options(server: &Postgres) -> Options {
    Options {
        url: herald_protocol::Secret::new(&server.url),
        schema: server.schema.clone(),
        max_connections: 5,
        transaction_pooler: None,
        migrate: true,
    }
}

impl Fixture {
    pub(crate) fn new(store: Arc<dyn Store>, place: Place) -> Self {
        Self { store, place, start: Timestamp::from_micros(1_790_000_000_000_000) }
    }

    /// Another, empty one of the same kind.
    pub(crate) async fn anew(&self) -> Self {
        match self.place {
            Place::File(_) => sqlite().await,
            Place::Server(_) => postgres().await,
        }
    }

    /// Does something that Herald does not know of: what an app's own code does with its database.
    pub(crate) async fn execute(&self, sqlite: &'static str, postgres: &'static str) {
        match &self.place {
            Place::File(_) => {
                let options = SqliteConnectOptions::new().filename(self.file()).foreign_keys(true);
                let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
                sqlx::raw_sql(sqlite).execute(&mut connection).await.unwrap();
            }
            Place::Server(server) => {
                sqlx::raw_sql(postgres).execute(&mut server.connect().await).await.unwrap();
            }
        }
    }

    /// The file, where it is one.
    pub(crate) fn file(&self) -> PathBuf {
        match &self.place {
            Place::File(folder) => folder.path().join("herald.db"),
            Place::Server(_) => panic!("this is no file"),
        }
    }

    /// So many seconds after the beginning.
    pub(crate) fn at(&self, seconds: u64) -> Timestamp {
        self.start.after(Duration::from_secs(seconds))
    }

    /// Creates a notification for these users at this second.
    pub(crate) async fn create(&self, id: &str, users: &[&str], draft: &Draft, second: u64) -> Created {
        self.try_create(id, "hash", users, draft, None, second).await.unwrap()
    }

    pub(crate) async fn try_create(
        &self,
        id: &str,
        hash: &str,
        users: &[&str],
        draft: &Draft,
        deliver_at: Option<Timestamp>,
        second: u64,
    ) -> Result<Created, StoreError> {
        let recipients: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let create = Create {
            app: APP,
            transaction_id: id,
            request_hash: hash,
            recipients: &recipients,
            draft,
            deliver_at,
            only_known: false,
            wanted: None,
            job: None,
        };
        self.store.create(&create, self.at(second)).await
    }

    /// A notification in Ann's inbox.
    pub(crate) async fn one(&self, title: &str, second: u64) -> Notification {
        self.create(title, &[ANN.user], &draft(title), second).await;
        let items = self.list(&Filter::default(), second).await;
        items.into_iter().find(|item| item.draft.title == title).unwrap()
    }

    pub(crate) async fn list(&self, filter: &Filter, second: u64) -> Vec<Notification> {
        self.store.list(ANN, filter, None, 100, self.at(second)).await.unwrap().items
    }

    pub(crate) async fn state(&self, second: u64) -> (i64, i64, i64) {
        numbers(self.store.state(ANN, self.at(second)).await.unwrap())
    }

    /// The events that wait, as (revision, name), published with this.
    pub(crate) async fn events(&self, second: u64) -> Vec<(i64, String, serde_json::Value)> {
        let now = self.at(second);
        let taken = self.store.take_outgoing(1_000, now.after(Duration::from_secs(30)), now).await.unwrap();
        let ids: Vec<i64> = taken.iter().map(|event| event.id).collect();
        self.store.published(&ids, now).await.unwrap();
        let told = |event: herald::store::sending::Outgoing| {
            (event.rev, event.event, serde_json::from_str(&event.payload).unwrap())
        };
        taken.into_iter().map(told).collect()
    }
}

/// Revision, unread, unseen.
pub(crate) fn numbers(state: InboxState) -> (i64, i64, i64) {
    (state.rev, state.counts.unread, state.counts.unseen)
}

pub(crate) fn draft(title: &str) -> Draft {
    Draft { kind: "comment.mentioned".to_owned(), title: title.to_owned(), ..Draft::default() }
}

pub(crate) fn titles(items: &[Notification]) -> Vec<&str> {
    items.iter().map(|item| item.draft.title.as_str()).collect()
}
