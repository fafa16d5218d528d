//! Accounts at other services: one node at a time refreshes one, and no refresh token is lost to a slower node, an older answer or a new key.

use std::time::Duration;

use herald::rotation::rotate;
use herald::seal::{KeyRing, Place, PlainToken, TokenColumn, key_of};
use herald::store::accounts::{Account, AccountKey, Deleted, PutAccount, Refreshed, Said};
use herald::store::people::{Change, Inbound};
use herald::store::time::Timestamp;
use serde_json::json;

use super::support::Fixture;

over_both! {
    what_is_not_said_stays_and_null_takes_away,
    an_account_is_in_one_nodes_hands_until_its_lease_is_over,
    whoever_comes_too_late_changes_nothing,
    what_is_said_meanwhile_counts_and_no_refresh_token_is_lost,
    keys_are_replaced_while_a_token_is_refreshed,
    what_is_due_is_taken_once_and_in_its_order,
    what_has_expired_and_cannot_be_refreshed_is_set_aside,
    one_of_several_accounts_is_named_or_none_is_forgotten,
    a_deleted_user_has_no_accounts_and_gets_none,
}

const OLD: &str = "old:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=";
const BOTH: &str = "new:r3hPcMZsxqmZJKzr2Jq1C4lZsQkqTg4n0kqgSGe8qyo=,old:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=";
const LEAD: Duration = Duration::from_secs(300);

