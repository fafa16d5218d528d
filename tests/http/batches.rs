//! `POST /batch_events`: several events, or none (4.2, cases I3 and I5).

use serde_json::{Value, json};

use crate::support::{Herald, Request};

fn event(n: usize) -> Value {
    json!({ "name": format!("e{n}"), "channel": "c", "data": n.to_string() })
}

fn batch(events: impl IntoIterator<Item = Value>) -> Value {
    json!({ "batch": events.into_iter().collect::<Vec<_>>() })
}

#[tokio::test]
async fn a_batch_arrives_whole_and_in_order() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    assert_eq!(herald.post("/batch_events", &batch((0..10).map(event))).await.json(), json!({}));
    for n in 0..10 {
        assert_eq!(client.expect(&format!("e{n}")).await["data"], n.to_string());
    }
}

#[tokio::test]
async fn one_wrong_event_refuses_all_and_is_named_by_its_index() {
    let herald = Herald::start();
    let mut client = herald.subscriber(&["c"]).await;
    for (change, status, text) in [
        (json!({ "name": "" }), 400, "`name` has 0 characters"),
        (json!({ "name": "pusher:e" }), 400, "must not begin with pusher:"),
        (json!({ "name": null }), 400, "`name` is missing"),
        (json!({ "channel": "a b" }), 400, "channel \"a b\""),
        (json!({ "channel": null }), 400, "`channel` must be a string"),
        (json!({ "data": "x".repeat(10_241) }), 413, "`data` has 10241 bytes, 10240 are allowed"),
        (json!({ "socket_id": "wrong" }), 400, "`socket_id`"),
        (json!({ "info": "wrong" }), 400, "[\"wrong\"]"),
    ] {
        for index in [0, 2] {
            let mut events: Vec<Value> = (0..3).map(event).collect();
            for (name, value) in change.as_object().unwrap() {
                events[index][name] = value.clone();
            }
            let response = herald.post("/batch_events", &batch(events)).await;
            response.refused(status, &format!("batch[{index}]: "));
            response.refused(status, text);
        }
    }
    for (index, missing) in ["name", "data", "channel"].iter().enumerate() {
        let mut events: Vec<Value> = (0..3).map(event).collect();
        events[index].as_object_mut().unwrap().remove(*missing);
        let text = format!("batch[{index}]: `{missing}` is missing");
        herald.post("/batch_events", &batch(events)).await.refused(400, &text);
    }
    let text = "batch[1]: not a JSON object";
    herald.post("/batch_events", &batch([event(0), json!(5)])).await.refused(400, text);
    herald.trigger("c", "end", "").await;
    client.expect("end").await;
}

#[tokio::test]
async fn a_batch_has_one_to_ten_events() {
    let herald = Herald::start();
    for (body, text) in [
        (batch((0..11).map(event)), "`batch` has 11 events, 1 to 10 are allowed"),
        (batch([]), "`batch` has 0 events"),
        (json!({}), "`batch` is missing"),
        (json!({ "batch": event(0) }), "`batch` must be an array of events"),
        (json!({ "batch": null }), "`batch` must be an array of events"),
        (json!([event(0)]), "not a JSON object"),
    ] {
        herald.post("/batch_events", &body).await.refused(400, text);
    }
    // The query's parameters are those of one event, not of each in a batch.
    let body = batch([json!({ "name": "e", "data": "" })]);
    herald
        .send(&Request::post("/batch_events", &body).param("channel", "c"))
        .await
        .refused(400, "`channel` is missing");
}

#[tokio::test]
async fn the_counts_stand_in_the_order_of_the_events() {
    let herald = Herald::start();
    let _member = herald.member("presence-p", "ann").await;
    let events = batch([
        json!({ "name": "e", "channel": "presence-p", "data": "", "info": "user_count,subscription_count" }),
        json!({ "name": "e", "channel": "c", "data": "" }),
        json!({ "name": "e", "channel": "c", "data": "", "info": "subscription_count" }),
    ]);
    assert_eq!(
        herald.post("/batch_events", &events).await.json(),
        json!({ "batch": [{ "user_count": 1, "subscription_count": 1 }, {}, { "subscription_count": 0 }] })
    );
}

#[tokio::test]
async fn each_event_leaves_out_its_own_socket() {
    let herald = Herald::start();
    let (mut ann, mut bob) = (herald.subscriber(&["c"]).await, herald.subscriber(&["c"]).await);
    let events = [("not-ann", &ann.id), ("not-bob", &bob.id)];
    let events = events.map(|(name, id)| json!({ "name": name, "channel": "c", "data": "", "socket_id": id }));
    assert_eq!(herald.post("/batch_events", &batch(events)).await.json(), json!({}));
    ann.expect("not-bob").await;
    bob.expect("not-ann").await;
}
