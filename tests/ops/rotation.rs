//! Changing what is secret without a gap: for a while the old and the new one count.

use serde_json::json;

use crate::process::{Running, Setup, http};
use crate::support::App;
use crate::user::{pem, token};

/// A backend and a client with this secret are served; whether both are.
async fn is_served(herald: &Running, secret: &str) -> bool {
    let app = App::new("shop", "key", secret);
    let event = json!({ "name": "e", "channel": "private-a", "data": "d" });
    let backend = herald.api_of(&app).events(&event).await.status == 200;
    let mut client = herald.connect_to(&app).await;
    client.send(client.subscription("private-a", None)).await;
    let client = client.next().await.event == "pusher_internal:subscription_succeeded";
    assert_eq!(backend, client, "{secret}");
    client
}

#[tokio::test]
async fn a_key_has_two_secrets_in_the_file_and_in_the_environment() {
    let file = "[[apps]]\nid = \"shop\"\nkey = \"key\"\nsecret = \"old\"\nother_secret = \"new\"\n";
    let in_file = Setup::new().config(file);
    let named = Setup::new().env("PUSHER_APP_ID", "shop").env("PUSHER_KEY", "key").env("PUSHER_SECRET", "old");
    for setup in [in_file, named.env("HERALD_APP_OTHER_SECRET", "new")] {
        let herald = setup.start().await;
        for (secret, expected) in [("old", true), ("new", true), ("neither", false)] {
            assert_eq!(is_served(&herald, secret).await, expected, "{secret}");
        }
    }
    let checked = Setup::new().config(file).args(["check"]).run().await;
    assert!(checked.stdout.contains("other_secret = \"***\"") && !checked.stdout.contains("\"new\""), "{checked:?}");
}

#[tokio::test]
async fn tokens_of_either_of_two_keys_count() {
    let token = token("user_ann", &json!({}));
    for (keys, status) in [
        (format!("{}\n{}", pem("b").trim(), pem("a")), 200),
        (format!("{},{}", pem("a").trim(), pem("b").trim()), 200),
        (format!("\"{}{}\"", pem("b"), pem("a")).replace('\n', "\\n"), 200),
        (pem("b"), 401),
    ] {
        let herald = Setup::new().env("CLERK_JWT_KEY", &keys).start().await;
        let asked = http().build().unwrap().post(format!("{}/pusher/auth", herald.url())).bearer_auth(&token);
        let asked = asked.header("content-type", "application/x-www-form-urlencoded");
        let answer = asked.body("socket_id=1.1&channel_name=private-user-user_ann").send().await.unwrap();
        assert_eq!(answer.status(), status, "{keys}");
    }
    let cut = format!("{}-----BEGIN PUBLIC KEY-----\nMIIB", pem("a"));
    let said = Setup::new().env("CLERK_JWT_KEY", &cut).refused().await;
    assert!(
        said.contains("auth.jwt_key (from CLERK_JWT_KEY): the value is not allowed") && !said.contains("MIIB"),
        "{said}"
    );
}
