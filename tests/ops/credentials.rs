//! What is printed of credentials: the newcomer's all, configured ones never.

use std::process::{Command, Output};

use serde_json::json;

use crate::process::{Running, Setup};
use crate::support::App;

#[tokio::test]
async fn a_newcomer_is_told_what_comes_next_and_it_works() {
    let herald = Setup::new().start().await;
    herald.stdout.wait_for("config/herald.toml").await;
    let said = herald.stdout.read();
    let port = herald.address().port();
    for part in ["app-id", "app-key", "app-secret", "new Pusher('app-key'", "enabledTransports: ['ws']"] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    assert!(said.contains(&format!("wsHost: '127.0.0.1', wsPort: {port}, forceTLS: false")), "{said}");

    let mut client = herald.connect().await;
    client.subscribe("my-channel").await;
    let output = by_a_shell(&herald, "herald trigger ").await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(client.expect("my-event").await.data(), r#"{"hello":"world"}"#);
}

/// Runs a line of the introduction, as somebody does who copies it.
async fn by_a_shell(herald: &Running, part: &str) -> Output {
    let line = herald.stdout.line_with(part).expect("a line to copy");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &line]).env_clear().current_dir(herald.folder());
    tokio::task::spawn_blocking(move || shell.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_introduction_holds_for_any_address() {
    let prefixed = Setup::new().env("HERALD_PATH_PREFIX", "/realtime").start().await;
    prefixed.stdout.wait_for("config/herald.toml").await;
    assert!(prefixed.stdout.read().contains("wsPath: '/realtime'"), "{}", prefixed.stdout.read());
    let output = by_a_shell(&prefixed, "herald trigger ").await;
    assert!(output.status.success(), "{output:?}");

    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let setup = Setup::new().file("cert.pem", &made.cert.pem()).file("key.pem", &made.signing_key.serialize_pem());
    let encrypted = setup.env("HERALD_TLS_CERT", "cert.pem").env("HERALD_TLS_KEY", "key.pem").start().await;
    encrypted.stdout.wait_for("config/herald.toml").await;
    let said = encrypted.stdout.read();
    let port = encrypted.address().port();
    assert!(said.contains(&format!("wssPort: {port}, forceTLS: true, enabledTransports: ['wss']")), "{said}");
}

#[tokio::test]
async fn who_has_configured_an_app_is_spared_the_introduction() {
    let setup = Setup::new().env("HERALD_APP_ID", "a").env("HERALD_APP_KEY", "k").env("HERALD_APP_SECRET", "s");
    let herald = setup.start().await;
    herald.metrics_url().await;
    herald.signal("TERM");
    assert!(!herald.finished().await.stdout.contains("pusher-js"));
}

#[tokio::test]
async fn configured_credentials_are_never_printed() {
    const SECRETS: [&str; 5] = ["first-Gx81hq", "second-Gx81hq", "third-Gx81hq", "password-Gx81hq", "token-Gx81hq"];
    let [first, second, third, password, token] = SECRETS;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = format!(
        "[[apps]]\nid = \"shop\"\nkey = \"shop-key\"\nsecret = \"{first}\"\nkeys = [{{ key = \"new-key\", secret = \"{second}\" }}]\n\
         [[apps.webhooks]]\nurl = \"http://herald:{password}@{dead}/hooks?token={token}\"\nheaders = {{ Authorization = \"{token}\" }}\n"
    );
    let setup = || Setup::new().config(&file).env("HERALD_LOG_LEVEL", "trace").env("HERALD_SHUTDOWN_DELAY", "0s");
    let setup = || setup().env("PUSHER_APP_ID", "env").env("PUSHER_KEY", "env-key").env("PUSHER_SECRET", third);
    let checked = setup().args(["check"]).run().await;
    let mut printed = vec![checked.stdout, checked.stderr];

    let herald = setup().start().await;
    let apps =
        [App::new("shop", "shop-key", first), App::new("shop", "new-key", second), App::new("env", "env-key", third)];
    for app in &apps {
        let mut client = herald.connect_to(app).await;
        client.sign_in("ann").await;
        client.subscribe("private-room").await;
        client.join("presence-room", "ann").await;
        client.subscribe("cache-room").await;
        client.expect("pusher:cache_miss").await;
        herald.api_of(app).trigger("private-room", "e", "data").await;
        client.expect("e").await;
        let wrong = App::new(&app.id, &app.key, "wrong");
        let answer = herald.api_of(&wrong).events(&json!({ "name": "e", "channel": "c", "data": "" })).await;
        assert_eq!(answer.status, 401);
        printed.push(answer.text);
        client.app = wrong;
        client.send(client.subscription("private-other", None)).await;
        printed.push(client.expect_subscription_error("private-other").await.2);
        client.ask_to_sign_in(&json!({ "id": "ann" })).await;
        printed.push(client.expect_error(4009).await.text);
    }
    herald.logged(&["webhook", "again"]).await;
    printed.push(crate::process::get(&format!("{}/metrics", herald.metrics_url().await)).await.1);
    let url = herald.url();
    for args in [
        &["trigger", "c", "e", "d", "--url", &url, "--app", "shop"][..],
        &["trigger", "c", "e", "d", "--url", "http://127.0.0.1:1"],
        &["trigger", "bad channel", "e", "d", "--url", &url],
    ] {
        let output = herald.command(args.iter().copied()).output().unwrap();
        printed.extend([output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()));
    }
    herald.signal("TERM");
    let finished = herald.finished().await;
    assert!(finished.status.success(), "{finished:?}");
    printed.extend([finished.stdout, finished.stderr]);
    for secret in SECRETS {
        let found = printed.iter().flat_map(|text| text.lines()).find(|line| line.contains(secret));
        assert_eq!(found, None, "{secret} is printed");
    }
}
