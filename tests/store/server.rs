//! What only a server can do: be away, be shared, stand behind a pooler, be at another version.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use herald::store::StoreError;
use herald::store::postgres::{MigrationError, Options, Postgres as Store};
use sqlx::{Connection as _, Row as _};
use tempfile::TempDir;

use super::postgres::{Postgres, as_postgres};
use super::support::{ANN, APP, Fixture, Place, connect, draft, options};

#[tokio::test]
async fn what_is_asked_while_it_is_away_fails_at_once_and_works_again_when_it_is_back() {
    let mut server = Postgres::own().await;
    let store = Arc::new(connect(&server));
    let db = Fixture::new(store, Place::Server(Postgres::start().await));
    db.create("before", &[ANN.user], &draft("Before"), 1).await;
    server.stop();
    let start = Instant::now();
    let refused = db.try_create("meanwhile", "hash", &[ANN.user], &draft("Meanwhile"), None, 2).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    server.resume().await;
    let start = Instant::now();
    while db.store.ping().await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(db.state(3).await, (1, 1, 1), "nothing is half done");
    db.create("meanwhile", &[ANN.user], &draft("Meanwhile"), 4).await;
    assert_eq!(db.state(5).await, (2, 2, 2));
}

#[tokio::test]
async fn nodes_that_start_at_once_make_the_tables_once() {
    let server = Postgres::start().await;
    let stores: Vec<Store> = (0..3).map(|_| connect(&server)).collect();
    let prepared = futures_util::future::join_all(stores.iter().map(Store::prepare)).await;
    assert!(prepared.iter().all(Result::is_ok), "{prepared:?}");
    let stores = sqlx::query("SELECT count(*) AS n FROM store").fetch_one(&mut server.connect().await).await.unwrap();
    assert_eq!(stores.get::<i64, _>("n"), 1);
}

#[tokio::test]
async fn tables_of_another_version_are_refused_and_what_to_do_is_named() {
    let server = Postgres::start().await;
    let by_hand = Store::new(Options { migrate: false, ..options(&server) }, APP).unwrap();
    let refused = by_hand.prepare().await.unwrap_err();
    assert!(refused.to_string().contains("herald migrate"), "{refused}");
    connect(&server).prepare().await.unwrap();
    by_hand.prepare().await.unwrap();
    let mut connection = server.connect().await;
    let newer = "INSERT INTO migrations VALUES (99, 'later', 'x', now())";
    sqlx::raw_sql(newer).execute(&mut connection).await.unwrap();
    let refused = connect(&server).prepare().await.unwrap_err();
    assert!(matches!(refused, MigrationError::Newer { found: 99, .. }), "{refused}");
    let changed = "DELETE FROM migrations WHERE version = 99; UPDATE migrations SET digest = 'x'";
    sqlx::raw_sql(changed).execute(&mut connection).await.unwrap();
    assert!(matches!(connect(&server).prepare().await, Err(MigrationError::Changed(1))));
}

#[tokio::test]
async fn behind_a_transaction_pooler_nodes_get_in_each_others_way_nowhere() {
    let server = Postgres::start().await;
    let Some(pooler) = Pooler::start(&server) else {
        eprintln!("not run: pgbouncer is not installed");
        return;
    };
    let options = Options { url: pooler.url(), transaction_pooler: Some(true), ..options(&server) };
    let nodes: Vec<_> = (0..3).map(|_| Arc::new(Store::new(options.clone(), APP).unwrap())).collect();
    let start = Instant::now();
    while let Err(error) = nodes[0].prepare().await {
        assert!(error.is_passing() && start.elapsed() < Duration::from_secs(20), "{error}");
    }
    let work = nodes.iter().enumerate().map(|(number, node)| {
        let db = Fixture::new(Arc::clone(node) as _, Place::File(tempfile::tempdir().unwrap()));
        async move {
            for round in 0..20 {
                db.create(&format!("{number}-{round}"), &["user_ann", "user_bob"], &draft("Hello"), 1).await;
                db.list(&herald::store::notification::Filter::default(), 2).await;
                db.events(3).await.len();
            }
        }
    });
    futures_util::future::join_all(work).await;
    let db = Fixture::new(Arc::clone(&nodes[0]) as _, Place::File(tempfile::tempdir().unwrap()));
    assert_eq!(db.state(4).await, (60, 60, 60));
}

#[tokio::test]
async fn two_nodes_that_create_for_many_at_once_wait_for_each_other_and_end() {
    let server = Postgres::start().await;
    let users: Vec<String> = (0..50).map(|number| format!("user_{number:02}")).collect();
    let work = (0..2).map(|node| {
        let db = Fixture::new(Arc::new(connect(&server)), Place::File(tempfile::tempdir().unwrap()));
        let users = users.clone();
        async move {
            for round in 0..10 {
                let users: Vec<&str> = users.iter().map(String::as_str).skip(node).collect();
                db.create(&format!("{node}-{round}"), &users, &draft("Hello"), 1).await;
            }
        }
    });
    futures_util::future::join_all(work).await;
    let db = Fixture::new(Arc::new(connect(&server)), Place::Server(server));
    let last = herald::store::Inbox { app: APP, user: "user_49" };
    assert_eq!(db.store.state(last, db.at(2)).await.unwrap().rev, 20);
}

