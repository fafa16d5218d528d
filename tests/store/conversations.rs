//! Conversations with the support: whose they are by what Crisp has told, in whatever order it comes, and what follows from that.

use std::time::Duration;

use herald::integrations::crisp::hook;
use herald::store::people::{Change, Inbound, User};
use herald::store::support::{SupportChange, SupportEvent, Whose};
use herald::store::tasks::{NewTask, Task, TaskKind};
use serde_json::{Value, json};

use super::support::{ANN, Fixture};

over_both! {
    crisps_hooks_have_the_effects_that_the_scenario_says,
    a_conversation_becomes_a_users_by_a_proof_alone,
    an_address_of_two_users_proves_nothing,
    older_news_change_nothing_and_a_repetition_neither,
    crisp_is_asked_by_one_node_and_once_a_minute,
    an_answer_that_a_hook_has_overtaken_does_not_count,
    of_several_conversations_the_last_one_is_the_users,
    a_deleted_users_conversations_and_messages_are_gone,
    what_is_nobodys_is_forgotten_after_a_while,
    many_hooks_at_once_are_one_conversation,
}

const WEBSITE: &str = "website-1";
const S1: &str = "session_1";

async fn user(db: &Fixture, id: &str, email: Option<&str>) {
    let user = User {
        id: id.to_owned(),
        email: email.map(str::to_owned),
        name: None,
        image_url: None,
        locale: None,
        timezone: None,
        public_metadata: json!({}),
        banned: false,
        source_updated_at: 1,
    };
    assert!(db.store.put_user(&user, db.at(0)).await.unwrap());
}

/// What is told at this second; each in words of its own.
async fn told(db: &Fixture, session: &str, change: SupportChange, second: u64) -> Option<String> {
    let event_id = format!("{session} {change:?} {second}");
    told_as(db, &event_id, session, change, second, None).await
}

async fn told_as(
    db: &Fixture,
    event_id: &str,
    session: &str,
    change: SupportChange,
    second: u64,
    task: Option<&NewTask<'_>>,
) -> Option<String> {
    let inbound = Inbound { source: "crisp", event_id, kind: "some:event" };
    let event = SupportEvent { session: session.to_owned(), at: db.at(second).as_micros() / 1_000, change };
    db.store.apply_to_support(WEBSITE, &inbound, &event, task, db.at(second)).await.unwrap()
}

fn proven(emails: &[&str]) -> SupportChange {
    SupportChange::Proven(emails.iter().map(|email| (*email).to_owned()).collect())
}

async fn tasks(db: &Fixture, kind: TaskKind, second: u64) -> Vec<Task> {
    let now = db.at(second);
    db.store.take_tasks(kind, 100, now.after(Duration::from_secs(1)), now).await.unwrap()
}

async fn crisps_hooks_have_the_effects_that_the_scenario_says(db: Fixture) {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/webhook_events.json")).unwrap();
    let scenario = &vectors["crisp"];
    let website = scenario["config"]["website_id"].as_str().unwrap();
    for (number, id) in scenario["start"]["users"].as_array().unwrap().iter().enumerate() {
        user(&db, id.as_str().unwrap(), Some(&format!("{number}@example.com"))).await;
    }
    for session in scenario["start"]["support_sessions"].as_array().unwrap() {
        let change = if session["user_id"].is_null() { SupportChange::Nothing } else { proven(&["0@example.com"]) };
        let event = SupportEvent { session: session["session_id"].as_str().unwrap().to_owned(), at: 1, change };
        let inbound = Inbound { source: "crisp", event_id: &event.session, kind: "start" };
        let owner = db.store.apply_to_support(website, &inbound, &event, None, db.at(0)).await.unwrap();
        assert_eq!(owner.as_deref(), session["user_id"].as_str());
    }
    let (mut second, mut ids) = (1, Vec::new());
    for step in scenario["deliveries"].as_array().unwrap() {
        second += 1;
        let (note, expect, body) = (step["note"].as_str().unwrap(), &step["expect"], step["body"].to_string());
        let now_ms = db.at(second).as_micros() / 1_000;
        let read = match hook::read(body.as_bytes(), website, &body, now_ms) {
            Ok(read) => read,
            Err(error) => {
                assert_eq!((error, &expect["status"]), (hook::Unreadable::Website, &json!(403)), "{note}");
                continue;
            }
        };
        let mut notification = None;
        if let Some(event) = &read.event {
            let inbound = Inbound { source: "crisp", event_id: &body, kind: &read.kind };
            let owner = db.store.apply_to_support(website, &inbound, event, None, db.at(second)).await.unwrap();
            // The id is what keeps a repetition from being told again.
            let news = read.news.filter(|news| !ids.contains(&news.transaction_id));
            if let (Some(owner), Some(news)) = (owner, news) {
                ids.push(news.transaction_id.clone());
                let draft = news.draft();
                notification = Some(json!({ "user_id": owner, "type": draft.kind, "message": draft.message }));
            }
        }
        assert_eq!(notification.is_none(), expect["unchanged"] == true, "{note}: {notification:?}");
        for (member, value) in expect["notification"].as_object().into_iter().flatten() {
            assert_eq!(&notification.as_ref().unwrap()[member], value, "{note}: {member}");
        }
    }
}

