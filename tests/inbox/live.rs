//! What a connection hears of an inbox by itself: where it stands when it comes, and each change once.

use serde_json::json;

use super::support::Herald;
use super::user::{ask, auth, notify, subscriber, tab, token};

#[tokio::test]
async fn whoever_comes_is_told_where_the_inbox_stands() {
    let herald = Herald::start(&auth("")).await;
    let mut first = tab(&herald, "user_ann").await;
    notify(&herald, &["user_ann"], "One").await;
    notify(&herald, &["user_ann"], "Two").await;
    ask(&herald, "user_ann", "POST", "/v1/inbox/mark-all", &json!({ "action": "seen", "up_to_rev": 1 })).await.ok();
    for event in ["notification.created", "notification.created", "inbox.all_seen"] {
        first.expect(event).await;
    }

    let mut tab = subscriber(&herald, &token("user_ann", &json!({})), "private-user-user_ann").await;
    let state = tab.expect("inbox.state").await;
    assert_eq!(state.channel.as_deref(), Some("private-user-user_ann"));
    assert_eq!(state.json(), json!({ "rev": 3, "counts": { "unread": 2, "unseen": 1 } }));

    let mut signed_in = herald.connect().await;
    signed_in.sign_in("user_bob").await;
    signed_in.subscribe("#server-to-user-user_bob").await;
    let state = signed_in.expect("inbox.state").await;
    assert_eq!(state.json(), json!({ "rev": 0, "counts": { "unread": 0, "unseen": 0 } }));
    let mut other = subscriber(&herald, &token("user_ann", &json!({})), "private-user-user_ann-files").await;
    other.settle().await; // that is no inbox
}

#[tokio::test]
async fn an_id_that_cannot_stand_in_a_name_has_its_channel_all_the_same() {
    let herald = Herald::start(&auth("")).await;
    for user in ["auth0|ann-1".to_owned(), "ä".repeat(80)] {
        let channel = herald_protocol::segment::user_channel(&user);
        let mut tab = subscriber(&herald, &token(&user, &json!({})), &channel).await;
        assert_eq!(tab.expect("inbox.state").await.json()["rev"], 0, "{user}");
        notify(&herald, &[&user], "Hello").await;
        assert_eq!(tab.expect("notification.created").await.json()["notification"]["title"], "Hello");
    }
}

#[tokio::test]
async fn a_connection_with_both_channels_of_its_user_hears_each_change_once() {
    let herald = Herald::start(&auth("")).await;
    let private = "private-user-user_ann";
    let mut client = tab(&herald, "user_ann").await;
    client.sign_in("user_ann").await;
    client.subscribe("#server-to-user-user_ann").await;
    client.expect("inbox.state").await;
    for title in ["One", "Two"] {
        notify(&herald, &["user_ann"], title).await;
        let event = client.expect("notification.created").await;
        assert_eq!((event.channel.as_deref(), &event.json()["notification"]["title"]), (Some(private), &json!(title)));
    }
    client.unsubscribe(private).await;
    client.settle().await;
    notify(&herald, &["user_ann"], "Three").await;
    let event = client.expect("notification.created").await;
    assert_eq!(event.channel.as_deref(), Some("#server-to-user-user_ann"), "there is no other way now");
    assert_eq!(event.json()["rev"], 3);
    client.settle().await;
}
