//! Notifications are made once for each of their users, and groups grow.

use std::sync::Arc;

use herald::store::StoreError;
use herald::store::action::Action;
use herald::store::notification::{Draft, Filter};

use super::support::{ANN, APP, Fixture, draft, titles};

over_both! {
    each_user_gets_it_once_with_an_event_and_a_revision,
    an_id_that_belongs_to_another_request_creates_nothing_for_anybody,
    an_open_group_grows_and_comes_to_the_top_unseen,
    where_only_known_users_count_others_are_named,
    a_thousand_creates_at_once_with_one_id_make_one_row,
    revisions_have_no_gaps_and_events_come_in_their_order_whoever_writes,
}

async fn each_user_gets_it_once_with_an_event_and_a_revision(db: Fixture) {
    let created = db.create("t1", &["user_ann", "user_bob"], &draft("Hello"), 1).await;
    assert_eq!((created.created, created.duplicates), (2, 0));
    let again = db.create("t1", &["user_ann", "user_bob", "user_carol"], &draft("Hello"), 2).await;
    assert_eq!((again.created, again.duplicates), (1, 2));
    assert_eq!(db.state(2).await, (1, 1, 1));
    let events = db.events(2).await;
    assert_eq!(events.len(), 3);
    let (rev, name, event) = &events[0];
    assert_eq!((*rev, name.as_str()), (1, "notification.created"));
    assert_eq!(event["counts"], serde_json::json!({ "unread": 1, "unseen": 1 }));
    assert_eq!(event["notification"]["title"], "Hello");
    assert_eq!(event["id"], format!("{APP}:user_ann:1"));
}

async fn an_id_that_belongs_to_another_request_creates_nothing_for_anybody(db: Fixture) {
    db.create("t1", &["user_bob"], &draft("Hello"), 1).await;
    let refused = db.try_create("t1", "other", &["user_ann", "user_bob"], &draft("Other"), None, 2).await;
    assert!(matches!(refused, Err(StoreError::Conflict)), "{refused:?}");
    assert_eq!(db.state(2).await, (0, 0, 0));
}

async fn a_thousand_creates_at_once_with_one_id_make_one_row(db: Fixture) {
    let db = Arc::new(db);
    let tasks: Vec<_> = (0..1_000)
        .map(|_| {
            let db = Arc::clone(&db);
            tokio::spawn(async move {
                db.try_create("t1", "hash", &["user_ann"], &draft("Hello"), None, 1)
                    .await
                    .map(|created| created.created)
            })
        })
        .collect();
    let (mut made, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(created) => made += created,
            Err(StoreError::Unavailable(_)) => refused += 1, // they waited too long for their turn, and may try again
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(made, 1, "{refused} were told to try again");
    assert_eq!(titles(&db.list(&Filter::default(), 2).await), ["Hello"]);
    assert_eq!(db.state(2).await, (1, 1, 1));
}

async fn revisions_have_no_gaps_and_events_come_in_their_order_whoever_writes(db: Fixture) {
    let db = Arc::new(db);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let db = Arc::clone(&db);
            tokio::spawn(async move {
                for number in 0..50 {
                    db.create(&format!("t{writer}-{number}"), &["user_ann"], &draft("Hello"), 1).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let revs: Vec<i64> = db.events(2).await.into_iter().map(|(rev, ..)| rev).collect();
    assert_eq!(revs, (1..=400).collect::<Vec<i64>>());
}

async fn an_open_group_grows_and_comes_to_the_top_unseen(db: Fixture) {
    let grouped = |title: &str| Draft { group_key: Some("post:1".to_owned()), ..draft(title) };
    db.create("t1", &["user_ann"], &grouped("One comment"), 1).await;
    db.create("t2", &["user_ann"], &draft("Other"), 2).await;
    let first = db.list(&Filter::default(), 2).await.pop().unwrap();
    db.store.act(ANN, first.id, &[Action::Seen], db.at(3)).await.unwrap();
    db.create("t3", &["user_ann"], &grouped("Two comments"), 4).await;
    let items = db.list(&Filter::default(), 4).await;
    assert_eq!(titles(&items), ["Two comments", "Other"]);
    assert_eq!((items[0].id, items[0].group_count, items[0].seen_at), (first.id, 2, None));
    let names: Vec<String> = db.events(5).await.into_iter().map(|(_, name, _)| name).collect();
    assert_eq!(names, ["notification.created", "notification.created", "notification.seen", "notification.updated"]);

    db.store.act(ANN, first.id, &[Action::Read], db.at(6)).await.unwrap();
    db.create("t4", &["user_ann"], &grouped("A new one"), 7).await;
    assert_eq!(
        titles(&db.list(&Filter::default(), 7).await),
        ["A new one", "Two comments", "Other"],
        "a read group is closed"
    );
    let back = db.store.act(ANN, first.id, &[Action::Unread], db.at(8)).await.unwrap().unwrap();
    assert_eq!(back.notification.draft.group_key, None, "two open items cannot have one group");
}

async fn where_only_known_users_count_others_are_named(db: Fixture) {
    db.create("t1", &["user_ann"], &draft("Hello"), 1).await;
    let recipients = ["user_ann".to_owned(), "user_zoe".to_owned()];
    let hello = draft("Again");
    let create = herald::store::sending::Create {
        app: APP,
        transaction_id: "t2",
        request_hash: "hash",
        recipients: &recipients,
        draft: &hello,
        deliver_at: None,
        only_known: true,
        wanted: None,
        job: None,
    };
    let created = db.store.create(&create, db.at(2)).await.unwrap();
    assert_eq!((created.created, created.unknown), (1, vec!["user_zoe".to_owned()]));
}
