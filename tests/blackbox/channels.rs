//! Channels (sections 1, 3.1 to 3.3): names, kinds, signatures, subscribing and unsubscribing, and what arrives in which order.

use serde_json::json;

use crate::support::Herald;

/// Every kind that a subscription alone opens.
const KINDS: [&str; 8] = [
    "news",
    "cache-news",
    "private-news",
    "private-cache-news",
    "private-encrypted-news",
    "private-encrypted-cache-news",
    "presence-news",
    "presence-cache-news",
];

#[tokio::test]
async fn every_kind_of_channel_is_subscribed_heard_and_left() {
    let herald = Herald::start("").await;
    for channel in KINDS {
        let mut client = herald.connect().await;
        client.subscribe("marker").await;
        herald.trigger(channel, "before", "nobody hears this").await;
        let answer = match channel.starts_with("presence-") {
            true => client.join(channel, "7").await,
            false => client.subscribe(channel).await,
        };
        match channel.starts_with("presence-") {
            true => {
                assert_eq!(answer.json(), json!({ "presence": { "count": 1, "ids": ["7"], "hash": { "7": null } } }))
            }
            false => assert_eq!(answer.data(), "{}", "{channel}"),
        }
        if channel.contains("cache-") {
            assert_eq!(client.next().await.event, "before", "{channel} keeps the last event");
        }
        herald.trigger(channel, "greeting", r#"{"a": 1}"#).await;
        let expected = format!(r#"{{"event":"greeting","channel":"{channel}","data":"{{\"a\": 1}}"}}"#);
        assert_eq!(client.next().await.text, expected);
        client.unsubscribe(channel).await;
        client.settle().await;
        herald.trigger(channel, "after", "nobody hears this").await;
        herald.trigger("marker", "marker", "").await;
        client.expect("marker").await;
    }
}
