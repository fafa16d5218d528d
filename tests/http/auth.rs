//! Who is let in, and what everybody else is told (4.1, cases I1 and I2).

use serde_json::json;

use crate::support::{Herald, Request, now};

const OTHER_APPS: &str = r#"
keys = [{ key = "second-key", secret = "second-secret" }]

[[apps]]
id = "off"
key = "off-key"
secret = "off-secret"
enabled = false

[[apps]]
id = "other"
key = "other-key"
secret = "other-secret"
"#;

#[tokio::test]
async fn each_failure_has_its_status_and_says_what_is_wrong() {
    let herald = Herald::with("", OTHER_APPS);
    let event = Request::event;
    let of_app = |id: &str| event().with(|request| request.path = format!("/apps/{id}/events"));
    for (request, status, text) in [
        (of_app("no-such-app"), 404, "no app has the id \"no-such-app\""),
        (of_app("app%2Did2"), 404, "app-id2"),
        (of_app("off"), 403, "the app \"off\" is disabled"),
        (event().without("auth_key"), 401, "`auth_key` is missing"),
        (event().without("auth_timestamp"), 401, "`auth_timestamp` is missing"),
        (event().without("auth_version"), 401, "`auth_version` is missing"),
        (event().with(|request| request.signature = Some("none".into())), 401, "`auth_signature` is missing"),
        (event().without("body_md5"), 401, "`body_md5` is missing"),
        (event().param("auth_timestamp", "soon"), 401, "`auth_timestamp` must be Unix seconds"),
        (event().param("auth_timestamp", "-1"), 401, "`auth_timestamp` must be Unix seconds"),
        (event().param("auth_timestamp", ""), 401, "`auth_timestamp` must be Unix seconds"),
        (event().param("auth_version", "2.0"), 401, "`auth_version` must be 1.0"),
        (event().param("auth_key", "nobody"), 401, "`auth_key` is none of this app's keys"),
        (event().param("auth_key", "other-key"), 401, "`auth_key` is none of this app's keys"),
        (event().param("auth_timestamp", &(now() - 605).to_string()), 401, "s are allowed"),
        (event().param("auth_timestamp", &(now() + 620).to_string()), 401, "s are allowed"),
        (event().with(|request| request.secret = "wrong".into()), 401, "wrong signature"),
        (event().with(|request| request.signature = Some("0".repeat(64))), 401, "wrong signature"),
        (event().with(|request| request.signature = Some(String::new())), 401, "wrong signature"),
        (event().param("auth_key", "second-key"), 401, "wrong signature"),
        (event().param("body_md5", "ec365a775a4cd0599faeb73354201b6f"), 401, "`body_md5` is not"),
        (event().with(|request| request.body[3] ^= 1), 401, "`body_md5` is not"),
        (event().with(|request| request.body.clear()), 401, "`body_md5` is not"),
    ] {
        herald.send(&request).await.refused(status, text);
    }
}

#[tokio::test]
async fn the_first_failure_in_the_order_of_the_checks_answers() {
    let herald = Herald::with("", OTHER_APPS);
    // Everything is wrong; one thing after the other is made right.
    let mut request = Request::raw("/events", "no JSON").with(|request| {
        request.path = "/apps/none/events".into();
        request.query = vec![("auth_version".into(), "0".into())];
        request.signature = Some("wrong".into());
    });
    let mut expect = async |status, text, change: fn(&mut Request)| {
        herald.send(&request).await.refused(status, text);
        change(&mut request);
    };
    let set = |request: &mut Request, name: &str, value: &str| *request = request.clone().param(name, value);
    expect(404, "no app", |request| request.path = "/apps/off/events".into()).await;
    expect(403, "disabled", |request| request.path = "/apps/app-id/events".into()).await;
    expect(401, "`auth_key` is missing", |request| {
        request.query.push(("auth_key".into(), "nobody".into()));
        request.query.push(("auth_timestamp".into(), "0".into()));
        request.query.push(("body_md5".into(), "0".into()));
    })
    .await;
    expect(401, "must be 1.0", |request| request.query[0].1 = "1.0".into()).await;
    expect(401, "none of this app's keys", |request| request.query[1].1 = "app-key".into()).await;
    expect(401, "away from the server's time", |request| request.query[2].1 = now().to_string()).await;
    expect(401, "wrong signature", |request| request.signature = None).await;
    expect(401, "`body_md5`", |_| {}).await;
    set(&mut request, "body_md5", &herald_protocol::signature::body_md5(b"no JSON"));
    herald.send(&request).await.refused(400, "not a JSON object");
}

