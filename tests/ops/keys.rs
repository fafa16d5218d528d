//! `herald rotate-keys`, and what the start says of stored tokens that no configured key opens.

use herald::seal::{KeyRing, Place, TokenColumn};
use sqlx::Connection as _;

use crate::process::{Finished, Setup};

pub(crate) const OLD: &str = "old:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=";
pub(crate) const NEW: &str = "new:r3hPcMZsxqmZJKzr2Jq1C4lZsQkqTg4n0kqgSGe8qyo=";

/// A database with one token under the old key, as a server would have stored it.
pub(crate) async fn database() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let herald = Setup::new().env("HERALD_DATA_DIR", folder.path().to_str().unwrap()).start().await;
    herald.signal("TERM");
    assert!(herald.finished().await.status.success());
    let place =
        Place { column: TokenColumn::Access, app: "app-id", user: "user_ann", service: "google", service_user: "1" };
    let sealed = KeyRing::parse(OLD).unwrap().seal("ya29.hunter2", place);
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("herald.db"));
    let mut connection = sqlx::sqlite::SqliteConnection::connect_with(&options).await.unwrap();
    let sql = format!(
        "INSERT INTO users (id, created_at, updated_at) VALUES ('user_ann', 1, 1);
        INSERT INTO user_integrations (id, app_id, user_id, service, service_user_id, access_token_enc, created_at, updated_at)
        VALUES ('018f0000-0000-7000-8000-000000000001', 'app-id', 'user_ann', 'google', '1', '{sealed}', 1, 1)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    folder
}

pub(crate) fn setup(folder: &tempfile::TempDir, keys: &str) -> Setup {
    Setup::new().env("HERALD_DATA_DIR", folder.path().to_str().unwrap()).env("HERALD_TOKEN_KEYS", keys)
}

async fn rotate(folder: &tempfile::TempDir, keys: &str) -> Finished {
    setup(folder, keys).args(["rotate-keys"]).run().await
}

#[tokio::test]
async fn keys_are_replaced_and_the_report_says_when_the_old_one_may_go() {
    let folder = database().await;
    let too_early = rotate(&folder, NEW).await;
    assert!(!too_early.status.success(), "it cannot be read without the old key");
    assert!(too_early.stdout.contains("1 cannot be read"), "{}", too_early.stdout);
    let done = rotate(&folder, &format!("{NEW},{OLD}")).await;
    assert!(done.status.success(), "{}", done.stderr);
    for part in ["1 tokens were brought under the key \"new\"", "Under the key \"new\" there are 1", "may go"] {
        assert!(done.stdout.contains(part), "{part}: {}", done.stdout);
    }
    let again = rotate(&folder, NEW).await;
    assert!(again.status.success() && again.stdout.contains("0 tokens were brought"), "{}", again.stdout);
    for said in [too_early, done, again] {
        assert!(!said.stdout.contains("hunter2") && !said.stderr.contains("hunter2"), "nothing of a token is shown");
    }
}

#[tokio::test]
async fn without_keys_there_is_nothing_to_rotate_to() {
    let said = Setup::new().args(["rotate-keys"]).refused().await;
    assert!(said.contains("HERALD_TOKEN_KEYS"), "{said}");
}

#[tokio::test]
async fn a_key_that_stored_tokens_need_and_nobody_has_is_told_and_ends_the_start_where_that_is_wanted() {
    let folder = database().await;
    let herald = setup(&folder, NEW).start().await;
    herald.logged(&["stored tokens need keys", "\\\"old\\\" (1)"]).await;
    herald.signal("TERM");
    herald.finished().await;
    let said = setup(&folder, NEW).env("HERALD_TOKEN_KEYS_STRICT", "true").refused().await;
    assert!(said.contains("\"old\" (1)"), "{said}");
    let herald = setup(&folder, &format!("{NEW},{OLD}")).env("HERALD_TOKEN_KEYS_STRICT", "true").start().await;
    herald.connect().await;
}
