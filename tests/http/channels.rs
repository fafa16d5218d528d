//! What a backend may ask about channels (4.2, case I3).

use serde_json::json;

use crate::support::Herald;

#[tokio::test]
async fn occupied_channels_are_listed_and_filtered() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["a", "ab", "cache-x", "private-p"]).await;
    client.sign_in("7").await;
    client.subscribe("#server-to-user-7", None).await;
    let _member = herald.member("presence-r", "ann").await;
    herald.trigger("cache-kept", "e", "kept, but nobody is there").await;
    let list = async |query: &[(&str, &str)]| herald.get("/channels", query).await.json()["channels"].clone();
    assert_eq!(list(&[]).await, json!({ "a": {}, "ab": {}, "cache-x": {}, "presence-r": {}, "private-p": {} }));
    assert_eq!(list(&[("filter_by_prefix", "a")]).await, json!({ "a": {}, "ab": {} }));
    assert_eq!(list(&[("filter_by_prefix", "presence-")]).await, json!({ "presence-r": {} }));
    assert_eq!(list(&[("filter_by_prefix", "#server")]).await, json!({}));
    assert_eq!(
        list(&[("filter_by_prefix", "ab"), ("info", "subscription_count")]).await,
        json!({ "ab": { "subscription_count": 1 } })
    );
    client.leave("a").await;
    assert_eq!(list(&[("filter_by_prefix", "a")]).await, json!({ "ab": {} }));
}

#[tokio::test]
async fn counts_of_the_listed_channels() {
    let herald = Herald::start();
    let _ann = herald.member("presence-r", "ann").await;
    let _tab = herald.member("presence-r", "ann").await;
    let _bob = herald.member("presence-s", "bob").await;
    let list =
        async |prefix: &str, info: &str| herald.get("/channels", &[("filter_by_prefix", prefix), ("info", info)]).await;
    assert_eq!(
        list("presence-", "user_count").await.json(),
        json!({ "channels": { "presence-r": { "user_count": 1 }, "presence-s": { "user_count": 1 } } })
    );
    assert_eq!(
        list("presence-r", "subscription_count,user_count").await.json(),
        json!({ "channels": { "presence-r": { "user_count": 1, "subscription_count": 2 } } })
    );
    for prefix in ["", "presence", "private-"] {
        list(prefix, "user_count").await.refused(400, "begins with presence-");
    }
    list("presence-", "user_count,wrong").await.refused(400, "[\"wrong\"]");
    list("", "cache").await.refused(400, "[\"cache\"]");
}

#[tokio::test]
async fn one_channel_says_how_it_is() {
    let herald = Herald::start();
    let _ann = herald.member("presence-r", "ann").await;
    let _tab = herald.member("presence-r", "ann").await;
    let _other = herald.subscriber(&["c"]).await;
    for (path, info, answer) in [
        ("/channels/c", "", json!({ "occupied": true })),
        ("/channels/c", "subscription_count", json!({ "occupied": true, "subscription_count": 1 })),
        ("/channels/empty", "subscription_count", json!({ "occupied": false, "subscription_count": 0 })),
        (
            "/channels/presence-r",
            "user_count,subscription_count",
            json!({ "occupied": true, "user_count": 1, "subscription_count": 2 }),
        ),
        ("/channels/presence-empty", "user_count", json!({ "occupied": false, "user_count": 0 })),
        ("/channels/presence%2dr", "user_count", json!({ "occupied": true, "user_count": 1 })),
        ("/channels/a%40b%2Cc.d%3Be%3Df", "", json!({ "occupied": false })),
    ] {
        assert_eq!(herald.get(path, &[("info", info)]).await.json(), answer, "{path} {info}");
    }
    for (path, info, text) in [
        ("/channels/c", "user_count", "presence channels only"),
        ("/channels/c", "cache", "cache channels only"),
        ("/channels/presence-r", "cache", "cache channels only"),
        ("/channels/c", "wrong", "[\"wrong\"]"),
        ("/channels/a%20b", "", "channel \"a b\""),
        ("/channels/a%2Fb", "", "channel \"a/b\""),
        ("/channels/%23x", "", "channel \"#x\""),
        ("/channels/%ff", "", "not UTF-8"),
    ] {
        herald.get(path, &[("info", info)]).await.refused(400, text);
    }
    let long = format!("/channels/{}", "x".repeat(165));
    herald.get(&long, &[]).await.refused(400, "has 165 characters, 164 are allowed");
}

#[tokio::test]
async fn a_cache_channel_shows_what_it_keeps() {
    let herald = Herald::with("", "cache_ttl = \"10m\"");
    for channel in ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"] {
        let path = format!("/channels/{channel}");
        let show = async || herald.get(&path, &[("info", "cache")]).await.json();
        assert_eq!(show().await, json!({ "occupied": false, "cache": null }));
        herald.trigger(channel, "e", "first").await;
        herald.trigger(channel, "e", "{\"last\":\"\u{2028}ü\"}").await;
        let shown = show().await;
        assert_eq!(shown["occupied"], false);
        assert_eq!(shown["cache"]["data"], "{\"last\":\"\u{2028}ü\"}");
        let ttl = shown["cache"]["ttl"].as_u64().unwrap();
        assert!((580..=600).contains(&ttl), "{ttl}");
    }
}

#[tokio::test]
async fn members_of_a_presence_channel_are_listed_each_once() {
    let herald = Herald::start();
    assert_eq!(herald.get("/channels/presence-r/users", &[]).await.json(), json!({ "users": [] }));
    let _ann = herald.member("presence-r", "ann").await;
    let _tab = herald.member("presence-r", "ann").await;
    let mut bob = herald.member("presence-r", "b \"o\" b").await;
    let users = async || {
        let mut users = herald.get("/channels/presence-r/users", &[]).await.json()["users"].as_array().unwrap().clone();
        users.sort_by_key(ToString::to_string);
        users
    };
    assert_eq!(users().await, [json!({ "id": "ann" }), json!({ "id": "b \"o\" b" })]);
    bob.leave("presence-r").await;
    assert_eq!(users().await, [json!({ "id": "ann" })]);
    for name in ["c", "private-p", "cache-c", "%23server-to-user-7"] {
        let path = format!("/channels/{name}/users");
        herald.get(&path, &[]).await.refused(400, "only presence channels have users");
    }
    herald.get("/channels/presence-%20/users", &[]).await.refused(400, "channel \"presence- \"");
}