fn key(service_user: &'static str) -> AccountKey<'static> {
    AccountKey { app: "shop", user: "user_ann", service: "google", service_user }
}

fn sealed(token: &str, column: TokenColumn, service_user: &str) -> String {
    let place = Place { column, app: "shop", user: "user_ann", service: "google", service_user };
    KeyRing::parse(OLD).unwrap().seal(token, place)
}

fn nothing(key: AccountKey<'static>) -> PutAccount<'static> {
    PutAccount {
        key,
        access: Said::Nothing,
        refresh: Said::Nothing,
        expires_at: Said::Nothing,
        lead: LEAD,
        scopes: Said::Nothing,
        data: Said::Nothing,
        task: None,
    }
}

/// Tokens of this name.
fn tokens(name: &str, service_user: &'static str, expires_at: Timestamp) -> PutAccount<'static> {
    PutAccount {
        access: Said::Is(sealed(&format!("access {name}"), TokenColumn::Access, service_user)),
        refresh: Said::Is(sealed(&format!("refresh {name}"), TokenColumn::Refresh, service_user)),
        expires_at: Said::Is(expires_at),
        ..nothing(key(service_user))
    }
}

/// What a service has answered.
fn done(name: &str, refresh: Option<&str>, expires_at: Timestamp) -> Refreshed {
    Refreshed::Done {
        access: sealed(&format!("access {name}"), TokenColumn::Access, ""),
        refresh: refresh.map(|name| sealed(&format!("refresh {name}"), TokenColumn::Refresh, "")),
        expires_at: Some(expires_at),
        refresh_at: Some(expires_at.before(LEAD)),
        scopes: None,
    }
}

fn plain(account: &Account) -> (String, String) {
    let ring = KeyRing::parse(BOTH).unwrap();
    let open = |stored: &Option<String>, column| -> PlainToken {
        ring.open(stored.as_ref().unwrap(), account.place(column)).unwrap()
    };
    let (access, refresh) = (open(&account.access, TokenColumn::Access), open(&account.refresh, TokenColumn::Refresh));
    (access.expose().to_owned(), refresh.expose().to_owned())
}

async fn put(db: &Fixture, said: &PutAccount<'_>, second: u64) -> Account {
    db.store.put_account(said, db.at(second)).await.unwrap().unwrap()
}

async fn only(db: &Fixture) -> Account {
    let [account] = db.store.accounts("shop", "user_ann", None).await.unwrap().try_into().unwrap();
    account
}

async fn what_is_not_said_stays_and_null_takes_away(db: Fixture) {
    let said = PutAccount {
        scopes: Said::Is(vec!["mail".to_owned()]),
        data: Said::Is(json!({ "b": 1, "a": [2] })),
        ..tokens("one", "", db.at(3_600))
    };
    let first = put(&db, &said, 0).await;
    assert_eq!(first.refresh_at, Some(db.at(3_300)));
    let same = put(&db, &nothing(key("")), 1).await;
    assert_eq!(same, Account { updated_at: db.at(1), ..first.clone() });
    // Google sends a refresh token the first time only.
    let access = Said::Is(sealed("access two", TokenColumn::Access, ""));
    let second = put(&db, &PutAccount { access, ..nothing(key("")) }, 2).await;
    assert_eq!(plain(&second), ("access two".to_owned(), "refresh one".to_owned()));
    assert_eq!((second.expires_at, second.refresh_at), (None, None), "that was the other token's");
    assert_eq!(second.data, Some(json!({ "b": 1, "a": [2] })));
    let gone = PutAccount {
        access: Said::Gone,
        refresh: Said::Gone,
        data: Said::Gone,
        scopes: Said::Gone,
        ..nothing(key(""))
    };
    let third = put(&db, &gone, 3).await;
    assert_eq!((third.id, third.has_tokens(), third.data, third.scopes.len()), (first.id, false, None, 0));
}

async fn an_account_is_in_one_nodes_hands_until_its_lease_is_over(db: Fixture) {
    let id = put(&db, &tokens("one", "", db.at(100)), 0).await.id;
    let lease = async |until, now| db.store.lease_account(id, db.at(until), db.at(now)).await.unwrap();
    assert_eq!(lease(110, 49).await, None, "it is not due: half of its time is not over");
    let leased = lease(110, 50).await.unwrap();
    assert_eq!((leased.lease, plain(&leased).1.as_str()), (Some(db.at(110)), "refresh one"));
    assert_eq!(lease(170, 109).await, None, "another node has it");
    assert_eq!(lease(170, 110).await.unwrap().lease, Some(db.at(170)), "which has died, and lost nothing");
    assert_eq!(lease(229, 169).await, None);
    assert!(lease(230, 170).await.is_some());
    assert!(lease(120, 60).await.is_some(), "a lease that lasts twice as long is of a clock that has gone back since");
}

async fn whoever_comes_too_late_changes_nothing(db: Fixture) {
    let id = put(&db, &tokens("one", "", db.at(0)), 0).await.id;
    let lease = |until, now| db.store.lease_account(id, db.at(until), db.at(now));
    lease(60, 0).await.unwrap().unwrap();
    lease(120, 60).await.unwrap().unwrap();
    let end = async |lease, refreshed| db.store.end_refresh(id, db.at(lease), &refreshed, db.at(61)).await.unwrap();
    assert_eq!(end(60, done("late", Some("late"), db.at(4_000))).await, None);
    let kept = end(120, done("two", Some("two"), db.at(4_000))).await.unwrap();
    assert_eq!(plain(&kept), ("access two".to_owned(), "refresh two".to_owned()));
    assert_eq!(end(120, done("twice", Some("twice"), db.at(4_000))).await, None, "the lease has ended with it");
    assert_eq!((only(&db).await, kept.lease), (kept.clone(), None));
    assert_eq!(kept.refresh_at, Some(db.at(3_700)));
    // One that gives no new refresh token means that the old one counts on.
    lease(3_760, 3_700).await.unwrap().unwrap();
    assert_eq!(plain(&end(3_760, done("three", None, db.at(9_000))).await.unwrap()).1, "refresh two");
}

async fn what_is_said_meanwhile_counts_and_no_refresh_token_is_lost(db: Fixture) {
    let id = put(&db, &tokens("one", "", db.at(0)), 0).await.id;
    db.store.lease_account(id, db.at(60), db.at(0)).await.unwrap().unwrap();
    // The backend has an access token of its own: whoever refreshes still keeps what comes.
    let access = Said::Is(sealed("access own", TokenColumn::Access, ""));
    put(&db, &PutAccount { access, ..nothing(key("")) }, 1).await;
    let kept = db.store.end_refresh(id, db.at(60), &done("two", Some("two"), db.at(90)), db.at(2)).await.unwrap();
    assert_eq!(plain(&kept.unwrap()), ("access two".to_owned(), "refresh two".to_owned()));
    db.store.lease_account(id, db.at(160), db.at(100)).await.unwrap().unwrap();
    // The user has connected it anew: what comes belongs to the connection before.
    put(&db, &tokens("anew", "", db.at(9_000)), 101).await;
    for late in [done("late", Some("late"), db.at(9_000)), Refreshed::Ended { error: "invalid_grant" }] {
        assert_eq!(db.store.end_refresh(id, db.at(160), &late, db.at(102)).await.unwrap(), None);
    }
    let account = only(&db).await;
    assert_eq!((plain(&account).1.as_str(), account.is_active), ("refresh anew", true));
    // It ends, which a new connection makes good.
    db.store.lease_account(id, db.at(9_060), db.at(9_000)).await.unwrap().unwrap();
    let failed = Refreshed::Failed { error: "timeout", again_at: db.at(9_010) };
    let account = db.store.end_refresh(id, db.at(9_060), &failed, db.at(9_001)).await.unwrap().unwrap();
    assert_eq!(
        (account.refresh_attempts, account.last_error.as_deref(), account.is_active),
        (1, Some("timeout"), true)
    );
    assert_eq!(account.updated_at, db.at(101), "nobody would notice that");
    db.store.lease_account(id, db.at(9_070), db.at(9_010)).await.unwrap().unwrap();
    let ended = Refreshed::Ended { error: "invalid_grant" };
    let account = db.store.end_refresh(id, db.at(9_070), &ended, db.at(9_011)).await.unwrap().unwrap();
    assert_eq!((account.is_active, account.last_error.as_deref()), (false, Some("invalid_grant")));
    assert_eq!(db.store.lease_account(id, db.at(9_999), db.at(9_100)).await.unwrap(), None);
    let account = put(&db, &tokens("again", "", db.at(19_000)), 9_200).await;
    assert_eq!((account.is_active, account.last_error, account.refresh_attempts), (true, None, 0));
}

async fn keys_are_replaced_while_a_token_is_refreshed(db: Fixture) {
    let id = put(&db, &tokens("one", "", db.at(0)), 0).await.id;
    db.store.lease_account(id, db.at(60), db.at(0)).await.unwrap().unwrap();
    let rotated = rotate(&*db.store, &KeyRing::parse(BOTH).unwrap(), |_, _| ()).await.unwrap();
    assert_eq!(rotated.replaced, 2);
    // A server that has the old key only yet, in front.
    let kept = db.store.end_refresh(id, db.at(60), &done("two", Some("two"), db.at(9_000)), db.at(1)).await.unwrap();
    let kept = kept.expect("what has changed is how the token is written, not the token");
    assert_eq!(plain(&kept).1, "refresh two");
    rotate(&*db.store, &KeyRing::parse(BOTH).unwrap(), |_, _| ()).await.unwrap();
    let account = only(&db).await;
    assert_eq!(key_of(account.refresh.as_ref().unwrap()), Some("new"));
    assert_eq!(plain(&account), ("access two".to_owned(), "refresh two".to_owned()));
}

async fn what_is_due_is_taken_once_and_in_its_order(db: Fixture) {
    for (service_user, expires) in [("c", 30), ("a", 10), ("b", 20), ("later", 90_000)] {
        put(&db, &tokens("one", service_user, db.at(expires)), 0).await;
    }
    let no_refresh = PutAccount { refresh: Said::Nothing, ..tokens("one", "bare", db.at(5)) };
    put(&db, &no_refresh, 0).await;
    let take = async |services: &[&str], limit, until, now| -> Vec<String> {
        let leased = db.store.lease_due_accounts(services, limit, db.at(until), db.at(now)).await.unwrap();
        let mut names: Vec<String> = leased.into_iter().map(|account| account.service_user).collect();
        names.sort_unstable();
        names
    };
    assert!(take(&["github"], 10, 160, 100).await.is_empty());
    assert_eq!(take(&["github", "google"], 2, 160, 100).await, ["a", "b"], "those first that are due longest");
    assert_eq!(take(&["google"], 10, 161, 101).await, ["c"]);
    assert!(take(&["google"], 10, 162, 102).await.is_empty());
    assert_eq!(take(&["google"], 10, 300, 161).await, ["a", "b", "c"]);
}

async fn what_has_expired_and_cannot_be_refreshed_is_set_aside(db: Fixture) {
    put(&db, &tokens("one", "refreshed", db.at(10)), 0).await;
    put(&db, &PutAccount { refresh: Said::Nothing, ..tokens("one", "bare", db.at(10)) }, 0).await;
    put(&db, &PutAccount { refresh: Said::Nothing, ..tokens("one", "lives", db.at(1_000)) }, 0).await;
    put(&db, &nothing(key("empty")), 0).await;
    let expire = async |services: &[&str], now| -> Vec<(String, Option<String>)> {
        let expired = db.store.expire_accounts(services, None, 100, db.at(now)).await.unwrap();
        expired.into_iter().map(|account| (account.service_user, account.last_error)).collect()
    };
    let expired = |name: &str| (name.to_owned(), Some("expired".to_owned()));
    assert!(expire(&["google"], 9).await.is_empty());
    assert_eq!(expire(&["google"], 10).await, [expired("bare")]);
    assert!(expire(&["google"], 11).await.is_empty(), "once");
    assert_eq!(expire(&["github"], 11).await, [expired("refreshed")], "nobody refreshes it any more");
    let states: Vec<(String, bool)> = db
        .store
        .accounts("shop", "user_ann", Some("google"))
        .await
        .unwrap()
        .into_iter()
        .map(|account| (account.service_user, account.is_active))
        .collect();
    let state = |name: &str, is_active| (name.to_owned(), is_active);
    assert_eq!(states, [state("bare", false), state("empty", true), state("lives", true), state("refreshed", false)]);
}

async fn one_of_several_accounts_is_named_or_none_is_forgotten(db: Fixture) {
    for service_user in ["1", "2"] {
        put(&db, &tokens("one", service_user, db.at(100)), 0).await;
    }
    let delete =
        async |user: &str, which: Option<&str>| db.store.delete_account("shop", user, "google", which).await.unwrap();
    assert_eq!(delete("user_ann", None).await, Deleted::Several);
    assert_eq!(delete("user_bob", Some("1")).await, Deleted::None);
    assert_eq!(delete("user_ann", Some("3")).await, Deleted::None);
    let Deleted::Done(gone) = delete("user_ann", Some("1")).await else { panic!() };
    assert_eq!(gone.service_user, "1");
    assert!(matches!(delete("user_ann", None).await, Deleted::Done(_)), "it is the only one now");
    assert_eq!(delete("user_ann", None).await, Deleted::None);
}

async fn a_deleted_user_has_no_accounts_and_gets_none(db: Fixture) {
    let id = put(&db, &tokens("one", "", db.at(0)), 0).await.id;
    db.store.lease_account(id, db.at(60), db.at(0)).await.unwrap().unwrap();
    let inbound = Inbound { source: "clerk", event_id: "1", kind: "user.deleted" };
    let change = Change::UserDeleted { id: "user_ann".to_owned() };
    db.store.apply(&inbound, &change, db.at(1)).await.unwrap();
    assert!(db.store.accounts("shop", "user_ann", None).await.unwrap().is_empty());
    let late = db.store.end_refresh(id, db.at(60), &done("two", None, db.at(90)), db.at(2)).await.unwrap();
    assert_eq!(late, None);
    assert_eq!(db.store.put_account(&tokens("two", "", db.at(90)), db.at(3)).await.unwrap(), None);
}