/// pgbouncer in front of the server, as strict as a pooler can be.
struct Pooler {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    fn start(server: &Postgres) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url: url::Url = server.url.parse().unwrap();
        let version = Command::new("pgbouncer").arg("--version").output().ok()?;
        let version = String::from_utf8(version.stdout).unwrap();
        let minor: u32 = version.split('.').nth(1).unwrap().parse().unwrap();
        // Older ones have never heard of prepared statements.
        let strict = if minor >= 21 { "max_prepared_statements = 0\n" } else { "" };
        let config = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=herald\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 3\n{strict}",
            url.port().unwrap()
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, config).unwrap();
        let mut command = as_postgres(folder.path(), "pgbouncer");
        let process = command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Some(Self { process, port, _folder: folder })
    }

    fn url(&self) -> herald_protocol::Secret {
        herald_protocol::Secret::new(format!("postgres://herald@127.0.0.1:{}/postgres", self.port))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// As the same test over SQLite, with what the server itself says of its plans.
#[tokio::test]
async fn a_million_notifications_are_no_burden() {
    const ROWS: i64 = 1_000_000;
    let server = Postgres::start().await;
    let db = Fixture::new(Arc::new(connect(&server)), Place::File(tempfile::tempdir().unwrap()));
    db.one("The newest", 2_000_000).await;
    let mut connection = server.connect().await;
    for sql in [
        "INSERT INTO users (id) SELECT 'user_' || i FROM generate_series(0, 999) i",
        "INSERT INTO user_notifications (id, app_id, user_id, type, title, rev, visible_at, announced_at, seen_at, read_at, archived_at)
            SELECT gen_random_uuid(), 'shop', CASE WHEN i <= 100000 THEN 'user_ann' ELSE 'user_' || (i % 1000) END, 'comment.mentioned',
                'Title', i, '2026-09-21'::timestamptz + i * interval '1 s', now(), CASE WHEN i % 10 <> 0 THEN now() END,
                CASE WHEN i % 10 > 1 THEN now() END, CASE WHEN i % 7 = 0 THEN now() END FROM generate_series(1, 1000000) i",
        "UPDATE inbox_state SET rev = 1000001",
        "ANALYZE",
    ] {
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
    use herald::store::notification::{Archived, Counts, Filter, Snoozed, Status};
    let now = db.at(3_000_000);
    let mut pages = Vec::new();
    for (what, filter) in [
        ("inbox", Filter::default()),
        ("unread", Filter { status: Status::Unread, ..Filter::default() }),
        ("archived", Filter { archived: Archived::Only, ..Filter::default() }),
        ("all", Filter { archived: Archived::Include, ..Filter::default() }),
        ("snoozed", Filter { snoozed: Snoozed::Only, ..Filter::default() }),
    ] {
        let mut times = Vec::new();
        for _ in 0..9 {
            let start = Instant::now();
            let page = db.store.list(ANN, &filter, None, 20, now).await.unwrap();
            times.push(start.elapsed());
            assert_eq!(page.items.len(), if what == "snoozed" { 0 } else { 20 }, "{what}");
            assert_eq!(page.state.counts, Counts { unread: Counts::MOST, unseen: Counts::MOST });
        }
        times.sort_unstable();
        pages.push((what, times[4]));
    }
    println!("first pages at {ROWS} notifications: {pages:?}");
    let inbox = "app_id = 'shop' AND user_id = 'user_ann'";
    let list = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now()) AND visible_at <= now() + interval '9 years'";
    for (what, sql) in [
        ("first page", format!("SELECT * FROM user_notifications WHERE {inbox} AND {list} AND archived_at IS NULL ORDER BY visible_at DESC, id DESC LIMIT 21")),
        ("unread count", format!("SELECT 1 FROM user_notifications WHERE {inbox} AND {list} AND read_at IS NULL AND archived_at IS NULL ORDER BY visible_at DESC LIMIT 1000")),
        ("unseen count", format!("SELECT 1 FROM user_notifications WHERE {inbox} AND {list} AND seen_at IS NULL AND archived_at IS NULL ORDER BY visible_at DESC LIMIT 1000")),
        ("changes", format!("SELECT * FROM user_notifications WHERE {inbox} AND rev > 7 ORDER BY rev, id LIMIT 101")),
        ("due", "SELECT * FROM user_notifications WHERE announced_at IS NULL AND deleted_at IS NULL AND visible_at <= now() ORDER BY visible_at LIMIT 200".to_owned()),
        ("expiry", "SELECT * FROM user_notifications WHERE expires_at IS NOT NULL AND deleted_at IS NULL AND expires_at <= now() ORDER BY expires_at LIMIT 200".to_owned()),
    ] {
        let explain = || sqlx::AssertSqlSafe(format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}"));
        let mut times = Vec::new();
        let mut plan = String::new();
        for _ in 0..5 {
            let rows = sqlx::query(explain()).fetch_all(&mut connection).await.unwrap();
            plan = rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n");
            let time = plan.lines().find_map(|line| line.trim().strip_prefix("Execution Time: ")?.strip_suffix(" ms"));
            times.push(time.unwrap().parse::<f64>().unwrap());
        }
        times.sort_unstable_by(f64::total_cmp);
        println!("{what}: {} ms in the database", times[2]);
        assert!(plan.contains("Index") && !plan.contains("Sort") && !plan.contains("Seq Scan"), "{what}:\n{plan}");
        if what == "first page" {
            assert!(times[2] <= 5.0, "{what}: {times:?} ms\n{plan}");
        }
    }
    connection.close().await.unwrap();
}
