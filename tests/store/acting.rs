//! What a user does with the own inbox, and what clients that were away are told.

use std::collections::HashSet;

use herald::store::Inbox;
use herald::store::action::{Action, MarkAll};
use herald::store::notification::{Archived, BySeverity, Draft, Filter, Severity, Since, Snoozed, Status};
use uuid::Uuid;

use super::support::{ANN, Fixture, draft, numbers, titles};

over_both! {
    unread_ones_are_counted_by_severity,
    whoever_was_never_heard_of_may_mark_all_of_nothing,
    every_action_changes_what_it_says_takes_a_revision_and_tells_once,
    what_was_done_can_be_undone,
    several_changes_at_once_are_one_event,
    nobody_acts_on_what_is_in_another_inbox,
    many_are_changed_with_one_revision_and_what_arrives_meanwhile_is_left_alone,
    a_list_is_paged_and_filtered,
    a_client_that_was_away_is_told_what_changed_page_by_page,
}

async fn every_action_changes_what_it_says_takes_a_revision_and_tells_once(one: Fixture) {
    for (action, event, state) in [
        (Action::Seen, "notification.seen", (2, 1, 0)),
        (Action::Read, "notification.read", (2, 0, 0)),
        (Action::Archive, "notification.archived", (2, 0, 0)),
        (Action::Delete, "notification.deleted", (2, 0, 0)),
    ] {
        let db = one.anew().await;
        let item = db.one("Hello", 1).await;
        let acted = db.store.act(ANN, item.id, &[action], db.at(2)).await.unwrap().unwrap();
        assert!(acted.changed, "{action:?}");
        assert_eq!(numbers(acted.state), state, "{action:?}");
        let repeated = db.store.act(ANN, item.id, &[action], db.at(3)).await.unwrap();
        if action != Action::Delete {
            let repeated = repeated.unwrap();
            assert_eq!((repeated.changed, numbers(repeated.state)), (false, state), "{action:?} again changes nothing");
        } else {
            assert!(repeated.is_none(), "what is deleted is not there");
        }
        let events = db.events(4).await;
        let (rev, name, told) = events.last().unwrap();
        assert_eq!((*rev, name.as_str(), events.len()), (2, event, 2), "{action:?}");
        assert_eq!(told["notification"]["id"], item.id.to_string());
        assert_eq!(told["counts"], serde_json::json!({ "unread": state.1, "unseen": state.2 }));
    }
}

async fn what_was_done_can_be_undone(db: Fixture) {
    let item = db.one("Hello", 1).await;
    for (actions, inbox, unread) in [
        (&[Action::Read][..], 1, 0),
        (&[Action::Unread], 1, 1),
        (&[Action::Archive], 0, 0),
        (&[Action::Unarchive], 1, 1),
        (&[Action::Snooze(db.at(3_600))], 0, 0),
        (&[Action::Unsnooze], 1, 1),
    ] {
        let acted = db.store.act(ANN, item.id, actions, db.at(2)).await.unwrap().unwrap();
        assert_eq!(acted.state.counts.unread, unread, "{actions:?}");
        assert_eq!(db.list(&Filter::default(), 2).await.len(), inbox, "{actions:?}");
    }
}

async fn several_changes_at_once_are_one_event(db: Fixture) {
    let item = db.one("Hello", 1).await;
    db.store.act(ANN, item.id, &[Action::Seen, Action::Read, Action::Archive], db.at(2)).await.unwrap();
    let events = db.events(3).await;
    assert_eq!((events.len(), events[1].1.as_str()), (2, "notification.updated"));
}

async fn nobody_acts_on_what_is_in_another_inbox(db: Fixture) {
    let item = db.one("Hello", 1).await;
    for inbox in [Inbox { user: "user_bob", ..ANN }, Inbox { app: "other", ..ANN }] {
        assert!(db.store.notification(inbox, item.id, db.at(2)).await.unwrap().is_none());
        assert!(db.store.act(inbox, item.id, &[Action::Read], db.at(2)).await.unwrap().is_none());
        let acted = db.store.act_on_many(inbox, &[item.id], Action::Read, db.at(2)).await.unwrap();
        assert_eq!((acted.updated, acted.missing), (0, vec![item.id]));
    }
    assert_eq!(db.state(2).await, (1, 1, 1));
}

async fn many_are_changed_with_one_revision_and_what_arrives_meanwhile_is_left_alone(db: Fixture) {
    for number in 1..=5 {
        db.one(&format!("n{number}"), number).await;
    }
    let items = db.list(&Filter::default(), 5).await;
    let some: Vec<Uuid> = items.iter().take(2).map(|item| item.id).chain([Uuid::nil()]).collect();
    let acted = db.store.act_on_many(ANN, &some, Action::Archive, db.at(6)).await.unwrap();
    assert_eq!((acted.updated, acted.missing.as_slice()), (2, &[Uuid::nil()][..]));
    let (marked, state) = db.store.mark_all(ANN, MarkAll::Read, 2, &Filter::default(), db.at(7)).await.unwrap();
    assert_eq!((marked, numbers(state)), (2, (7, 1, 1)), "n3 came after the second revision");
    let (marked, state) = db.store.mark_all(ANN, MarkAll::Read, 2, &Filter::default(), db.at(8)).await.unwrap();
    assert_eq!((marked, state.rev), (0, 7), "what changes nothing takes no revision");
    let events = db.events(9).await;
    let (rev, name, told) = events.last().unwrap();
    assert_eq!((*rev, name.as_str(), &told["up_to_rev"]), (7, "inbox.all_read", &serde_json::json!(2)));
    assert_eq!(told["filter"], serde_json::json!({ "status": "all", "archived": "exclude", "snoozed": "exclude" }));
}

