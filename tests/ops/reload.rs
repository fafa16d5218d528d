//! SIGHUP: what is configured now is in effect, for new clients and those who are connected, or it is said what that waits for.

use std::time::Duration;

use serde_json::json;

use crate::doctor::{Redis, stand_in};
use crate::process::{Running, Setup, http};
use crate::support::{App, DEADLINE};
use crate::user::{key_id, pem, token};

const SHOP: &str = "[[apps]]\nid = \"shop\"\nkey = \"shop-key\"\nsecret = \"shop-secret\"\n";
const NEWS: &str = "[[apps]]\nid = \"news\"\nkey = \"news-key\"\nsecret = \"news-secret\"\n";

fn shop() -> App {
    App::new("shop", "shop-key", "shop-secret")
}

fn news() -> App {
    App::new("news", "news-key", "news-secret")
}

/// A client of the app gets what its backend triggers.
async fn serves(herald: &Running, app: &App) {
    let mut client = herald.connect_to(app).await;
    client.subscribe("private-room").await;
    herald.api_of(app).trigger("private-room", "e", "data").await;
    assert_eq!(client.expect("e").await.data(), "data");
}

/// Writes the file, asks for it to be read, and waits until the log says that it was, in a line of its own; returns that line.
async fn reload(herald: &Running, file: &str) -> String {
    std::fs::write(herald.folder().join("herald.toml"), file).unwrap();
    read_again(herald).await
}

async fn read_again(herald: &Running) -> String {
    let told = || -> Vec<String> {
        let is_end = |line: &&str| line.contains("was read again") || line.contains("nothing is changed");
        herald.stderr.read().lines().filter(|line| line.contains("SIGHUP")).filter(is_end).map(str::to_owned).collect()
    };
    let before = told().len();
    herald.signal("HUP");
    let again = async {
        while told().len() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, again).await.expect("it is read again in time");
    told().pop().unwrap()
}