async fn a_conversation_becomes_a_users_by_a_proof_alone(db: Fixture) {
    user(&db, ANN.user, Some("Ann@Example.com")).await;
    user(&db, "user_bob", Some("bob@example.com")).await;
    let email = |text: &str| SupportChange::Email(text.to_owned());
    let (ann, bob) = (Some(ANN.user.to_owned()), Some("user_bob".to_owned()));
    for (second, change, owner, why) in [
        (1, email("ann@example.com"), &None, "anybody may say that"),
        (2, proven(&[]), &None, "nobody says which address"),
        (3, proven(&["carol@example.com"]), &None, "nobody has it"),
        (4, proven(&["ann@example.com"]), &ann, "capital letters make no other address"),
        (5, SupportChange::State("pending".to_owned()), &ann, "it goes on"),
        (6, email("ANN@example.com"), &ann, "it is still hers"),
        (7, email("bob@example.com"), &None, "somebody else is there, who has shown nothing"),
        (8, proven(&["bob@example.com"]), &bob, "now that is shown"),
        (9, SupportChange::Unproven, &None, "it is taken back"),
        (10, proven(&["bob@example.com", "bob@example.com"]), &bob, "the same twice is one"),
        (11, proven(&["bob@example.com", "ann@example.com"]), &None, "he cannot be both"),
        (12, proven(&["ann@example.com"]), &ann, "again"),
        (13, SupportChange::Removed, &None, "it is gone"),
    ] {
        assert_eq!(&told(&db, S1, change, second).await, owner, "{second}: {why}");
        let found = db.store.support_of(WEBSITE, ANN.user).await.unwrap();
        assert_eq!(found.is_some(), *owner == ann, "{second}: {why}");
    }
    assert_eq!(db.store.support_of("another website", ANN.user).await.unwrap(), None);
}

async fn an_address_of_two_users_proves_nothing(db: Fixture) {
    user(&db, ANN.user, Some("family@example.com")).await;
    assert_eq!(told(&db, S1, proven(&["family@example.com"]), 1).await.as_deref(), Some(ANN.user));
    user(&db, "user_bob", Some("Family@example.com")).await;
    assert_eq!(told(&db, S1, proven(&["family@example.com"]), 2).await, None);
}

async fn older_news_change_nothing_and_a_repetition_neither(db: Fixture) {
    user(&db, ANN.user, Some("ann@example.com")).await;
    told_as(&db, "proof", S1, proven(&["ann@example.com"]), 5, None).await;
    assert_eq!(told(&db, S1, SupportChange::Unproven, 4).await.as_deref(), Some(ANN.user), "that was before");
    told(&db, S1, SupportChange::Removed, 8).await;
    assert_eq!(told(&db, S1, proven(&["ann@example.com"]), 7).await, None, "it is gone since");
    told(&db, "session_2", proven(&["ann@example.com"]), 9).await;
    let task =
        NewTask { kind: TaskKind::SupportLookup, dedupe_key: "t", user: None, payload: "{}", available_at: db.at(9) };
    assert_eq!(told_as(&db, "proof", S1, proven(&["ann@example.com"]), 10, Some(&task)).await, None, "once more");
    let owner = told_as(&db, "x", "session_2", SupportChange::Nothing, 11, Some(&task)).await;
    assert_eq!((owner.as_deref(), tasks(&db, TaskKind::SupportLookup, 11).await.len()), (Some(ANN.user), 0));
    let again = told_as(&db, "x", "session_2", SupportChange::Nothing, 12, None).await;
    assert_eq!(again.as_deref(), Some(ANN.user), "whose it is is told at a repetition too");
    told_as(&db, "y", S1, SupportChange::Nothing, 13, Some(&task)).await;
    assert_eq!(tasks(&db, TaskKind::SupportLookup, 13).await.len(), 1, "it is nobody's");
}

