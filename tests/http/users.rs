//! Connections and the users behind them (4.2, case I3).

use serde_json::json;

use crate::support::{Herald, Request};

#[tokio::test]
async fn connections_are_counted() {
    let herald = Herald::start();
    assert_eq!(herald.get("/connections", &[]).await.json(), json!({ "connections": 0 }));
    let _clients = [herald.client().await, herald.client().await];
    assert_eq!(herald.get("/connections", &[]).await.json(), json!({ "connections": 2 }));
}

#[tokio::test]
async fn a_terminated_user_is_gone_everywhere_and_nobody_else_is() {
    let herald = Herald::start();
    let [mut ann, mut tab, mut bob] = [herald.client().await, herald.client().await, herald.client().await];
    for (client, user) in [(&mut ann, "a/n n@ü"), (&mut tab, "a/n n@ü"), (&mut bob, "bob")] {
        client.sign_in(user).await;
    }
    let path = "/users/a%2Fn%20n%40%C3%BC/terminate_connections";
    assert_eq!(herald.post(path, &json!({})).await.json(), json!({}));
    for client in [&mut ann, &mut tab] {
        assert_eq!(client.expect("pusher:error").await["data"]["code"], 4009);
        assert_eq!(client.close_code().await, 4009);
    }
    bob.subscribe("c", None).await;
    herald.client().await.sign_in("a/n n@ü").await;
}

#[tokio::test]
async fn the_body_of_a_termination_is_empty_or_an_object() {
    let herald = Herald::start();
    let terminate = |user: &str, body: &str| Request::raw(&format!("/users/{user}/terminate_connections"), body);
    for body in ["", "{}", "{\"any\":1}"] {
        assert_eq!(herald.send(&terminate("nobody", body)).await.json(), json!({}));
    }
    for body in ["[]", "no JSON", "\"\""] {
        herald.send(&terminate("nobody", body)).await.refused(400, "not a JSON object");
    }
    let long = "x".repeat(129);
    for (user, text) in [(long.as_str(), "1 to 128 characters"), ("a%00", "control characters"), ("%ff", "not UTF-8")] {
        herald.send(&terminate(user, "{}")).await.refused(400, text);
    }
}

#[tokio::test]
async fn where_the_path_names_no_app_the_key_does() {
    let herald = Herald::start();
    let terminate = |path: &str| {
        let request = Request::post("", &json!({}));
        request.with(|request| request.path = path.to_owned())
    };
    let request = terminate("/users/ann/terminate_connections");
    let mut ann = herald.client().await;
    ann.sign_in("ann").await;
    assert_eq!(herald.send(&request).await.json(), json!({}));
    assert_eq!(ann.close_code().await, 4009);
    herald.send(&request.clone().without("auth_key")).await.refused(401, "`auth_key` is missing");
    herald.send(&request.clone().param("auth_key", "nobody")).await.refused(401, "`auth_key`");
    herald.send(&request.with(|request| request.secret = "wrong".into())).await.refused(401, "wrong signature");
    herald.send(&terminate("/users/ann")).await.refused(404, "nothing at this address");
}
