//! `POST /events`: one event to some channels (4.2, cases I3 and I4).

use serde_json::{Value, json};

use crate::support::{Herald, Request};

#[tokio::test]
async fn what_may_stand_in_a_trigger() {
    let herald = Herald::start();
    let names = |count: usize| (0..count).map(|n| format!("c{n}")).collect::<Vec<_>>();
    let with = |change: Value| {
        let mut event = json!({ "name": "e", "channel": "c", "data": "d" });
        for (name, value) in change.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    };
    let twice = [names(100), names(100)].concat();
    for (event, status, text) in [
        (with(json!({})), 200, "{}"),
        (with(json!({ "name": "x".repeat(200) })), 200, "{}"),
        (with(json!({ "name": "ü".repeat(200) })), 200, "{}"),
        (with(json!({ "name": "x".repeat(201) })), 400, "`name` has 201 characters, 1 to 200 are allowed"),
        (with(json!({ "name": "" })), 400, "`name` has 0 characters"),
        (with(json!({ "name": "a\u{7f}" })), 400, "control characters"),
        (with(json!({ "name": "pusher:e" })), 400, "must not begin with pusher:"),
        (with(json!({ "name": "pusher_internal:e" })), 400, "must not begin with pusher: or pusher_internal:"),
        (with(json!({ "name": "pusher" })), 200, "{}"),
        (with(json!({ "name": 1 })), 400, "`name` must be a string"),
        (with(json!({ "name": null })), 400, "`name` is missing"),
        (with(json!({ "channel": "a b" })), 400, "channel \"a b\": the channel name holds ' '"),
        (with(json!({ "channel": "" })), 400, "must not be empty"),
        (with(json!({ "channel": "x".repeat(164) })), 200, "{}"),
        (with(json!({ "channel": "x".repeat(165) })), 400, "has 165 characters, 164 are allowed"),
        (with(json!({ "channel": "azAZ09_-=@,.;" })), 200, "{}"),
        (with(json!({ "channel": "#server-to-user-7" })), 200, "{}"),
        (with(json!({ "channel": "#server-to-user-" })), 400, "user id"),
        (with(json!({ "channel": "#private" })), 400, "#server-to-user-USER_ID"),
        (with(json!({ "channel": ["c"] })), 400, "`channel` must be a string"),
        (with(json!({ "channel": null })), 400, "`channels` is missing"),
        (with(json!({ "channels": names(100) })), 200, "{}"),
        (with(json!({ "channels": twice })), 200, "{}"),
        (with(json!({ "channels": names(101) })), 400, "`channels` has 101 names, 1 to 100 are allowed"),
        (with(json!({ "channels": [] })), 400, "`channels` has 0 names"),
        (with(json!({ "channels": ["c", "é"] })), 400, "channel \"é\""),
        (with(json!({ "channels": ["c", 1] })), 400, "`channels` must be an array of strings"),
        (with(json!({ "channels": "c" })), 400, "`channels` must be an array of strings"),
        (with(json!({ "data": null })), 200, "{}"),
        (with(json!({ "socket_id": null })), 200, "{}"),
        (with(json!({ "socket_id": "1.2" })), 200, "{}"),
        (with(json!({ "socket_id": "1" })), 400, "`socket_id`"),
        (with(json!({ "socket_id": "" })), 400, "`socket_id`"),
        (with(json!({ "socket_id": "1.2:x" })), 400, "`socket_id`"),
        (with(json!({ "socket_id": 1.2 })), 400, "`socket_id` must be a string"),
        (with(json!({ "info": "" })), 200, "{}"),
        (with(json!({ "info": null })), 200, "{}"),
        (with(json!({ "info": "user_count,members,x" })), 400, "[\"members\", \"x\"]"),
        (with(json!({ "info": "cache" })), 400, "[\"cache\"]"),
        (with(json!({ "info": ["user_count"] })), 400, "`info` must be a string"),
        (with(json!({ "another": [{}] })), 200, "{}"),
        (json!({ "name": "e", "channel": "c" }), 400, "`data` is missing"),
        (json!({ "channel": "c", "data": "d" }), 400, "`name` is missing"),
        (json!({ "name": "e", "data": "d" }), 400, "`channels` is missing"),
        (json!([]), 400, "not a JSON object"),
        (json!("text"), 400, "not a JSON object"),
    ] {
        let response = herald.post("/events", &event).await;
        match status {
            200 => assert_eq!((response.status, response.body.as_str()), (200, text), "{event}"),
            _ => response.refused(status, text),
        }
    }
    for (body, text) in [
        (&b"{\"name\":\"e\""[..], "not a JSON object"),
        (b"{} {}", "not a JSON object"),
        (b"\xff", "the body is not UTF-8"),
        (b"", "`name` is missing"),
        (b"name=e&channel=c&data=d", "not a JSON object"),
    ] {
        herald.send(&Request::raw("/events", body)).await.refused(400, text);
    }
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let last = r#"{"name":"pusher:x","data":1,"n\u0061me":"e","channel":"c","data":"d"}"#.to_owned();
    let ignored = format!(r#"{{"name":"e","channel":"c","data":"","x":{}}}"#, nested(80_000));
    let passed_on = format!(r#"{{"name":"e","channel":"c","data":{}}}"#, nested(5_000));
    for body in [last, ignored, passed_on] {
        assert_eq!(herald.send(&Request::raw("/events", body)).await.json(), json!({}));
    }
}

#[tokio::test]
async fn parameters_may_stand_in_the_query_and_the_body_wins() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["a", "b", "c"]).await;
    let in_query = Request::raw("/events", "").param("name", "q").param("data", "\"quoted\" ü");
    let all = in_query.clone().param("channels[]", "a").param("channels[]", "b").param("info", "subscription_count");
    let counts = json!({ "channels": { "a": { "subscription_count": 1 }, "b": { "subscription_count": 1 } } });
    assert_eq!(herald.send(&all).await.json(), counts);
    for channel in ["a", "b"] {
        let event = client.expect("q").await;
        assert_eq!((event["channel"].as_str(), event["data"].as_str()), (Some(channel), Some("\"quoted\" ü")));
    }
    let excluding = in_query.clone().param("channel", "c").param("socket_id", &client.id);
    assert_eq!(herald.send(&excluding).await.json(), json!({}));
    herald.send(&in_query.clone().param("channel", "c").param("socket_id", "x")).await.refused(400, "`socket_id`");
    herald.send(&in_query.param("channel", "a b").param("info", "")).await.refused(400, "channel \"a b\"");

    let body = json!({ "name": "body", "channels": ["c"], "data": "body", "socket_id": "1.1", "info": "" });
    let both = Request::post("/events", &body).param("name", "pusher:wrong").param("channel", "wrong name");
    let both = both.param("data", &"x".repeat(20_000)).param("socket_id", "wrong").param("info", "wrong");
    assert_eq!(herald.send(&both).await.json(), json!({}));
    assert_eq!(client.expect("body").await["data"], "body");
}

