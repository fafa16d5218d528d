//! Presence channels (3.1): who is told of whom, once each, and what a snapshot shows.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Client, Event, Herald};

const ROOM: &str = "presence-room";

fn ids(snapshot: &Event) -> BTreeSet<String> {
    let presence = snapshot.json()["presence"].clone();
    let ids: BTreeSet<String> =
        presence["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    assert_eq!(presence["count"], ids.len(), "count is the number of users: {}", snapshot.text);
    assert!(presence["hash"].as_object().unwrap().keys().eq(&ids), "hash holds the same users: {}", snapshot.text);
    ids
}

/// What the server tells a member by the events of one channel, kept as pusher-js keeps it.
fn apply(list: &mut BTreeSet<String>, event: &Event) {
    let data = event.json();
    let user = data["user_id"].as_str().unwrap().to_owned();
    match &*event.event {
        "pusher_internal:member_added" => assert!(list.insert(user), "told twice that somebody came: {}", event.text),
        "pusher_internal:member_removed" => {
            assert!(list.remove(&user), "told twice that somebody left: {}", event.text)
        }
        other => panic!("{other} is no event of a member"),
    }
}

#[tokio::test]
async fn members_see_each_other_come_and_go() {
    let herald = Herald::start("").await;
    let mut ann = herald.connect().await;
    let answer = ann.join_with(ROOM, &json!({ "user_id": "ann", "user_info": { "name": "Ann" } })).await;
    assert_eq!(
        answer.json(),
        json!({ "presence": { "count": 1, "ids": ["ann"], "hash": { "ann": { "name": "Ann" } } } })
    );
    let mut bob = herald.connect().await;
    let answer = bob.join_with(ROOM, &json!({ "user_id": "bob", "user_info": { "name": "Bob" } })).await;
    let hash = json!({ "ann": { "name": "Ann" }, "bob": { "name": "Bob" } });
    assert_eq!(answer.json()["presence"]["hash"], hash);
    assert_eq!(ids(&answer).len(), 2);
    let added = ann.expect("pusher_internal:member_added").await;
    assert_eq!(added.channel.as_deref(), Some(ROOM));
    assert_eq!(added.json(), json!({ "user_id": "bob", "user_info": { "name": "Bob" } }));
    bob.settle().await; // the joiner is not told about itself
    bob.unsubscribe(ROOM).await;
    let removed = ann.expect("pusher_internal:member_removed").await;
    assert_eq!((removed.channel.as_deref(), removed.json()), (Some(ROOM), json!({ "user_id": "bob" })));
    bob.join(ROOM, "bob").await;
    ann.expect("pusher_internal:member_added").await;
    bob.cut();
    ann.expect("pusher_internal:member_removed").await;
    ann.settle().await;
}

#[tokio::test]
async fn ids_are_text_and_info_is_any_json() {
    let herald = Herald::start("").await;
    let mut watcher = herald.connect().await;
    watcher.join(ROOM, "watcher").await;
    for (sent_id, id) in [
        (json!("7"), "7"),
        (json!(8), "8"),
        (json!(12_345_678_901_234_567_u64), "12345678901234567"),
        (json!(-1), "-1"),
        (json!("ä😀"), "ä😀"),
        (json!("a b/c:#"), "a b/c:#"),
        (json!("\"quoted\\"), "\"quoted\\"),
        (json!("x".repeat(128)), &"x".repeat(128)),
        (json!("__proto__"), "__proto__"),
    ] {
        let mut client = herald.connect().await;
        let answer = client.join_with(ROOM, &json!({ "user_id": sent_id })).await;
        assert!(ids(&answer).contains(id), "{}", answer.text);
        assert_eq!(watcher.expect("pusher_internal:member_added").await.json()["user_id"], id);
        client.close().await;
        assert_eq!(watcher.expect("pusher_internal:member_removed").await.json()["user_id"], id);
    }
    for info in [
        json!({ "a": [1, { "b": null }] }),
        json!([1, 2]),
        json!("text"),
        json!(7),
        json!(1.5),
        json!(false),
        Value::Null,
    ] {
        let mut client = herald.connect().await;
        let answer = client.join_with(ROOM, &json!({ "user_id": "7", "user_info": info })).await;
        assert_eq!(answer.json()["presence"]["hash"]["7"], info);
        assert_eq!(watcher.expect("pusher_internal:member_added").await.json()["user_info"], info);
        client.close().await;
        watcher.expect("pusher_internal:member_removed").await;
    }
    let mut client = herald.connect().await;
    let answer = client.join(ROOM, "7").await;
    let hash = answer.json()["presence"]["hash"].clone();
    assert!(hash.as_object().unwrap().contains_key("7"), "without info a user still stands in hash: {}", answer.text);
    assert_eq!(hash["7"], Value::Null);
}

#[tokio::test]
async fn a_user_with_two_tabs_leaves_once() {
    let herald = Herald::start("").await;
    let [mut ann, tab, other_tab] = herald.members(ROOM, ["ann", "bob", "bob"]).await;
    tab.close().await;
    herald.trigger(ROOM, "marker", "1").await;
    ann.expect("marker").await; // had bob been reported gone, that would have come first
    other_tab.close().await;
    assert_eq!(ann.expect("pusher_internal:member_removed").await.json(), json!({ "user_id": "bob" }));
    ann.settle().await;
}

#[tokio::test]
async fn many_tabs_are_one_user_with_the_info_of_the_first() {
    let herald = Herald::start("").await;
    let mut ann = herald.connect().await;
    ann.join(ROOM, "ann").await;
    let mut tabs = Vec::new();
    for number in 0..5 {
        let mut tab = herald.connect().await;
        let answer = tab.join_with(ROOM, &json!({ "user_id": "bob", "user_info": number })).await;
        assert_eq!(ids(&answer).len(), 2);
        assert_eq!(answer.json()["presence"]["hash"]["bob"], 0, "shown while the user stays");
        tabs.push(tab);
    }
    assert_eq!(ann.expect("pusher_internal:member_added").await.json()["user_info"], 0);
    for tab in &mut tabs {
        tab.settle().await; // no tab is told of its own user
    }
    let mut again = tabs.remove(0);
    again.unsubscribe(ROOM).await;
    let answer = again.join_with(ROOM, &json!({ "user_id": "bob", "user_info": "new" })).await;
    assert_eq!(answer.json()["presence"]["hash"]["bob"], 0);
    tabs.push(again);
    ann.settle().await;
    for tab in tabs {
        tab.close().await;
    }
    ann.expect("pusher_internal:member_removed").await;
    let mut bob = herald.connect().await;
    let answer = bob.join_with(ROOM, &json!({ "user_id": "bob", "user_info": "new" })).await;
    assert_eq!(answer.json()["presence"]["hash"]["bob"], "new");
    assert_eq!(ann.expect("pusher_internal:member_added").await.json()["user_info"], "new");
    ann.settle().await;
}

#[tokio::test]
async fn a_user_of_two_rooms_is_in_each_on_its_own() {
    let herald = Herald::start("").await;
    let [mut ann, mut bob] = herald.members(ROOM, ["ann", "bob"]).await;
    bob.join("presence-other", "bob").await;
    bob.unsubscribe(ROOM).await;
    ann.expect("pusher_internal:member_removed").await;
    let answer = ann.join("presence-other", "ann").await;
    assert_eq!(ids(&answer).len(), 2);
    bob.expect("pusher_internal:member_added").await;
}

#[tokio::test]
async fn a_signed_in_connection_joins_as_its_user() {
    let herald = Herald::start("").await;
    let mut ann = herald.connect().await;
    ann.join(ROOM, "ann").await;
    let mut bob = herald.connect().await;
    bob.ask_to_sign_in(&json!({ "id": "bob", "user_info": { "name": "Bob" } })).await;
    bob.expect("pusher:signin_success").await;
    let answer = bob.subscribe(ROOM).await;
    assert_eq!(answer.json()["presence"]["hash"]["bob"], json!({ "name": "Bob" }));
    let added = ann.expect("pusher_internal:member_added").await;
    assert_eq!(added.json(), json!({ "user_id": "bob", "user_info": { "name": "Bob" } }));
    bob.unsubscribe(ROOM).await;
    ann.expect("pusher_internal:member_removed").await;
    bob.join(ROOM, "robert").await; // channel_data goes before
    assert_eq!(ann.expect("pusher_internal:member_added").await.json()["user_id"], "robert");
    let mut nobody = herald.connect().await;
    nobody.send(nobody.subscription(ROOM, None)).await;
    nobody.expect_subscription_error(ROOM).await;
}

#[tokio::test]
async fn who_cannot_be_a_member_is_told_why() {
    let herald = Herald::start("").await;
    let mut ann = herald.connect().await;
    ann.join(ROOM, "ann").await;
    let large = json!({ "user_id": "7", "user_info": "x".repeat(2_047) }).to_string();
    let long = json!({ "user_id": "x".repeat(129) }).to_string();
    for (channel_data, kind, status, rule) in [
        ("", "InvalidChannel", 400, "no JSON"),
        ("hello", "InvalidChannel", 400, "no JSON"),
        ("[]", "InvalidChannel", 400, "no object"),
        (r#""7""#, "InvalidChannel", 400, "no object"),
        ("{}", "InvalidChannel", 400, "no user_id"),
        (r#"{"user_info":{}}"#, "InvalidChannel", 400, "no user_id"),
        (r#"{"user_id":""}"#, "InvalidChannel", 400, "an empty user_id"),
        (r#"{"user_id":null}"#, "InvalidChannel", 400, "null"),
        (r#"{"user_id":true}"#, "InvalidChannel", 400, "a user_id that is neither text nor number"),
        (r#"{"user_id":{}}"#, "InvalidChannel", 400, "a user_id that is neither text nor number"),
        (r#"{"user_id":"a\u0007"}"#, "InvalidChannel", 400, "a control character"),
        (&large, "LimitReached", 4301, "user_info over 2 KiB"),
        (&long, "", 0, "a user_id over 128 characters"),
    ] {
        let mut client = herald.connect().await;
        client.send(client.subscription(ROOM, Some(channel_data))).await;
        let (found, found_status, text) = client.expect_subscription_error(ROOM).await;
        assert!(!text.is_empty());
        if !kind.is_empty() {
            assert_eq!((&*found, found_status), (kind, status), "{rule}: {text}");
        }
        client.subscribe("private-a").await; // the connection goes on
    }
    let mut fitting = herald.connect().await;
    fitting.join_with(ROOM, &json!({ "user_id": "7", "user_info": "x".repeat(2_046) })).await;
    assert_eq!(ann.expect("pusher_internal:member_added").await.json()["user_id"], "7", "the only one who came");
    ann.settle().await;
}

#[tokio::test]
async fn a_room_has_as_many_members_as_the_app_allows() {
    let herald = Herald::start("[[apps]]\n[apps.limits]\npresence_members = 2\npresence_user_info = 20").await;
    let [mut ann, bob] = herald.members(ROOM, ["ann", "bob"]).await;
    let mut third = herald.connect().await;
    third.send(third.subscription(ROOM, Some(r#"{"user_id":"cid"}"#))).await;
    let (kind, status, text) = third.expect_subscription_error(ROOM).await;
    assert_eq!((&*kind, status), ("LimitReached", 4100));
    assert!(text.contains('2'), "the limit is told: {text}");
    let mut tab = herald.connect().await;
    tab.join(ROOM, "bob").await; // a second tab is no further member
    third.join("presence-other", "cid").await; // a limit of the channel, not of the client
    tab.close().await;
    bob.close().await;
    ann.expect("pusher_internal:member_removed").await;
    third.join(ROOM, "cid").await;
    ann.expect("pusher_internal:member_added").await;
    let mut large = herald.connect().await;
    large
        .send(large.subscription("presence-other", Some(r#"{"user_id":"7","user_info":"01234567890123456789"}"#)))
        .await;
    let (kind, status, text) = large.expect_subscription_error("presence-other").await;
    assert_eq!((&*kind, status), ("LimitReached", 4301));
    assert!(text.contains("20"), "the limit is told: {text}");
}

#[tokio::test]
async fn the_users_of_a_room_are_listed_once_each() {
    let herald = Herald::start("").await;
    let _members = herald.members(ROOM, ["ann", "bob", "bob"]).await;
    let answer = herald.api().get(&format!("/channels/{ROOM}/users"), &[]).await.ok();
    assert_eq!(users(&answer), ["ann", "bob"].map(str::to_owned).into());
    assert_eq!(answer["users"].as_array().unwrap().len(), 2);
    let empty = herald.api().get("/channels/presence-empty/users", &[]).await.ok();
    assert_eq!(empty, json!({ "users": [] }));
    assert_eq!(herald.api().get("/channels/news/users", &[]).await.status, 400);
}

fn users(answer: &Value) -> BTreeSet<String> {
    answer["users"].as_array().unwrap().iter().map(|user| user["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn whoever_watches_a_churning_room_knows_who_is_there() {
    const CHURNING: usize = 50;
    const WATCHING: usize = 4;
    const ROUNDS: usize = 60;
    let herald = Herald::start("").await;
    let user = |client: usize, round: usize| format!("user-{}", (client * 7_919 + round * 104_729) % 500);
    let churn = join_all((0..CHURNING).map(|number| {
        let herald = &herald;
        async move {
            let mut client = herald.connect().await;
            for round in 0..ROUNDS {
                let mut list = ids(&client.join(ROOM, &user(number, round)).await);
                client.unsubscribe(ROOM).await;
                client.send(json!({ "event": "pusher:ping" })).await;
                // What came between joining and leaving fits what the answer showed.
                loop {
                    let event = client.next().await;
                    if event.event == "pusher:pong" {
                        break;
                    }
                    apply(&mut list, &event);
                }
            }
            client.join(ROOM, &user(number, ROUNDS)).await;
            client
        }
    }));
    let done = tokio::sync::Semaphore::new(0);
    let watch = join_all((0..WATCHING).map(|number| {
        let (herald, done) = (&herald, &done);
        async move {
            let mut client = herald.connect().await;
            let mut list = ids(&client.join(ROOM, &format!("watcher-{number}")).await);
            drop(done.acquire().await.unwrap());
            loop {
                let event = client.next().await;
                if event.event == "marker" {
                    return (client, list);
                }
                apply(&mut list, &event);
            }
        }
    }));
    let churned = async {
        let clients = churn.await;
        herald.trigger(ROOM, "marker", "").await;
        done.add_permits(WATCHING);
        clients
    };
    let (_clients, watched) = tokio::join!(churned, watch);
    let present = users(&herald.api().get(&format!("/channels/{ROOM}/users"), &[]).await.ok());
    let mut late = herald.connect().await;
    let mut shown = ids(&late.join(ROOM, "late").await);
    shown.remove("late");
    assert_eq!(shown, present);
    for (number, (_, list)) in watched.iter().enumerate() {
        assert_eq!(*list, present, "what watcher {number} was told");
    }
}

#[tokio::test]
async fn a_snapshot_larger_than_what_may_wait_arrives_whole() {
    const MEMBERS: usize = 60;
    let herald = Herald::start("connection = { queue = { max_bytes = 16384 } }").await;
    let mut members: Vec<Client> = Vec::new();
    for number in 0..MEMBERS {
        let mut client = herald.connect().await;
        let data = json!({ "user_id": format!("user-{number}"), "user_info": "x".repeat(2_000) });
        let answer = client.join_with(ROOM, &data).await;
        assert_eq!(ids(&answer).len(), number + 1);
        for earlier in &mut members {
            assert_eq!(earlier.expect("pusher_internal:member_added").await.json(), data);
        }
        members.push(client);
    }
    let mut late = herald.connect().await;
    let answer = late.join(ROOM, "late").await;
    assert!(answer.text.len() > 100_000, "many times the bound: {}", answer.text.len());
    assert_eq!(ids(&answer).len(), MEMBERS + 1);
    late.settle().await;
}