async fn a_list_is_paged_and_filtered(db: Fixture) {
    for number in 1..=7 {
        let kind = if number % 2 == 0 { "comment.reply" } else { "billing" };
        let draft = herald::store::notification::Draft { kind: kind.to_owned(), ..draft(&format!("n{number}")) };
        db.create(&format!("t{number}"), &["user_ann"], &draft, number).await;
    }
    let mut seen = Vec::new();
    let mut cursor = None;
    loop {
        let page = db.store.list(ANN, &Filter::default(), cursor, 3, db.at(8)).await.unwrap();
        seen.extend(titles(&page.items).into_iter().map(str::to_owned));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["n7", "n6", "n5", "n4", "n3", "n2", "n1"]);
    let items = db.list(&Filter::default(), 8).await;
    db.store.act(ANN, items[0].id, &[Action::Read], db.at(9)).await.unwrap();
    db.store.act(ANN, items[1].id, &[Action::Archive], db.at(9)).await.unwrap();
    db.store.act(ANN, items[2].id, &[Action::Snooze(db.at(9_999))], db.at(9)).await.unwrap();
    for (filter, expected) in [
        (Filter::default(), &["n7", "n4", "n3", "n2", "n1"][..]),
        (Filter { status: Status::Unread, ..Filter::default() }, &["n4", "n3", "n2", "n1"]),
        (Filter { status: Status::Read, ..Filter::default() }, &["n7"]),
        (Filter { archived: Archived::Only, ..Filter::default() }, &["n6"]),
        (Filter { archived: Archived::Include, ..Filter::default() }, &["n7", "n6", "n4", "n3", "n2", "n1"]),
        (Filter { snoozed: Snoozed::Only, ..Filter::default() }, &["n5"]),
        (Filter { kinds: vec!["comment.*".to_owned()], ..Filter::default() }, &["n4", "n2"]),
        (Filter { kinds: vec!["billing".to_owned(), "x".to_owned()], ..Filter::default() }, &["n7", "n3", "n1"]),
        (Filter { created_after: Some(db.at(3)), ..Filter::default() }, &["n7", "n4"]),
        (Filter { org_id: Some("org_1".to_owned()), ..Filter::default() }, &[]),
    ] {
        assert_eq!(titles(&db.list(&filter, 10).await), expected, "{filter:?}");
    }
}

async fn a_client_that_was_away_is_told_what_changed_page_by_page(db: Fixture) {
    for number in 1..=6 {
        db.one(&format!("n{number}"), number).await;
    }
    let items = db.list(&Filter::default(), 6).await;
    let ids: Vec<Uuid> = items.iter().map(|item| item.id).collect();
    db.store.act_on_many(ANN, &ids[..4], Action::Read, db.at(7)).await.unwrap();
    db.store.act(ANN, ids[5], &[Action::Delete], db.at(8)).await.unwrap();
    let (mut since, mut told) = (Since { rev: 6, id: None }, Vec::new());
    loop {
        let changes = db.store.changes(ANN, since, 2, db.at(9)).await.unwrap();
        assert!(!changes.reset);
        told.extend(changes.items);
        let Some(next) = changes.next else { break };
        since = next;
    }
    assert_eq!(told.len(), 5, "a revision of four rows does not fit a page of two");
    assert_eq!(told.iter().map(|item| item.id).collect::<HashSet<_>>().len(), 5);
    assert!(told[4].deleted_at.is_some() && told[4].draft.title.is_empty(), "what is deleted leaves no content");
    let ahead = db.store.changes(ANN, Since { rev: 99, id: None }, 10, db.at(9)).await.unwrap();
    assert!(ahead.reset, "a client that knows more than there is has known another inbox");
}

async fn whoever_was_never_heard_of_may_mark_all_of_nothing(db: Fixture) {
    for action in [MarkAll::Seen, MarkAll::Read, MarkAll::Archive] {
        let (marked, state) = db.store.mark_all(ANN, action, 0, &Filter::default(), db.at(1)).await.unwrap();
        assert_eq!((marked, numbers(state)), (0, (0, 0, 0)));
    }
}

async fn unread_ones_are_counted_by_severity(db: Fixture) {
    for (id, severity) in
        [("a", Severity::High), ("b", Severity::High), ("c", Severity::Low), ("d", Severity::Critical)]
    {
        db.create(id, &[ANN.user], &Draft { severity, ..draft(id) }, 1).await;
    }
    let read = db.list(&Filter { severity: Some(Severity::Critical), ..Filter::default() }, 2).await[0].id;
    db.store.act(ANN, read, &[Action::Read], db.at(3)).await.unwrap();
    let (by_severity, state) = db.store.by_severity(ANN, db.at(4)).await.unwrap();
    assert_eq!(by_severity, BySeverity { low: 1, normal: 0, high: 2, critical: 0 });
    assert_eq!(numbers(state), (5, 3, 3));
}
