//! The command line: `check`, `trigger` and `listen` against a server, and what it says about itself.

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::process::{Running, Setup, Text};
use crate::support::App;

const TWO_APPS: &str = "[[apps]]\nid = \"shop\"\nkey = \"shop-key\"\nsecret = \"shop-secret\"\n\
                        [[apps]]\nid = \"news\"\nkey = \"news-key\"\nsecret = \"news-secret\"\n";

/// Runs a command to its end.
async fn run(mut command: Command) -> Output {
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().unwrap());
    tokio::time::timeout(crate::support::DEADLINE, output).await.expect("the command ends in time").unwrap()
}

/// What a command said on stderr; it must have failed, with nothing on stdout.
async fn fails(command: Command) -> String {
    let output = run(command).await;
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// `herald trigger`, which must succeed.
async fn trigger(herald: &Running, channel: &str, event: &str, data: &str) {
    let url = herald.url();
    let output = run(herald.command(["trigger", channel, event, data, "--url", &url])).await;
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains(channel));
}

/// `herald listen` that has subscribed.
struct Listening {
    child: std::process::Child,
    stdout: Text,
    stderr: Text,
}

impl Listening {
    async fn start(herald: &Running, args: &[&str]) -> Self {
        let mut command = herald.command(["listen"]);
        command.args(args).args(["--url", &herald.url()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdout, stderr) = (Text::of(child.stdout.take().unwrap()), Text::of(child.stderr.take().unwrap()));
        let listening = Self { child, stdout, stderr };
        listening.stderr.wait_for("subscribed to ").await;
        listening
    }

    async fn ended(mut self) -> (bool, String) {
        self.stdout.at_end().await;
        self.stderr.at_end().await;
        (self.child.wait().unwrap().success(), self.stderr.read())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[tokio::test]
async fn it_says_what_it_is_and_what_it_can() {
    let version = Setup::new().args(["--version"]).run().await;
    assert!(version.status.success());
    assert_eq!(version.stdout, format!("herald {}\n", env!("CARGO_PKG_VERSION")));
    let help = Setup::new().args(["--help"]).run().await;
    assert!(help.status.success());
    for part in ["check", "trigger", "listen", "--config", "--version", "docs/configuration.md"] {
        assert!(help.stdout.contains(part), "{part}:\n{}", help.stdout);
    }
    for (command, parts) in [
        ("trigger", &["<CHANNEL>", "<EVENT>", "<DATA>", "--url", "--app"][..]),
        ("listen", &["<CHANNEL>", "--json", "--url", "--app"]),
        ("check", &["--config"]),
        ("serve", &["--config"]),
    ] {
        let help = Setup::new().args([command, "--help"]).run().await;
        assert!(help.status.success());
        assert!(parts.iter().all(|part| help.stdout.contains(part)), "{command}:\n{}", help.stdout);
    }
    let said = Setup::new().args(["lisen", "x"]).refused().await;
    assert!(said.contains("lisen") && said.contains("listen"), "{said}");
    let said = Setup::new().args(["trigger", "channel", "event"]).refused().await;
    assert!(said.contains("<DATA>"), "{said}");
}

#[tokio::test]
async fn serve_is_what_happens_without_a_command() {
    Setup::new().args(["serve"]).start().await.connect().await;
}

#[tokio::test]
async fn check_prints_what_is_in_effect_with_secrets_masked() {
    let file = format!(
        "[server]\npath_prefix = \"/realtime\"\n[connection]\nactivity_timeout = \"90s\"\n{TWO_APPS}\
         keys = [{{ key = \"next-key\", secret = \"next-secret\" }}]\n\
         [[apps.webhooks]]\nurl = \"https://user-token@example.com/hooks\"\nheaders = {{ X-Token = \"header-secret\" }}\n"
    );
    let setup = Setup::new().config(&file).env("HERALD_MAX_CONNECTIONS", "77").env("HERALD_LISTNE", "x");
    let checked = setup.env("SOKETI_PATH_PREFIX", "/theirs").args(["check"]).run().await;
    assert!(checked.status.success(), "{checked:?}");
    let effective: toml::Table = checked.stdout.parse().unwrap();
    assert_eq!(effective["server"]["max_connections"].as_integer(), Some(77));
    assert_eq!(effective["server"]["path_prefix"].as_str(), Some("/theirs"), "the environment is over the file");
    assert_eq!(effective["connection"]["activity_timeout"].as_str(), Some("1m30s"));
    assert_eq!(effective["connection"]["pong_timeout"].as_str(), Some("15s"), "defaults are in effect, too");
    let [shop, news] = [0, 1].map(|position| &effective["apps"][position]);
    assert_eq!((shop["key"].as_str(), shop["secret"].as_str()), (Some("shop-key"), Some("***")));
    assert_eq!(news["keys"][0]["key"].as_str(), Some("next-key"));
    assert_eq!(news["webhooks"][0]["url"].as_str(), Some("https://***@example.com/hooks"));
    for hidden in ["shop-secret", "news-secret", "next-secret", "header-secret", "user-token"] {
        assert!(!format!("{checked:?}").contains(hidden), "{hidden}");
    }
    for note in ["HERALD_LISTNE is no option of Herald", "SOKETI_PATH_PREFIX is used"] {
        assert!(checked.stderr.contains(note), "{note}: {}", checked.stderr);
    }
}

#[tokio::test]
async fn what_check_prints_is_a_configuration_that_means_the_same() {
    let first = Setup::new().config(TWO_APPS).args(["check"]).run().await;
    let printed = first.stdout.replacen("***", "one", 1).replacen("***", "two", 1);
    let second = Setup::new().config(&printed).args(["check"]).run().await;
    assert!(second.status.success(), "{second:?}");
    assert_eq!(second.stdout, first.stdout);
}

#[tokio::test]
async fn check_fails_where_the_server_would() {
    for file in ["[server]\nlisten = 1\n", "[serv]\n", "[[apps]]\n", "no TOML", "[tls]\ncert = \"only.pem\"\n"] {
        let checked = Setup::new().without("HERALD_LISTEN").config(file).args(["check"]).refused().await;
        let served = Setup::new().without("HERALD_LISTEN").config(file).refused().await;
        assert_eq!(checked, served);
    }
}

#[tokio::test]
async fn what_is_triggered_appears_where_somebody_listens() {
    let herald = Setup::new().start().await;
    for channel in ["my-channel", "private-room", "presence-room", "cache-news", "private-cache-news"] {
        let plain = Listening::start(&herald, &[channel]).await;
        let json = Listening::start(&herald, &[channel, "--json"]).await;
        trigger(&herald, channel, "my-event", "{\"hello\": \"world\"}").await;
        trigger(&herald, channel, "second", "any text").await;
        assert_eq!(
            plain.stdout.wait_for(" my-event ").await,
            format!("{channel} my-event {{\"hello\": \"world\"}}"),
            "as it was sent"
        );
        assert_eq!(plain.stdout.wait_for(" second ").await, format!("{channel} second any text"));
        json.stdout.wait_for("\"second\"").await;
        let lines: Vec<Value> =
            json.stdout.read().lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
        let events: Vec<&Value> =
            lines.iter().filter(|line| !line["event"].as_str().unwrap().starts_with("pusher")).collect();
        assert_eq!(
            events,
            [
                &json!({ "channel": channel, "event": "my-event", "data": "{\"hello\": \"world\"}" }),
                &json!({ "channel": channel, "event": "second", "data": "any text" }),
            ]
        );
    }
}

#[tokio::test]
async fn who_listens_to_a_presence_channel_is_a_member_and_sees_others_come() {
    let herald = Setup::new().start().await;
    let mut ann = herald.connect().await;
    ann.join("presence-room", "ann").await;
    let listening = Listening::start(&herald, &["presence-room", "--json"]).await;
    let joined = ann.expect("pusher_internal:member_added").await.json();
    assert!(joined["user_id"].as_str().unwrap().starts_with("herald-listen-"), "{joined}");
    let mut bob = herald.connect().await;
    bob.join("presence-room", "bob").await;
    let line = listening.stdout.wait_for("member_added").await;
    assert!(serde_json::from_str::<Value>(&line).unwrap()["data"].as_str().unwrap().contains("bob"), "{line}");
    ann.expect("pusher_internal:member_added").await;
    drop(listening);
    assert_eq!(ann.expect("pusher_internal:member_removed").await.json(), joined_id(&joined));
}

fn joined_id(joined: &Value) -> Value {
    json!({ "user_id": joined["user_id"] })
}

#[tokio::test]
async fn a_command_takes_the_servers_configuration_and_any_of_its_apps() {
    let herald = Setup::new().config(TWO_APPS).app(App::new("shop", "shop-key", "shop-secret")).start().await;
    let mut shop = herald.connect().await;
    let mut news = herald.connect_to(&App::new("news", "news-key", "news-secret")).await;
    shop.subscribe("c").await;
    news.subscribe("c").await;
    let url = herald.url();
    for app in [&["--app", "news"][..], &[]] {
        let mut command = herald.command(["trigger", "c", app.last().unwrap_or(&"first"), "", "--url", &url]);
        command.args(app);
        assert!(run(command).await.status.success());
    }
    news.expect("news").await;
    shop.expect("first").await;
    let said = fails(herald.command(["trigger", "c", "e", "", "--app", "other", "--url", &url])).await;
    assert!(said.contains("--app") && said.contains("shop, news"), "{said}");
    let mut listening = herald.command(["listen", "c", "--app", "other", "--url", &url]);
    listening.env("HERALD_APP_ID", "other").env("HERALD_APP_KEY", "other-key").env("HERALD_APP_SECRET", "x");
    let said = fails(listening).await;
    assert!(said.contains("4001") && said.contains("no app has this key"), "{said}");
}

#[tokio::test]
async fn without_a_url_the_configured_address_is_used() {
    for prefix in ["", "/realtime"] {
        let herald = Setup::new().env("HERALD_PATH_PREFIX", prefix).start().await;
        let address = herald.address().to_string();
        let mut command = herald.command(["trigger", "c", "e", "d"]);
        command.env("HERALD_LISTEN", &address).env("HERALD_PATH_PREFIX", prefix);
        let output = run(command).await;
        assert!(output.status.success(), "{output:?}");
        let port = herald.address().port();
        let mut command = herald.command(["trigger", "c", "e", "d"]);
        // The address of a server for everybody is reached on this machine.
        command.env("HERALD_LISTEN", format!("0.0.0.0:{port}")).env("HERALD_PATH_PREFIX", prefix);
        command.env("HERALD_APP_ID", "a").env("HERALD_APP_KEY", "k").env("HERALD_APP_SECRET", "s");
        let said = fails(command).await;
        assert!(said.contains("404") && said.contains("no app has the id"), "{said}");
    }
    let herald = Setup::new().start().await;
    for listen in ["127.0.0.1:0", "unix:/tmp/herald.sock"] {
        let mut command = herald.command(["trigger", "c", "e", "d"]);
        command.env("HERALD_LISTEN", listen);
        let said = fails(command).await;
        assert!(said.contains("--url is needed"), "{said}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be_so() {
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{gone}");
    for args in [&["trigger", "c", "e", "d"][..], &["listen", "c"]] {
        let said = Setup::new().args(args.iter().copied().chain(["--url", &url])).refused().await;
        assert!(said.contains(&format!("the server cannot be reached at {url}")), "{said}");
        assert!(said.contains("is it running?") && !said.contains("auth_"), "{said}");
    }
    let said = Setup::new().args(["listen", "c", "--url", "ftp://127.0.0.1/"]).refused().await;
    assert!(said.contains("--url"), "{said}");
}

#[tokio::test]
async fn what_the_server_refuses_is_told_with_its_reason() {
    let herald = Setup::new().start().await;
    let url = herald.url();
    let long = "x".repeat(165);
    for (args, parts) in [
        (&["trigger", "bad channel", "e", "d"][..], &["400", "bad channel"][..]),
        (&["trigger", "c", "pusher:e", "d"], &["400", "pusher:"]),
        (&["trigger", &long, "e", "d"], &["400", "164"]),
        (&["listen", "bad channel"], &["\"bad channel\" cannot be subscribed to", "' '"]),
        (&["listen", &long], &["164"]),
        (&["listen", "#server-to-user-ann"], &["#server-to-user-ann", "cannot be subscribed to"]),
    ] {
        let said = fails(herald.command(args.iter().copied().chain(["--url", &url]))).await;
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}: {said}");
    }
    let mut wrong = herald.command(["trigger", "c", "e", "d", "--url", &url]);
    wrong.env("HERALD_APP_ID", "app-id").env("HERALD_APP_KEY", "app-key").env("HERALD_APP_SECRET", "not-it");
    let said = fails(wrong).await;
    assert!(said.contains("401") && !said.contains("not-it"), "{said}");
    let mut wrong = herald.command(["listen", "private-c", "--url", &url]);
    wrong.env("HERALD_APP_ID", "app-id").env("HERALD_APP_KEY", "app-key").env("HERALD_APP_SECRET", "not-it");
    let said = fails(wrong).await;
    assert!(said.contains("private-c") && said.contains("AuthError") && !said.contains("not-it"), "{said}");
}

#[tokio::test]
async fn who_listens_is_told_when_the_server_goes() {
    let herald = Setup::new().env("HERALD_SHUTDOWN_DELAY", "0s").start().await;
    let listening = Listening::start(&herald, &["c"]).await;
    herald.signal("TERM");
    let (succeeded, said) = listening.ended().await;
    assert!(!succeeded && said.contains("4200"), "{said}");
}

#[tokio::test]
async fn listening_ends_in_order_when_nobody_reads_along() {
    let herald = Setup::new().start().await;
    let mut command = herald.command(["listen", "c", "--url", &herald.url()]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = Text::of(child.stderr.take().unwrap());
    stderr.wait_for("subscribed to c").await;
    drop(child.stdout.take());
    trigger(&herald, "c", "e", "d").await;
    stderr.at_end().await;
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}: {}", stderr.read());
}
