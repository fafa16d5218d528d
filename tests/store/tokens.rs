//! Tokens of other services: every one comes under the new key, also while servers store new ones, and none is ever lost.

use herald::rotation::{missing_keys, rotate};
use herald::seal::{KeyRing, Place, TokenColumn, key_of};
use sqlx::{AssertSqlSafe, Connection as _};
use uuid::Uuid;

use super::support::{Fixture, Place as Kept};

over_both! {
    every_token_comes_under_the_first_key,
    a_token_that_a_server_stores_meanwhile_stays,
    what_no_key_opens_stays_as_it_is,
}

const OLD: &str = "old:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=";
const NEW: &str = "new_1:r3hPcMZsxqmZJKzr2Jq1C4lZsQkqTg4n0kqgSGe8qyo=";

fn ring(keys: &str) -> KeyRing {
    KeyRing::parse(keys).unwrap()
}

fn place(column: TokenColumn, service_user: &str) -> Place<'_> {
    Place { column, app: "shop", user: "user_ann", service: "google", service_user }
}

/// A row with these tokens, as a server would write it.
async fn put(db: &Fixture, service_user: &str, access: Option<&str>, refresh: Option<&str>) -> Uuid {
    let id = Uuid::now_v7();
    let text = |token: Option<&str>| token.map_or("NULL".to_owned(), |token| format!("'{token}'"));
    let sql = format!(
        "INSERT INTO user_integrations (id, app_id, user_id, service, service_user_id, access_token_enc, refresh_token_enc, \
            created_at, updated_at) VALUES ('{id}', 'shop', 'user_ann', 'google', '{service_user}', {}, {}, ",
        text(access),
        text(refresh)
    );
    run(db, &format!("{sql} 1, 1)"), &format!("{sql} now(), now())")).await;
    id
}

async fn run(db: &Fixture, sqlite: &str, postgres: &str) {
    match &db.place {
        Kept::File(_) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(db.file()).foreign_keys(true);
            let mut connection = sqlx::sqlite::SqliteConnection::connect_with(&options).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(sqlite.to_owned())).execute(&mut connection).await.unwrap();
        }
        Kept::Server(server) => {
            sqlx::raw_sql(AssertSqlSafe(postgres.to_owned())).execute(&mut server.connect().await).await.unwrap();
        }
    }
}

async fn every_token_comes_under_the_first_key(db: Fixture) {
    const ROWS: usize = 1_100;
    db.one("Ann is known", 1).await;
    let old = ring(OLD);
    let mut rows = Vec::new();
    for number in 0..ROWS {
        let user = number.to_string();
        let access = old.seal(&format!("access {number}"), place(TokenColumn::Access, &user));
        let refresh = old.seal(&format!("refresh {number}"), place(TokenColumn::Refresh, &user));
        rows.push(format!(
            "'{}', 'shop', 'user_ann', 'google', '{user}', '{access}', {}",
            Uuid::now_v7(),
            match number % 2 {
                0 => "NULL".to_owned(),
                _ => format!("'{refresh}'"),
            }
        ));
    }
    let columns =
        "id, app_id, user_id, service, service_user_id, access_token_enc, refresh_token_enc, created_at, updated_at";
    let all = |now: &str| {
        let rows: Vec<String> = rows.iter().map(|row| format!("({row}, {now}, {now})")).collect();
        format!("INSERT INTO user_integrations ({columns}) VALUES {}", rows.join(", "))
    };
    run(&db, &all("1"), &all("now()")).await;
    let both = ring(&format!("{NEW},{OLD}"));
    let tokens = (ROWS + ROWS / 2) as u64;
    assert_eq!(missing_keys(&*db.store, Some(&ring(NEW))).await.unwrap(), [("old".to_owned(), tokens)]);
    assert_eq!(missing_keys(&*db.store, Some(&both)).await.unwrap(), []);

    let told = std::sync::Mutex::new(Vec::new());
    let rotated =
        rotate(&*db.store, &both, |looked_at, total| told.lock().unwrap().push((looked_at, total))).await.unwrap();
    assert_eq!((rotated.replaced, rotated.unreadable), (tokens, 0));
    assert_eq!(rotated.by_key, [("new_1".to_owned(), tokens)]);
    let told = told.into_inner().unwrap();
    assert_eq!((told[0], *told.last().unwrap()), ((0, tokens), (tokens, tokens)), "{told:?}");
    assert!(told.len() >= 4, "progress is told after each batch: {told:?}");

    let again = rotate(&*db.store, &both, |_, _| ()).await.unwrap();
    assert_eq!((again.replaced, again.unreadable), (0, 0));
    for row in db.store.tokens_not_under("none", None, 2_000).await.unwrap() {
        let opened = ring(NEW).open(row.access.as_deref().unwrap(), row.place(TokenColumn::Access)).unwrap();
        assert_eq!(
            opened.expose(),
            format!("access {}", row.service_user),
            "it says what it said, without the old key"
        );
    }
}

async fn a_token_that_a_server_stores_meanwhile_stays(db: Fixture) {
    db.one("Ann is known", 1).await;
    let place = place(TokenColumn::Access, "1");
    let [first, second, anew] = ["first", "second", "first"].map(|token| ring(OLD).seal(token, place));
    let id = put(&db, "1", Some(&second), None).await;
    assert!(!db.store.replace_token(id, TokenColumn::Access, &first, &anew).await.unwrap(), "it is not what was read");
    assert!(db.store.replace_token(id, TokenColumn::Access, &second, &anew).await.unwrap());
    let rows = db.store.tokens_not_under("new_1", None, 10).await.unwrap();
    assert_eq!(rows[0].access.as_deref(), Some(&*anew));
    assert_eq!(db.store.tokens_not_under("old", None, 10).await.unwrap(), []);
    assert_eq!(db.store.tokens_not_under("new_1", Some(id), 10).await.unwrap(), [], "behind it there is none");
}

async fn what_no_key_opens_stays_as_it_is(db: Fixture) {
    db.one("Ann is known", 1).await;
    let moved = ring(OLD).seal("moved here from another row", place(TokenColumn::Access, "elsewhere"));
    let good = ring(OLD).seal("good", place(TokenColumn::Refresh, "1"));
    put(&db, "1", Some(&moved), Some(&good)).await;
    let rotated = rotate(&*db.store, &ring(&format!("{NEW},{OLD}")), |_, _| ()).await.unwrap();
    assert_eq!((rotated.replaced, rotated.unreadable), (1, 1));
    let rows = db.store.tokens_not_under("new_1", None, 10).await.unwrap();
    assert_eq!(rows[0].access.as_deref(), Some(&*moved));
    assert_eq!(rows[0].refresh.as_deref().and_then(key_of), Some("new_1"));
}
