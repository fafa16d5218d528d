//! How many requests an app's backends may send in a second (section 1).

use serde_json::{Value, json};

use crate::support::{Herald, Request, Response};

const LIMITS: &str = "[apps.limits]\nevents_per_second = 5\nreads_per_second = 3";

fn refused_for_a_second(response: &Response, what: &str) {
    response.refused(429, what);
    assert_eq!(response.header("retry-after"), Some("1"));
}

/// A request costs what it costs; a second later all of it is there again.
async fn until_allowed(herald: &Herald, request: &Request) {
    let allowed = async { while herald.send(request).await.status == 429 {} };
    tokio::time::timeout(crate::support::DEADLINE, allowed).await.expect("it is never allowed again");
}

fn batch(size: usize) -> Request {
    let event = json!({ "name": "e", "channel": "c", "data": "" });
    Request::post("/batch_events", &json!({ "batch": vec![event; size] }))
}

#[tokio::test]
async fn each_event_of_a_batch_counts_and_each_channel_of_a_trigger_does_not() {
    let herald = Herald::with("", LIMITS);
    let channels: Vec<Value> = (0..50).map(|n| json!(format!("c{n}"))).collect();
    let trigger = Request::post("/events", &json!({ "name": "e", "channels": channels, "data": "" }));
    assert_eq!(herald.send(&trigger).await.status, 200);
    herald.send(&batch(6)).await.refused(400, "6 events at once, 5 a second are allowed");
    let batch = batch(5);
    let responses = futures_util::future::join_all((0..20).map(|_| herald.send(&batch))).await;
    let refused: Vec<_> = responses.iter().filter(|response| response.status != 200).collect();
    assert!(refused.len() > 1, "a hundred events were allowed at once");
    for response in refused {
        refused_for_a_second(response, "more than 5 events a second");
    }
    assert_eq!(herald.get("/channels", &[]).await.status, 200, "questions have a limit of their own");
    until_allowed(&herald, &trigger).await;
}

#[tokio::test]
async fn questions_are_counted_too() {
    let herald = Herald::with("", LIMITS);
    let requests = (0..20).map(|n| match n % 4 {
        0 => Request::get("/channels"),
        1 => Request::get("/channels/c"),
        2 => Request::get("/connections").method("HEAD"),
        _ => Request::get("/connections"),
    });
    let requests: Vec<Request> = requests.collect();
    let responses = futures_util::future::join_all(requests.iter().map(|request| async {
        let mut wire = herald.wire().await;
        wire.write(&request.bytes()).await;
        wire.head().await
    }))
    .await;
    let (allowed, refused): (Vec<_>, Vec<_>) = responses.iter().partition(|response| response.status == 200);
    assert!((3..20).contains(&allowed.len()), "{} were allowed", allowed.len());
    for response in refused {
        assert_eq!((response.status, response.header("retry-after")), (429, Some("1")));
    }
    assert_eq!(herald.send(&Request::event()).await.status, 200, "events have a limit of their own");
}

#[tokio::test]
async fn who_is_not_let_in_does_not_use_up_the_limit() {
    let herald = Herald::with("", "[apps.limits]\nevents_per_second = 1\nreads_per_second = 1");
    for _ in 0..5 {
        herald.send(&Request::event().with(|request| request.secret = "wrong".into())).await.error(401);
        herald.send(&Request::get("/channels").with(|request| request.secret = "wrong".into())).await.error(401);
    }
    assert_eq!(herald.send(&Request::event()).await.status, 200);
    assert_eq!(herald.get("/channels", &[]).await.status, 200);
}

#[tokio::test]
async fn a_repeat_costs_nothing_and_a_refusal_is_not_kept() {
    let herald = Herald::with("", "[apps.limits]\nevents_per_second = 1");
    let keyed = |key: &str| Request::event().header("Idempotency-Key", key);
    assert_eq!(herald.send(&keyed("one")).await.status, 200);
    let second = keyed("two");
    for _ in 0..3 {
        assert_eq!(herald.send(&keyed("one")).await.header("idempotent-replayed"), Some("true"));
    }
    until_allowed(&herald, &second).await;
}
