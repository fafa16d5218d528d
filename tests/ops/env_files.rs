//! `--env-file`: an app's own `.env` is enough, below the real environment and over nothing else.

use crate::process::{Running, Setup, http};
use crate::support::App;

/// The `.env` of an app whose parts are those that Herald is made for.
const APP: &str = include_str!("fixtures/app.env");

fn app() -> App {
    App::new("1234567", "0123456789abcdef0123", "s3cret \"with\" quotes")
}

/// A client of the app gets what its backend triggers.
async fn serves(herald: &Running, app: &App) {
    let mut client = herald.connect_to(app).await;
    client.subscribe("private-room").await;
    herald.api_of(app).trigger("private-room", "e", "data").await;
    assert_eq!(client.expect("e").await.data(), "data");
}

#[tokio::test]
async fn an_apps_own_file_works_unchanged() {
    for text in [APP.to_owned(), APP.replace('\n', "\r\n")] {
        let herald = Setup::new().file(".env", &text).args(["--env-file", ".env"]).start().await;
        serves(&herald, &app()).await;
        // Clerk's key is there: its users are asked for their token.
        let asked = http().build().unwrap().post(format!("{}/pusher/auth", herald.url()));
        let origin = asked.header("origin", "http://localhost:3000");
        let body = "socket_id=1.1&channel_name=private-a";
        let answer =
            origin.header("content-type", "application/x-www-form-urlencoded").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{}", answer.text().await.unwrap());
        for parts in [
            &["UPSTASH_REDIS_REST_URL in .env is HTTP", "WARN"][..],
            &["NEXT_PUBLIC_SUPABASE_URL in .env is no address of a Postgres", "WARN"],
            &["known and not needed", "PUSHER_CLUSTER", "SUPABASE_SERVICE_ROLE_KEY"],
            &["LOG_LEVEL in .env is used"],
            &["Crisp is off", "CRISP_TOKEN_KEY"],
        ] {
            herald.logged(parts).await;
        }
        let log = herald.stderr.read();
        assert!(log.contains("\"DEBUG\""), "`verbose` is our `debug`");
        for hidden in ["s3cret", "sk_test_", "bm90IGEgc2VjcmV0", "not.a.key", "AX0123", "0123456789abcdef0123@"] {
            assert!(!log.contains(hidden), "{hidden}");
        }
    }
}

#[tokio::test]
async fn the_real_environment_wins_and_a_later_file_is_over_an_earlier_one() {
    let setup =
        Setup::new().file("app.env", APP).file("mine.env", "PUSHER_SECRET=mine\nPUSHER_KEY=mine\nPUSHER_APP_ID=\n");
    let setup = setup.env("PUSHER_KEY", "real").args(["--env-file", "app.env", "serve", "--env-file", "mine.env"]);
    let herald = setup.start().await;
    serves(&herald, &App::new("1234567", "real", "mine")).await;
}

#[tokio::test]
async fn every_command_reads_it() {
    let file = "PUSHER_URL=https://key:hush@api-eu.pusher.com/apps/shop\n";
    let checked = Setup::new().file(".env", file).args(["check", "--env-file", ".env"]).run().await;
    assert!(checked.status.success() && checked.stdout.contains("id = \"shop\""), "{checked:?}");
    let herald = Setup::new().file(".env", file).args(["--env-file", ".env"]).app(App::new("shop", "key", "hush"));
    let herald = herald.start().await;
    let mut client = herald.connect().await;
    client.subscribe("c").await;
    let mut command = herald.command(["trigger", "c", "e", "d", "--env-file", ".env", "--url", &herald.url()]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    client.expect("e").await;
}

#[tokio::test]
async fn what_is_wrong_in_it_is_told_with_its_line_beside_everything_else() {
    let setup = Setup::new()
        .file("bad.env", "PUSHER_KEY=k\nhush hush\nPUSHER_SECRET=\"hush\nhush")
        .file("good.env", "HERALD_APP_ID=~\n");
    let setup = setup.config("[serv]\n").env("HERALD_MAX_CONNECTIONS", "many");
    let files = ["bad.env", "good.env", "missing.env"].into_iter().flat_map(|path| ["--env-file", path]);
    let said = setup.args(files).refused().await;
    for part in [
        "bad.env (from --env-file): line 2: it must be NAME=value",
        "bad.env (from --env-file): line 3: the quote at the beginning of the value is not closed",
        "missing.env (from --env-file): the file cannot be read: ",
        "apps.id (from HERALD_APP_ID in good.env): \"~\" is not allowed",
        "serv (from herald.toml): there is no such option",
        "server.max_connections (from HERALD_MAX_CONNECTIONS)",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    assert!(!said.contains("hush"), "{said}");
}

#[tokio::test]
async fn what_an_env_file_of_docker_leaves_is_read_as_it_was_meant() {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../vectors/clerk_jwt.json")).unwrap();
    let pem = vectors["test_keys"]["a"]["test_public_key_pem"].as_str().unwrap().trim().replace('\n', "\\n");
    let setup =
        Setup::new().env("CLERK_JWT_KEY", &format!("\"{pem}\"")).env("PUSHER_KEY", "'k'").env("PUSHER_APP_ID", " 7 ");
    let herald = setup.env("PUSHER_SECRET", "\"s\\n\"").start().await;
    serves(&herald, &App::new("7", "k", "s\\n")).await;
}

#[tokio::test]
async fn a_password_beside_the_redis_url_joins_it() {
    let setup = || Setup::new().env("REDIS_PASSWORD", "hush").args(["check"]);
    for (variable, url) in
        [("REDIS_URL", "redis://ann@r:1/0"), ("KV_URL", "rediss://r:1/0"), ("UPSTASH_REDIS_URL", "rediss://d:x@r:1/0")]
    {
        let checked = setup().env(variable, url).run().await;
        let is_told = ["password = \"***\"", "r:1/0\""].iter().all(|part| checked.stdout.contains(part));
        assert!(checked.status.success() && is_told && !checked.stdout.contains("hush"), "{checked:?}");
    }
}
