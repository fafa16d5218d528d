//! What time brings: scheduled, snoozed and expired notifications, and the end of what is old.

use std::time::Duration;

use herald::store::action::Action;
use herald::store::notification::{Draft, Filter, Since};

use super::support::{ANN, Fixture, draft, titles};

over_both! {
    what_the_app_inserts_itself_is_announced_and_a_group_that_is_open_holds_up_nobody,
    a_scheduled_one_is_announced_when_its_time_has_come,
    a_snoozed_one_comes_back_unread_and_on_top,
    what_is_over_vanishes_at_once_and_is_told,
    whoever_was_away_for_longer_than_deletions_are_kept_loads_anew,
}

async fn a_scheduled_one_is_announced_when_its_time_has_come(db: Fixture) {
    let created = db.try_create("t1", "hash", &["user_ann"], &draft("Later"), Some(db.at(60)), 1).await.unwrap();
    assert_eq!(created.created, 1);
    assert_eq!((db.state(2).await, db.events(2).await.len()), ((0, 0, 0), 0), "nothing shows before");
    assert_eq!(db.store.announce_due(10, db.at(59)).await.unwrap(), 0);
    assert_eq!(db.store.announce_due(10, db.at(60)).await.unwrap(), 1);
    assert_eq!(db.store.announce_due(10, db.at(61)).await.unwrap(), 0, "once");
    assert_eq!(db.state(61).await, (1, 1, 1));
    assert_eq!(db.events(61).await[0].1, "notification.created");
}

async fn a_snoozed_one_comes_back_unread_and_on_top(db: Fixture) {
    let item = db.one("Hello", 1).await;
    db.store.act(ANN, item.id, &[Action::Read, Action::Snooze(db.at(600))], db.at(2)).await.unwrap();
    db.one("Newer", 3).await;
    assert_eq!(titles(&db.list(&Filter::default(), 4).await), ["Newer"]);
    assert_eq!(db.store.announce_due(10, db.at(600)).await.unwrap(), 1);
    assert_eq!(titles(&db.list(&Filter::default(), 600).await), ["Hello", "Newer"]);
    let events = db.events(600).await;
    assert_eq!(events.last().unwrap().1, "notification.unsnoozed");
    assert_eq!(db.state(600).await.1, 2);
}

async fn what_is_over_vanishes_at_once_and_is_told(db: Fixture) {
    db.create("t1", &["user_ann"], &Draft { expires_at: Some(db.at(60)), ..draft("Sale") }, 1).await;
    assert_eq!(db.state(59).await, (1, 1, 1));
    assert_eq!(
        (db.list(&Filter::default(), 60).await.len(), db.state(60).await),
        (0, (1, 0, 0)),
        "before anybody cleans up"
    );
    assert_eq!(db.store.expire_due(10, db.at(61)).await.unwrap(), 1);
    let events = db.events(61).await;
    let (rev, name, told) = events.last().unwrap();
    assert_eq!((*rev, name.as_str(), &told["reason"]), (2, "notification.deleted", &serde_json::json!("expired")));
}

async fn whoever_was_away_for_longer_than_deletions_are_kept_loads_anew(db: Fixture) {
    let item = db.one("Hello", 1).await;
    db.one("Other", 2).await;
    db.store.act(ANN, item.id, &[Action::Delete], db.at(3)).await.unwrap();
    db.events(4).await;
    let keep = Duration::from_secs(100);
    assert!(db.store.purge(keep, 100, db.at(50)).await.unwrap());
    assert!(!db.store.changes(ANN, Since { rev: 1, id: None }, 10, db.at(50)).await.unwrap().reset);
    assert!(db.store.purge(keep, 100, db.at(200_000)).await.unwrap());
    assert!(db.store.changes(ANN, Since { rev: 1, id: None }, 10, db.at(200_000)).await.unwrap().reset);
    assert!(!db.store.changes(ANN, Since { rev: 3, id: None }, 10, db.at(200_000)).await.unwrap().reset);
}

async fn what_the_app_inserts_itself_is_announced_and_a_group_that_is_open_holds_up_nobody(db: Fixture) {
    db.create("t1", &["user_ann"], &Draft { group_key: Some("g".to_owned()), ..draft("Ours") }, 1).await;
    db.execute(
        "INSERT INTO user_notifications (id, user_id, type, title, group_key, visible_at, created_at, updated_at)
            VALUES ('01900000-0000-7000-8000-000000000001', 'user_ann', 'a', 'Theirs', 'g', 1, 1, 1),
                ('01900000-0000-7000-8000-000000000002', 'user_ann', 'a', 'Another', NULL, 1, 1, 1)",
        "INSERT INTO user_notifications (user_id, type, title, group_key, visible_at)
            VALUES ('user_ann', 'a', 'Theirs', 'g', '2000-01-01'), ('user_ann', 'a', 'Another', NULL, '2000-01-01')",
    )
    .await;
    assert_eq!(db.store.announce_due(10, db.at(2)).await.unwrap(), 2);
    let mut items = db.list(&Filter::default(), 3).await;
    items.sort_by(|one, other| one.draft.title.cmp(&other.draft.title));
    assert_eq!(titles(&items), ["Another", "Ours", "Theirs"]);
    assert_eq!((&items[1].draft.group_key, &items[2].draft.group_key), (&Some("g".to_owned()), &None));
    assert_eq!(db.state(3).await, (3, 3, 3));
}