async fn crisp_is_asked_by_one_node_and_once_a_minute(db: Fixture) {
    user(&db, ANN.user, Some("ann@example.com")).await;
    let whose = async |since, now| db.store.whose_support(WEBSITE, S1, db.at(since), db.at(now)).await.unwrap();
    let at_once = futures_util::future::join_all((0..8).map(|_| whose(1, 1))).await;
    let asked = at_once.iter().filter(|whose| **whose == Whose::Ask).count();
    assert_eq!((asked, at_once.len()), (1, 8), "{at_once:?}");
    assert!(matches!(whose(2, 60).await, Whose::AskedLately(_)));
    assert_eq!(db.store.support_answered(WEBSITE, S1, &[], db.at(1), db.at(2)).await.unwrap(), None);
    assert_eq!(whose(1, 3).await, Whose::Nobodys);
    assert!(matches!(whose(2, 60).await, Whose::AskedLately(_)), "the answer is older than that");
    assert_eq!(whose(2, 61).await, Whose::Ask);
    let emails = ["ann@example.com".to_owned()];
    let owner = db.store.support_answered(WEBSITE, S1, &emails, db.at(61), db.at(62)).await.unwrap();
    assert_eq!(owner.as_deref(), Some(ANN.user));
    assert_eq!(whose(99, 99).await, Whose::Users(ANN.user.to_owned()));
}

async fn an_answer_that_a_hook_has_overtaken_does_not_count(db: Fixture) {
    user(&db, ANN.user, Some("ann@example.com")).await;
    db.store.whose_support(WEBSITE, S1, db.at(5), db.at(5)).await.unwrap();
    told(&db, S1, SupportChange::Email("mallory@example.com".to_owned()), 6).await;
    let emails = ["ann@example.com".to_owned()];
    let owner = db.store.support_answered(WEBSITE, S1, &emails, db.at(5), db.at(7)).await.unwrap();
    assert_eq!(owner, None, "whoever wrote meanwhile is not known to be her");
}

async fn of_several_conversations_the_last_one_is_the_users(db: Fixture) {
    user(&db, ANN.user, Some("ann@example.com")).await;
    let current = async || db.store.support_of(WEBSITE, ANN.user).await.unwrap();
    assert_eq!(current().await, None);
    told(&db, S1, proven(&["ann@example.com"]), 1).await;
    told(&db, "session_2", proven(&["ann@example.com"]), 2).await;
    assert_eq!(current().await.as_deref(), Some("session_2"));
    told(&db, S1, SupportChange::Nothing, 3).await;
    assert_eq!(current().await.as_deref(), Some(S1));
    told(&db, S1, SupportChange::Removed, 4).await;
    assert_eq!(current().await.as_deref(), Some("session_2"));
}

async fn a_deleted_users_conversations_and_messages_are_gone(db: Fixture) {
    user(&db, ANN.user, Some("ann@example.com")).await;
    told(&db, S1, proven(&["ann@example.com"]), 1).await;
    let task = NewTask {
        kind: TaskKind::SupportMessage,
        dedupe_key: "t",
        user: Some(ANN.user),
        payload: "{}",
        available_at: db.at(1),
    };
    db.store.add_task(&task, db.at(1)).await.unwrap();
    let inbound = Inbound { source: "clerk", event_id: "msg_1", kind: "user.deleted" };
    db.store.apply(&inbound, &Change::UserDeleted { id: ANN.user.to_owned() }, db.at(2)).await.unwrap();
    assert_eq!(db.store.support_of(WEBSITE, ANN.user).await.unwrap(), None);
    assert_eq!(tasks(&db, TaskKind::SupportMessage, 3).await, []);
    assert_eq!(told(&db, S1, proven(&["ann@example.com"]), 4).await, None, "nobody has that address");
}

async fn what_is_nobodys_is_forgotten_after_a_while(db: Fixture) {
    user(&db, ANN.user, Some("ann@example.com")).await;
    told(&db, S1, proven(&["ann@example.com"]), 1).await;
    told(&db, "session_2", SupportChange::Unproven, 1).await;
    db.store.purge(Duration::from_secs(10), 100, db.at(60)).await.unwrap();
    assert_eq!(db.store.support_of(WEBSITE, ANN.user).await.unwrap().as_deref(), Some(S1));
    let late = told(&db, "session_2", proven(&["ann@example.com"]), 0).await;
    assert_eq!(late.as_deref(), Some(ANN.user), "nothing is known of it any more");
}

async fn many_hooks_at_once_are_one_conversation(db: Fixture) {
    user(&db, ANN.user, Some("ann@example.com")).await;
    let tell = async |number: u64| {
        let task = NewTask {
            kind: TaskKind::SupportLookup,
            dedupe_key: "the same",
            user: None,
            payload: "{}",
            available_at: db.at(1),
        };
        let change = if number == 7 { proven(&["ann@example.com"]) } else { SupportChange::Nothing };
        told_as(&db, &number.to_string(), S1, change, 1, Some(&task)).await
    };
    futures_util::future::join_all((0..8).map(tell)).await;
    assert_eq!(db.store.support_of(WEBSITE, ANN.user).await.unwrap().as_deref(), Some(S1));
    assert!(tasks(&db, TaskKind::SupportLookup, 2).await.len() <= 1);
}