#[tokio::test]
async fn an_old_request_is_told_the_servers_time_and_the_difference() {
    let herald = Herald::start();
    let text = herald.send(&Request::event().param("auth_timestamp", "1353088179")).await.error(401);
    let numbers: Vec<u64> = text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect();
    let [difference, time, 600] = numbers[..] else { panic!("{text}") };
    assert_eq!(time - difference, 1_353_088_179);
    assert!(now().abs_diff(time) < 20, "{text}");
    for timestamp in [now() - 599, now() + 599] {
        let response = herald.send(&Request::event().param("auth_timestamp", &timestamp.to_string())).await;
        assert_eq!(response.status, 200, "{}", response.body);
    }
}

#[tokio::test]
async fn a_wrong_signature_is_told_what_had_to_be_signed_and_no_secret() {
    let herald = Herald::start();
    let time = now().to_string();
    let request = Request::get("/channels").param("Info", "").param("auth_timestamp", &time);
    let request = request.with(|request| request.secret = "wrong".into());
    let text = herald.send(&request).await.error(401);
    let query = format!("auth_key=app-key&auth_timestamp={time}&auth_version=1.0&info=");
    assert!(text.contains(&format!("\"GET\\n/apps/app-id/channels\\n{query}\"")), "{text}");
    assert!(!text.contains("app-secret"), "{text}");
}

#[tokio::test]
async fn both_key_pairs_of_an_app_are_valid() {
    let herald = Herald::with("", OTHER_APPS);
    let second = Request::event().param("auth_key", "second-key").with(|request| {
        request.secret = "second-secret".into();
    });
    for request in [Request::event(), second] {
        assert_eq!(herald.send(&request).await.json(), json!({}));
    }
}

#[tokio::test]
async fn the_query_is_signed_whatever_its_order_case_and_escapes() {
    let herald = Herald::start();
    let shuffled = Request::get("/channels").param("info", "").param("filter_by_prefix", "a=b,c;@");
    let reversed = shuffled.clone().with(|request| request.query.reverse());
    let upper = Request::get("/channels").with(|request| {
        request.query.iter_mut().for_each(|(name, _)| *name = name.to_ascii_uppercase());
    });
    let unknown = Request::get("/channels").param("täglich & mehr", "ein Wert: 100 % + ü = ✓");
    let array = Request::get("/channels").param("list[]", "1").param("list[]", "2");
    let indexed = Request::get("/channels").param("list[0]", "1").param("list[1]", "2");
    for request in [shuffled, reversed, upper, unknown, array, indexed] {
        assert_eq!(herald.send(&request).await.json(), json!({ "channels": {} }), "{}", request.head(""));
    }
}

#[tokio::test]
async fn the_path_is_signed_as_it_came_over_the_wire() {
    let herald = Herald::start();
    let escaped = Request::get("/channels/presence%2Droom");
    assert_eq!(herald.send(&escaped).await.json(), json!({ "occupied": false }));
    let mut wire = herald.wire().await;
    let decoded = Request::get("/channels/presence-room").head("").replace("presence-room", "presence%2Droom");
    wire.write(decoded.as_bytes()).await;
    wire.response().await.refused(401, "/channels/presence%2Droom");
}

#[tokio::test]
async fn a_path_prefix_is_part_of_what_is_signed() {
    let herald = Herald::with("path_prefix = \"/realtime\"", "");
    let prefixed = |path: &str| Request::event().with(|request| request.path = path.into());
    assert_eq!(herald.send(&prefixed("/realtime/apps/app-id/events")).await.json(), json!({}));
    herald.send(&prefixed("/apps/app-id/events")).await.refused(404, "nothing at this address");
}

#[tokio::test]
async fn apps_do_not_see_each_other() {
    let herald = Herald::with("", OTHER_APPS);
    let _subscriber = herald.subscriber(&["theirs"]).await;
    let other = |path: &str| {
        Request::get(path).param("auth_key", "other-key").with(|request| {
            request.path = request.path.replace("app-id", "other");
            request.secret = "other-secret".into();
        })
    };
    assert_eq!(herald.send(&other("/channels")).await.json(), json!({ "channels": {} }));
    assert_eq!(herald.send(&other("/connections")).await.json(), json!({ "connections": 0 }));
    assert_eq!(herald.get("/connections", &[]).await.json(), json!({ "connections": 1 }));
}