/// The status of an auth endpoint's answer to the user.
async fn authorizes(herald: &Running, token: &str, channel: &str) -> u16 {
    let asked = http().build().unwrap().post(format!("{}/pusher/auth", herald.url())).bearer_auth(token);
    let asked = asked.header("content-type", "application/x-www-form-urlencoded");
    asked.body(format!("socket_id=1.1&channel_name={channel}")).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_new_app_is_served_at_once_and_those_of_one_that_is_gone_are_sent_away_for_good() {
    let herald = Setup::new().config(SHOP).start().await;
    let (mut left, mut member) = (herald.connect_to(&shop()).await, herald.connect_to(&shop()).await);
    left.subscribe("room").await;
    member.join("presence-room", "ann").await;
    let told = reload(&herald, &format!("{SHOP}{NEWS}")).await;
    assert!(told.contains("app \\\"news\\\" is new") && !told.contains("secret"), "{told}");
    serves(&herald, &news()).await;
    serves(&herald, &shop()).await;

    let told = reload(&herald, NEWS).await;
    assert!(told.contains("app \\\"shop\\\" is gone"), "{told}");
    for client in [&mut left, &mut member] {
        client.expect_close(4001).await;
    }
    herald.open("/app/shop-key?protocol=7", "").await.expect_refusal(4001).await;
    assert_eq!(herald.api_of(&shop()).get("/channels", &[]).await.status, 404);
    serves(&herald, &news()).await;

    // Whoever comes back finds nobody of before.
    reload(&herald, &format!("{SHOP}{NEWS}")).await;
    let mut back = herald.connect_to(&shop()).await;
    let members = back.join("presence-room", "bob").await.json();
    assert_eq!(members["presence"]["ids"], json!(["bob"]));
    serves(&herald, &shop()).await;

    reload(&herald, &format!("{SHOP}enabled = false\n{NEWS}")).await;
    back.expect_close(4003).await;
    herald.open("/app/shop-key?protocol=7", "").await.expect_refusal(4003).await;
    serves(&herald, &news()).await;
}

#[tokio::test]
async fn secrets_limits_and_flags_hold_for_who_is_connected() {
    let herald = Setup::new().config(SHOP).start().await;
    let mut client = herald.connect_to(&shop()).await;
    client.subscribe("private-a").await;
    let changed = SHOP.replace("\"shop-secret\"", "\"new-secret\"");
    let told = reload(&herald, &format!("{changed}client_events = false\n[apps.limits]\nevent_data = 5\n")).await;
    for option in ["apps.secret, apps", "apps.client_events, apps", "apps.limits.event_data, apps"] {
        assert!(told.contains(option), "{option}: {told}");
    }
    assert!(!told.contains("new-secret"), "{told}");

    // Channels of before are kept; new ones need the new secret.
    client.send(client.subscription("private-b", None)).await;
    client.expect_subscription_error("private-b").await;
    client.app = App::new("shop", "shop-key", "new-secret");
    client.subscribe("private-b").await;
    client.send(json!({ "event": "client-e", "channel": "private-a", "data": {} })).await;
    client.expect_error(4301).await;
    let trigger = |data: &str| json!({ "name": "e", "channel": "private-a", "data": data });
    assert_eq!(herald.api_of(&shop()).events(&trigger("data")).await.status, 401);
    let backend = herald.api_of(&client.app);
    assert_eq!(backend.events(&trigger("too long")).await.status, 413);
    backend.trigger("private-a", "e", "data").await;
    client.expect("e").await;
}

#[tokio::test]
async fn a_configuration_with_problems_changes_nothing_and_all_of_them_are_told() {
    let herald = Setup::new().config(SHOP).file(".env", "").args(["--env-file", ".env"]).start().await;
    let mut client = herald.connect_to(&shop()).await;
    client.subscribe("private-a").await;
    std::fs::write(herald.folder().join(".env"), "HERALD_APP_KEY=k\nhush hush\n").unwrap();
    let file = format!("{}[serv]\n[log]\nlevel = \"loud\"\n", NEWS.replace("\"news-secret\"", "19191919"));
    let told = reload(&herald, &file).await;
    for part in ["nothing is changed", "ERROR", "line 2", "apps.secret", "serv", "log.level", "HERALD_APP_ID"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("hush") && !told.contains("19191919"), "{told}");
    serves(&herald, &shop()).await;
    herald.api_of(&shop()).trigger("private-a", "e", "data").await;
    client.expect("e").await;
    herald.open("/app/news-key?protocol=7", "").await.expect_refusal(4001).await;
}

#[tokio::test]
async fn env_files_and_files_of_variables_are_read_again() {
    let setup = Setup::new().file(".env", "PUSHER_URL=http://k:old@h/apps/1\n").file("key", "an-api-key-of-before");
    let setup = setup.env("HERALD_API_KEY_FILE", "key").args(["--env-file", ".env"]).app(App::new("1", "k", "old"));
    let herald = setup.start().await;
    let asks = async |key: &str| {
        let url = format!("{}/v1/notifications/x", herald.url());
        http().build().unwrap().get(url).bearer_auth(key).send().await.unwrap().status().as_u16()
    };
    assert_eq!(asks("an-api-key-of-before").await, 404);
    std::fs::write(herald.folder().join("key"), "the-api-key-of-now\n").unwrap();
    std::fs::write(herald.folder().join(".env"), "PUSHER_URL=http://k:new@h/apps/1\n").unwrap();
    let told = read_again(&herald).await;
    assert!(told.contains("server.api_keys") && told.contains("apps.secret"), "{told}");
    assert_eq!((asks("an-api-key-of-before").await, asks("the-api-key-of-now").await), (401, 404));
    serves(&herald, &App::new("1", "k", "new")).await;
    assert!(read_again(&herald).await.contains("\"nothing\""));
}

#[tokio::test]
async fn who_users_are_and_what_they_may_is_changed() {
    let file = |keys: &[&str], more: &str| {
        let keys: Vec<String> = keys.iter().map(|key| pem(key)).collect();
        format!("[auth]\njwt_key = '''{}'''\n{more}\n{SHOP}", keys.join("\n"))
    };
    let herald = Setup::new().config(&file(&["a"], "")).start().await;
    let token = token("user_ann", &json!({}));
    assert_eq!(authorizes(&herald, &token, "private-team").await, 403);
    reload(&herald, &file(&["a"], "[[auth.rules]]\nchannels = [\"team\"]\n")).await;
    assert_eq!(authorizes(&herald, &token, "private-team").await, 200);
    // Signed with the key of before, which is valid as long as it stands there.
    reload(&herald, &file(&["b", "a"], "default = \"allow\"")).await;
    assert_eq!(authorizes(&herald, &token, "private-team").await, 200);
    let told = reload(&herald, &file(&["b"], "default = \"allow\"")).await;
    assert!(told.contains("auth.jwt_key") && !told.contains("BEGIN") && !told.contains(&key_id()), "{told}");
    assert_eq!(authorizes(&herald, &token, "private-team").await, 401);

    let told = reload(&herald, SHOP).await;
    assert!(told.contains("\"nothing\""), "{told}");
    herald.logged(&["waits for a restart", "auth.jwt_key", "WARN"]).await;
    assert_eq!(authorizes(&herald, &token, "private-team").await, 401, "there is a provider until the restart");
}

#[tokio::test]
async fn the_log_tells_more_at_once_and_what_waits_for_a_restart_is_named() {
    let herald = Setup::new().config(SHOP).start().await;
    let file = format!(
        "[log]\nlevel = \"debug\"\n[database]\nmax_connections = 7\n{SHOP}[[apps.webhooks]]\nurl = \"http://h\"\n"
    );
    let told = reload(&herald, &file).await;
    assert!(told.contains("log.level") && !told.contains("database"), "{told}");
    let waits = herald.logged(&["waits for a restart", "WARN"]).await;
    let options = waits["options"].as_str().unwrap();
    assert!(options.contains("database.max_connections") && options.contains("apps.webhooks.url"), "{options}");
    herald.connect_to(&shop()).await.close().await;
    herald.logged(&["DEBUG", "connection accepted"]).await;

    // As long as it waits it is told.
    let told = reload(&herald, &file.replace("debug", "info")).await;
    assert!(told.contains("log.level"), "{told}");
    assert_eq!(herald.stderr.read().matches("waits for a restart").count(), 2);
}

#[tokio::test]
async fn webhooks_of_a_new_app_go_out_and_are_signed_with_the_secret_of_now() {
    let (seen, mut heard) = tokio::sync::mpsc::channel(100);
    let told = move |head: &str| {
        seen.try_send(head.to_ascii_lowercase()).unwrap();
        (200, String::new())
    };
    let hooks = format!("[[apps.webhooks]]\nurl = \"{}/\"\n", stand_in(told, "", None).await);
    let herald = Setup::new().config(SHOP).start().await;
    reload(&herald, &format!("{SHOP}{NEWS}{hooks}")).await;
    let mut client = herald.connect_to(&news()).await;
    client.subscribe("room").await;
    assert!(heard.recv().await.unwrap().contains("x-pusher-key: news-key"));
    let changed = NEWS.replace("\"news-key\"", "\"new-key\"").replace("\"news-secret\"", "\"new-secret\"");
    reload(&herald, &format!("{SHOP}{changed}{hooks}")).await;
    client.subscribe("other").await;
    assert!(heard.recv().await.unwrap().contains("x-pusher-key: new-key"));
}

#[tokio::test]
async fn a_new_app_is_one_of_the_cluster_as_soon_as_its_nodes_know_it() {
    let redis = Redis::start(&[]).await;
    let node = || Setup::new().config(SHOP).env("REDIS_URL", &format!("redis://127.0.0.1:{}", redis.1)).start();
    let (one, two) = (node().await, node().await);
    for node in [&one, &two] {
        reload(node, &format!("{SHOP}{NEWS}")).await;
    }
    let (mut ann, mut bob) = (one.connect_to(&news()).await, two.connect_to(&news()).await);
    ann.join("presence-room", "ann").await;
    bob.join("presence-room", "bob").await;
    assert_eq!(ann.expect("pusher_internal:member_added").await.json()["user_id"], "bob");
    two.api_of(&news()).trigger("presence-room", "e", "data").await;
    ann.expect("e").await;
    bob.expect("e").await;
    reload(&two, SHOP).await;
    bob.expect_close(4001).await;
    assert_eq!(ann.expect("pusher_internal:member_removed").await.json()["user_id"], "bob");
}
