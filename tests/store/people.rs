//! What an identity provider's webhooks change, by the scenario of the specification.

use herald::integrations::clerk::webhook;
use herald::store::people::{Applied, Change, Ended, Inbound};
use serde_json::Value;

use super::support::{Fixture, draft};

over_both! {
    clerks_webhooks_have_the_effects_that_the_scenario_says,
    a_deleted_user_takes_everything_along_and_gets_nothing_more,
    a_session_that_has_ended_is_not_served_again,
}

async fn clerks_webhooks_have_the_effects_that_the_scenario_says(db: Fixture) {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/webhook_events.json")).unwrap();
    let mut second = 1;
    for step in vectors["clerk"].as_array().unwrap() {
        second += 1;
        let note = step["note"].as_str().unwrap();
        let Ok(read) = webhook::read(step["body"].to_string().as_bytes(), None, 1) else {
            assert_eq!(step["expect"]["unchanged"], true, "{note}");
            continue;
        };
        let inbound = Inbound { source: "clerk", event_id: step["svix_id"].as_str().unwrap(), kind: &read.kind };
        let applied = db.store.apply(&inbound, &read.change, db.at(second)).await.unwrap();
        let expect = &step["expect"];
        assert_eq!(applied == Applied::Done, expect["unchanged"] != true, "{note}: {applied:?}");
        for (id, user) in expect["users"].as_object().into_iter().flatten() {
            let kept = db.store.standing(id, None, None).await.unwrap().user.unwrap();
            for (member, value) in [
                ("email", kept.email.map_or(Value::Null, Value::from)),
                ("name", kept.name.map_or(Value::Null, Value::from)),
                ("banned", kept.banned.into()),
                ("source_updated_at", kept.source_updated_at.into()),
            ] {
                assert_eq!(value, user[member], "{note}: {member}");
            }
        }
        let ended = db.store.ended_since(db.at(second)).await.unwrap();
        let named = |list: &str| -> Vec<String> {
            let list = expect[list].as_array().into_iter().flatten();
            list.map(|value| value.as_str().unwrap_or_else(|| value["user_id"].as_str().unwrap()).to_owned()).collect()
        };
        let sessions = ended.iter().filter_map(|ended| match ended {
            Ended::Session { session, .. } => Some(session.clone()),
            _ => None,
        });
        assert_eq!(sessions.collect::<Vec<_>>(), named("disconnect_sessions"), "{note}");
        let members = ended.iter().filter_map(|ended| match ended {
            Ended::Membership { user, .. } => Some(user.clone()),
            _ => None,
        });
        assert_eq!(members.collect::<Vec<_>>(), named("unsubscribe"), "{note}");
        for user in named("disconnect_users") {
            assert!(ended.iter().any(|one| matches!(one, Ended::User { user: id, .. } if *id == user)), "{note}");
            assert!(db.store.standing(&user, None, None).await.unwrap().is_refused(), "{note}");
        }
        for user in named("tombstones") {
            assert!(db.store.standing(&user, None, None).await.unwrap().is_deleted, "{note}");
        }
    }
}

async fn a_deleted_user_takes_everything_along_and_gets_nothing_more(db: Fixture) {
    db.create("t1", &["user_ann", "user_bob"], &draft("Hello"), 1).await;
    let inbound = Inbound { source: "clerk", event_id: "msg_1", kind: "user.deleted" };
    db.store.apply(&inbound, &Change::UserDeleted { id: "user_ann".to_owned() }, db.at(2)).await.unwrap();
    assert_eq!(db.state(3).await, (0, 0, 0));
    let events = db.events(3).await;
    assert_eq!(events.len(), 1, "bob's alone is left");
    let again = db.create("t2", &["user_ann", "user_bob"], &draft("Again"), 4).await;
    assert_eq!((again.created, again.unknown), (1, vec!["user_ann".to_owned()]));
}

async fn a_session_that_has_ended_is_not_served_again(db: Fixture) {
    let change = Change::SessionEnded { session: "sess_1".to_owned(), user: Some("user_ann".to_owned()) };
    let inbound = Inbound { source: "clerk", event_id: "msg_1", kind: "session.ended" };
    assert_eq!(db.store.apply(&inbound, &change, db.at(1)).await.unwrap(), Applied::Done);
    assert_eq!(db.store.apply(&inbound, &change, db.at(2)).await.unwrap(), Applied::Repeated);
    assert!(db.store.standing("user_ann", Some("sess_1"), None).await.unwrap().is_refused());
    assert!(!db.store.standing("user_ann", Some("sess_2"), None).await.unwrap().is_refused());
}