#[tokio::test]
async fn a_channel_named_twice_gets_the_event_once_and_the_order_is_the_publishers() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["z", "a", "m"]).await;
    let event = json!({ "name": "e", "channels": ["z", "m", "z", "a", "m"], "data": "" });
    assert_eq!(herald.post("/events", &event).await.json(), json!({}));
    herald.trigger("z", "end", "").await;
    for (name, channel) in [("e", "z"), ("e", "m"), ("e", "a"), ("end", "z")] {
        assert_eq!(client.expect(name).await["channel"], channel);
    }
}

#[tokio::test]
async fn data_arrives_byte_for_byte() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    for token in [
        r#""""#,
        r#""\u0041\/\u2028 \ud83d\ude00 😀""#,
        r#""\ud800""#,
        r#""1e21""#,
        r#""{\"a\":[1, 2]}""#,
        r#""no JSON""#,
    ] {
        let body = format!(r#"{{"data":{token},"name":"e","channel":"c"}}"#);
        assert_eq!(herald.send(&Request::raw("/events", body)).await.json(), json!({}), "{token}");
        assert_eq!(client.text().await, format!(r#"{{"event":"e","channel":"c","data":{token}}}"#));
    }
    for (value, data) in [("{\"a\": 1e21}", "{\"a\": 1e21}"), ("[1 ,2]", "[1 ,2]"), ("5", "5"), ("null", "null")] {
        let body = format!(r#"{{"data":{value},"name":"e","channel":"c"}}"#);
        assert_eq!(herald.send(&Request::raw("/events", body)).await.json(), json!({}), "{value}");
        assert_eq!(client.expect("e").await["data"], data);
    }
}

#[tokio::test]
async fn the_named_socket_is_left_out_and_an_unknown_one_is_nobody() {
    let herald = Herald::start();
    let (mut ann, mut bob) = (herald.subscriber(&["c"]).await, herald.subscriber(&["c"]).await);
    for (name, socket) in [("not-ann", ann.id.as_str()), ("all", "99999999999999999999999.1")] {
        let event = json!({ "name": name, "channel": "c", "data": "", "socket_id": socket });
        assert_eq!(herald.post("/events", &event).await.json(), json!({}));
    }
    ann.expect("all").await;
    bob.expect("not-ann").await;
    bob.expect("all").await;
}

#[tokio::test]
async fn ten_kilobytes_of_data_pass_and_not_a_byte_more() {
    let herald = Herald::start();
    let of = |data: Value| json!({ "name": "e", "channel": "c", "data": data });
    for data in [json!("x".repeat(10_240)), json!("é".repeat(5_120)), json!("\n".repeat(10_240))] {
        assert_eq!(herald.post("/events", &of(data)).await.json(), json!({}));
    }
    assert_eq!(herald.post("/events", &of(json!(["x".repeat(10_236)]))).await.json(), json!({}));
    for data in [json!("x".repeat(10_241)), json!(["x".repeat(10_237)])] {
        herald.post("/events", &of(data)).await.refused(413, "`data` has 10241 bytes, 10240 are allowed");
    }
    let in_query = Request::raw("/events", "").param("name", "e").param("channel", "c");
    herald.send(&in_query.param("data", &"x".repeat(10_241))).await.refused(413, "10241");
}

#[tokio::test]
async fn limits_are_the_apps() {
    let limits = "[apps.limits]\nchannel_name = 10\nevent_name = 3\nevent_data = 4\nchannels_per_trigger = 2";
    let herald = Herald::with("", limits);
    let send = |name: &str, channels: &[&str], data: &str| {
        Request::post("/events", &json!({ "name": name, "channels": channels, "data": data }))
    };
    assert_eq!(herald.send(&send("eee", &["a", "aaaaaaaaaa"], "dddd")).await.json(), json!({}));
    herald.send(&send("eeee", &["a"], "")).await.refused(400, "1 to 3 are allowed");
    herald.send(&send("e", &["aaaaaaaaaaa"], "")).await.refused(400, "10 are allowed");
    herald.send(&send("e", &["a", "b", "c"], "")).await.refused(400, "1 to 2 are allowed");
    herald.send(&send("e", &["a"], "ddddd")).await.refused(413, "4 are allowed");
}

#[tokio::test]
async fn a_trigger_answers_the_counts_it_is_asked_for() {
    let herald = Herald::start();
    let _ann = herald.member("presence-p", "ann").await;
    let _tab = herald.member("presence-p", "ann").await;
    let _other = herald.subscriber(&["c"]).await;
    let ask = async |info: &str| {
        let channels = ["c", "presence-p", "empty", "presence-empty"];
        let event = json!({ "name": "e", "channels": channels, "data": "", "info": info });
        herald.post("/events", &event).await.json()
    };
    assert_eq!(
        ask("user_count,subscription_count").await,
        json!({ "channels": {
            "c": { "subscription_count": 1 },
            "presence-p": { "user_count": 1, "subscription_count": 2 },
            "empty": { "subscription_count": 0 },
            "presence-empty": { "user_count": 0, "subscription_count": 0 },
        } })
    );
    assert_eq!(
        ask("user_count").await,
        json!({ "channels": {
            "c": {}, "presence-p": { "user_count": 1 }, "empty": {}, "presence-empty": { "user_count": 0 },
        } })
    );
}

#[tokio::test]
async fn an_event_reaches_a_user_on_every_socket_that_asked_for_it() {
    let herald = Herald::start();
    let [mut phone, mut laptop, mut silent] = [herald.client().await, herald.client().await, herald.client().await];
    for client in [&mut phone, &mut laptop, &mut silent] {
        client.sign_in("7 @home").await;
    }
    for client in [&mut phone, &mut laptop] {
        client.subscribe("#server-to-user-7 @home", None).await;
    }
    silent.subscribe("end", None).await;
    herald.trigger("#server-to-user-7 @home", "note", "hello").await;
    herald.trigger("end", "end", "").await;
    assert_eq!(phone.expect("note").await["data"], "hello");
    laptop.expect("note").await;
    silent.expect("end").await;
}
