//! Each hot query at a million notifications: it goes by an index, sorts nothing, and the first page comes at once. (Lists name their index:
//! they fail where it does not serve them.)

use std::time::{Duration, Instant};

use herald::store::notification::{Archived, Counts, Filter, Since, Snoozed, Status};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use super::support::{ANN, sqlite};

const ROWS: i64 = 1_000_000;
/// Of them in Ann's inbox; the others are a thousand users'.
const ANNS: i64 = 100_000;

#[tokio::test]
async fn a_million_notifications_are_no_burden() {
    let db = sqlite().await;
    db.one("The newest", 2_000_000).await;
    let path = db.file();
    let options = SqliteConnectOptions::new().filename(&path).foreign_keys(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    for sql in [
        "PRAGMA synchronous = OFF",
        "INSERT INTO users (id, created_at, updated_at) WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999)
            SELECT 'user_' || i, 1, 1 FROM n",
    ] {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    let fill = "INSERT INTO user_notifications (id, app_id, user_id, type, title, rev, visible_at, announced_at, seen_at, read_at,
            archived_at, created_at, updated_at)
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
        SELECT printf('01900000-0000-7000-8000-%012x', i), 'shop', CASE WHEN i <= $2 THEN 'user_ann' ELSE 'user_' || (i % 1000) END,
            'comment.mentioned', 'Title', i, 1790000000000000 + i * 1000000, 1, CASE WHEN i % 10 <> 0 THEN 1 END,
            CASE WHEN i % 10 > 1 THEN 1 END, CASE WHEN i % 7 = 0 THEN 1 END, 1, 1 FROM n";
    sqlx::query(fill).bind(ROWS).bind(ANNS).execute(&mut connection).await.unwrap();
    sqlx::query("UPDATE inbox_state SET rev = $1").bind(ROWS + 1).execute(&mut connection).await.unwrap();

    let now = db.at(3_000_000);
    let mut first_pages = Vec::new();
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
        first_pages.push((what, times[4]));
    }
    println!("first pages at {ROWS} notifications, {ANNS} of them in the inbox: {first_pages:?}");
    let slowest = first_pages.iter().map(|(_, time)| *time).max().unwrap();
    assert!(slowest < Duration::from_millis(50), "an index is missing: {first_pages:?}");
    let start = Instant::now();
    let changes = db.store.changes(ANN, Since { rev: ANNS - 5, id: None }, 100, now).await.unwrap();
    assert_eq!(changes.items.len(), 5);
    assert!(start.elapsed() < Duration::from_millis(50), "{:?}", start.elapsed());

    let inbox = "app_id = 'shop' AND user_id = 'user_ann'";
    let list = "deleted_at IS NULL AND (expires_at IS NULL OR expires_at > 1) AND announced_at IS NOT NULL";
    for (what, index, sql) in [
        ("unread count", "un_unread_idx", format!("SELECT 1 FROM user_notifications INDEXED BY un_unread_idx WHERE {inbox} AND {list} AND read_at IS NULL AND archived_at IS NULL ORDER BY visible_at DESC LIMIT 1000")),
        ("unseen count", "un_unseen_idx", format!("SELECT 1 FROM user_notifications INDEXED BY un_unseen_idx WHERE {inbox} AND {list} AND seen_at IS NULL AND archived_at IS NULL ORDER BY visible_at DESC LIMIT 1000")),
        ("changes", "un_changes_idx", format!("SELECT * FROM user_notifications WHERE {inbox} AND rev > 7 ORDER BY rev, id LIMIT 101")),
        ("changes, next page", "un_changes_idx", format!("SELECT * FROM user_notifications WHERE {inbox} AND (rev, id) > (7, 'a') ORDER BY rev, id LIMIT 101")),
        ("due", "un_due_idx", "SELECT * FROM user_notifications WHERE announced_at IS NULL AND deleted_at IS NULL AND visible_at <= 1 ORDER BY visible_at LIMIT 200".to_owned()),
        ("expiry", "un_expiry_idx", "SELECT * FROM user_notifications WHERE expires_at IS NOT NULL AND deleted_at IS NULL AND expires_at <= 1 ORDER BY expires_at LIMIT 200".to_owned()),
        ("tasks", "jobs_due_idx", "SELECT id FROM jobs WHERE kind = 'dispatch' AND done_at IS NULL AND available_at <= 1
            AND (locked_until IS NULL OR locked_until <= 1) ORDER BY available_at, user_id, id LIMIT 200".to_owned()),
        ("files", "user_files_user_idx", "SELECT * FROM user_files WHERE app_id = 'shop' AND user_id = 'user_ann' AND status IN ('ready','rejected')
            ORDER BY created_at DESC, id DESC LIMIT 21".to_owned()),
        ("files, next page", "user_files_user_idx", "SELECT * FROM user_files WHERE app_id = 'shop' AND user_id = 'user_ann'
            AND status IN ('ready','rejected') AND (created_at, id) < (7, 'a') ORDER BY created_at DESC, id DESC LIMIT 21".to_owned()),
        ("accounts to be refreshed", "user_integrations_due_idx", "SELECT id FROM user_integrations WHERE is_active AND refresh_at <= 1
            AND refresh_token_enc IS NOT NULL AND service IN (SELECT value FROM json_each('[]'))
            AND (refresh_locked_until IS NULL OR refresh_locked_until <= 1) ORDER BY refresh_at LIMIT 8".to_owned()),
        ("accounts that have expired", "user_integrations_expiry_idx", "SELECT id FROM user_integrations WHERE is_active AND token_expires_at <= 1
            AND access_token_enc IS NOT NULL AND (refresh_token_enc IS NULL OR service NOT IN (SELECT value FROM json_each('[]')))
            ORDER BY token_expires_at LIMIT 200".to_owned()),
        ("outbox", "outbox_undelivered_idx", "SELECT id FROM outbox AS this WHERE delivered_at IS NULL AND available_at <= 1 ORDER BY id LIMIT 200".to_owned()),
    ] {
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get::<String, _>("detail")).collect();
        let plan = plan.join("; ");
        assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{what}: {plan}");
    }
    let page = format!(
        "SELECT * FROM user_notifications INDEXED BY un_inbox_idx WHERE {inbox} AND deleted_at IS NULL AND archived_at IS NULL
            AND announced_at IS NOT NULL ORDER BY visible_at DESC, id DESC LIMIT 21"
    );
    let mut times = Vec::new();
    for _ in 0..9 {
        let start = Instant::now();
        let rows = sqlx::query(sqlx::AssertSqlSafe(page.clone())).fetch_all(&mut connection).await.unwrap();
        times.push(start.elapsed());
        assert_eq!(rows.len(), 21);
    }
    times.sort_unstable();
    println!("first page, without the counts: {:?}", times[4]);
    assert!(times[4] < Duration::from_millis(5), "{times:?}");
    connection.close().await.unwrap();
}
