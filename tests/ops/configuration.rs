//! What is configured, by file and environment: what is used, what is refused, and what is said about it.

use crate::process::{Running, Setup, get};
use crate::support::App;

/// An app of a file.
const SHOP: &str = "[[apps]]\nid = \"shop\"\nkey = \"shop-key\"\nsecret = \"shop-secret\"\n";

fn shop() -> App {
    App::new("shop", "shop-key", "shop-secret")
}

/// A client of the app gets what its backend triggers.
async fn serves(herald: &Running, app: &App) {
    let mut client = herald.connect_to(app).await;
    client.subscribe("private-room").await;
    herald.api_of(app).trigger("private-room", "e", "data").await;
    assert_eq!(client.expect("e").await.data(), "data");
}

/// The refusal of a client without a known key.
async fn is_unknown(herald: &Running, key: &str) {
    herald.open(&format!("/app/{key}?protocol=7"), "").await.expect_refusal(4001).await;
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once_and_stops_the_start() {
    let file = r#"
        [server]
        listen = "nowhere"
        trusted_proxies = ["10.0.0.0/8", "proxy.example.com"]
        handshake_timeout = "1ms"
        [connection]
        activity_timeout = 60
        [connection.queue]
        max_bytes = "1KiB"
        [[apps]]
        id = "shop"
        key = "shop-key"
        secret = 20062006
        client_events = "yes"
        [apps.limits]
        event_name = 0
        [[apps.webhooks]]
        url = "ftp://hooks:password@example.com/"
        events = ["channel_ocupied"]
    "#;
    let setup = Setup::new().file("my.toml", file).without("HERALD_LISTEN");
    let setup = setup.env("HERALD_CONFIG", "my.toml").env("HERALD_METRICS_LISTEN", "everywhere");
    let setup = setup.env("HERALD_MAX_CONNECTIONS", "many").env("HERALD_SHUTDOWN_DRAIN", "1 day");
    let said = setup.refused().await;
    for (option, origin, was, allowed) in [
        ("server.listen", "my.toml", "\"nowhere\"", "ADDRESS:PORT"),
        ("server.trusted_proxies", "my.toml", "proxy.example.com", "an IP address or a network"),
        ("server.handshake_timeout", "my.toml", "\"1ms\"", "from 100ms to 5m"),
        ("server.max_connections", "HERALD_MAX_CONNECTIONS", "\"many\"", "a number from 1 to 10000000"),
        ("shutdown.drain", "HERALD_SHUTDOWN_DRAIN", "\"1 day\"", "a span of time from 0s to 10m"),
        ("connection.activity_timeout", "my.toml", "60", "a span of time from 1s to 1h"),
        ("connection.queue.max_bytes", "my.toml", "\"1KiB\"", "bytes from 16384"),
        ("metrics.listen", "HERALD_METRICS_LISTEN", "\"everywhere\"", "or \"off\""),
        ("apps.secret", "my.toml, apps \"shop\"", "the value", "text of 1 to 512 bytes"),
        ("apps.client_events", "my.toml, apps \"shop\"", "\"yes\"", "true or false"),
        ("apps.limits.event_name", "my.toml, apps \"shop\"", "0", "a number from 1 to 1000"),
        ("apps.webhooks.url", "my.toml, apps \"shop\"", "the value", "an http:// or https:// URL"),
        ("apps.webhooks.events", "my.toml, apps \"shop\"", "channel_ocupied", "channel_occupied, channel_vacated"),
    ] {
        let line = said.lines().find(|line| line.trim_start().starts_with(&format!("{option} (from ")));
        let line = line.unwrap_or_else(|| panic!("{option} is not told:\n{said}"));
        for part in [origin, was, allowed] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
    assert!(said.contains("13 problems"), "{said}");
    assert!(!said.contains("20062006") && !said.contains("password"), "a secret is shown to nobody:\n{said}");
}

#[tokio::test]
async fn a_wrong_value_of_any_variable_is_told_under_its_name() {
    // Paths and secrets may be any text.
    const ANY_TEXT: [&str; 29] = [
        "HERALD_SENTRY_ENVIRONMENT",
        "HERALD_SENTRY_RELEASE",
        "HERALD_APP_OTHER_SECRET",
        "HERALD_HEALTH_TOKEN",
        "HERALD_SENTRY_ENVIRONMENT",
        "HERALD_SENTRY_RELEASE",
        "HERALD_CLUSTER_REDIS_PASSWORD",
        "HERALD_INTEGRATIONS_CLOUDINARY_API_SECRET",
        "HERALD_INTEGRATIONS_CLOUDINARY_WEBHOOK_SECRETS",
        "HERALD_INTEGRATIONS_CRISP_TOKEN_KEY",
        "HERALD_INTEGRATIONS_CRISP_SIGNING_SECRETS",
        "HERALD_INTEGRATIONS_CRISP_WEBHOOK_KEYS",
        "HERALD_INTEGRATIONS_CRISP_IDENTITY_SECRET",
        "HERALD_INTEGRATIONS_OAUTH_NAME_CLIENT_ID",
        "HERALD_INTEGRATIONS_OAUTH_NAME_CLIENT_SECRET",
        "HERALD_INTEGRATIONS_OAUTH_NAME_OTHER_CLIENT_SECRET",
        "HERALD_AUTH_USER_INFO_METADATA",
        "HERALD_DATA_DIR",
        "HERALD_API_KEYS",
        "HERALD_AUTH_SECRET_KEY",
        "HERALD_TLS_CERT",
        "HERALD_TLS_KEY",
        "HERALD_APP_SECRET",
        "HERALD_NOTIFICATIONS_TOPICS",
        "HERALD_AUTH_OIDC_AUDIENCES",
        "HERALD_AUTH_OIDC_USER_CLAIM",
        "HERALD_AUTH_OIDC_SESSION_CLAIM",
        "HERALD_AUTH_OIDC_ORG_CLAIM",
        "HERALD_AUTH_OIDC_ROLE_CLAIM",
    ];
    let words = include_str!("../../config/herald.toml").split(|c: char| !c.is_ascii_uppercase() && c != '_');
    let mut variables: Vec<&str> = words.filter(|word| word.starts_with("HERALD_")).collect();
    variables.sort_unstable();
    variables.dedup();
    assert!(variables.len() > 30, "{variables:?}");
    let setup = variables.iter().fold(Setup::new(), |setup, name| setup.env(name, "~ such a value ~"));
    let said = setup.refused().await;
    for name in variables {
        // What is no address of a Redis may be its password in the wrong place, what is no key may be another one.
        const NOT_SHOWN: [&str; 9] = [
            "HERALD_SENTRY_DSN",
            "HERALD_INTEGRATIONS_CLOUDINARY_URL",
            "HERALD_TOKENS_KEYS",
            "HERALD_DISPATCH_SECRET",
            "HERALD_DATABASE_URL",
            "HERALD_CLUSTER_REDIS_URL",
            "HERALD_AUTH_JWT_KEY",
            "HERALD_AUTH_WEBHOOK_SECRET",
            "HERALD_AUTH_ENCRYPTION_MASTER_KEY",
        ];
        let value = if NOT_SHOWN.contains(&name) { "the value" } else { "\"~ such a value ~\"" };
        let told = said.contains(&format!("(from {name}): {value} is not allowed; it must be "));
        assert!(told != ANY_TEXT.contains(&name), "{name}:\n{said}");
    }
}

/// A key of the test vectors.
fn clerk_key(member: &str) -> String {
    let vectors: serde_json::Value = serde_json::from_str(include_str!("../vectors/clerk_jwt.json")).unwrap();
    vectors["test_keys"]["a"][member].as_str().unwrap().to_owned()
}

/// Another value than the default, such as a row of docs/configuration.md allows, as the file would have it.
fn another(name: &str, default: &str, allowed: &str) -> toml::Value {
    match default {
        _ if allowed == "a path" => format!("{name}.pem").into(),
        "true" => false.into(),
        "false" => true.into(),
        "\"info\"" => "debug".into(),
        "\"plugin\"" => "website".into(),
        "\"auto\"" if name == "pooler" => "transaction".into(),
        "\"auto\"" => "json".into(),
        "\"reject\"" => "deliver-locally".into(),
        _ if name == "node_timeout" => "21s".into(), // three times the heartbeat
        _ if allowed.starts_with("redis://") => "redis://127.0.0.1:7777/1".into(),
        number if number.parse::<i64>().is_ok() => (number.parse::<i64>().unwrap() - 1).into(),
        _ if allowed.starts_with("a number from 1 ") => 77.into(),
        _ if allowed.starts_with("a project's DSN") => "https://key@o1.ingest.sentry.io/2".into(),
        "0.05" => 0.5.into(),
        _ if allowed.starts_with("text of 1 to 200 characters") => "staging".into(),
        _ if allowed.starts_with("a number and a window") => "7/d".into(),
        _ if allowed.starts_with("a list, each one of pusher") => vec!["clerk", "redis"].into(),
        "\"unix\"" => "iso".into(),
        _ if allowed.starts_with("a span of time from 1ms") => "7ms".into(),
        _ if allowed.starts_with("text of 16 ") => "0123456789abcdef".into(),
        _ if allowed.starts_with("a span of time from 10m") => "11m".into(),
        _ if allowed.starts_with("a span of time from 1m") => "12m".into(),
        _ if allowed.starts_with("cloudinary://") => "cloudinary://1:hush@demo".into(),
        _ if allowed.starts_with("a list, each an ending") => vec!["png", "mp4"].into(),
        _ if allowed.starts_with("transformations") => "c_thumb,w_200|e_grayscale".into(),
        _ if allowed.starts_with("sha1 or") => "sha256".into(),
        _ if allowed.starts_with("a span of time") => "7s".into(),
        _ if allowed.starts_with("ADDRESS:PORT") => "127.0.0.1:7777".into(),
        _ if allowed.starts_with("a list, each an IP address") => vec!["10.0.0.0/8", "::1/128"].into(),
        _ if allowed.starts_with("a list, each an origin") => vec!["https://example.com", "*.example.org"].into(),
        _ if allowed.starts_with("empty, or a path") => "/prefix".into(),
        _ if allowed.starts_with("1 to 64 letters") => "word".into(),
        _ if allowed.starts_with("1 to 63 small letters") => "word".into(),
        _ if allowed.starts_with("postgres://") => "sqlite:other.db".into(),
        _ if allowed.starts_with("a list, each text of ") => vec!["an-old-key-012345", "a-new-key-012345"].into(),
        _ if allowed.starts_with("a list, each a type") => vec!["comment.*", "order.paid"].into(),
        _ if allowed.starts_with("a list, each TYPE:CHANNEL") => vec!["comment.*:email=off"].into(),
        _ if allowed.starts_with("a list, each 1 to 200 characters") => vec!["org:{org_id}:*"].into(),
        _ if allowed.starts_with("text of ") => "***".into(), // as it is shown
        "\"deny\"" => "allow".into(),
        _ if allowed.starts_with("the PEM") => clerk_key("test_public_key_pem").into(),
        _ if allowed.starts_with("pk_test_") => "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k".into(),
        // Left out below: it excludes Clerk's keys, which are among the others.
        "none" if allowed.contains("exactly as `iss`") => "https://id.example.com/".into(),
        _ if allowed.starts_with("the https:// URL of an address") => "https://app.example.com/authorize".into(),
        _ if allowed.starts_with("the https:// URL of a token") => "https://id.example.com/token".into(),
        _ if allowed.starts_with("the https:// URL of a JSON Web") => "https://id.example.com/keys".into(),
        _ if allowed.starts_with("a list, each 1 to 255 printable") => vec!["herald"].into(),
        _ if allowed.starts_with("1 to 255 printable") => "claim".into(),
        _ if allowed.starts_with("a list, each one of RS256") => vec!["ES256", "EdDSA"].into(),
        _ if allowed.starts_with("an https:// URL without a slash") => "https://clerk.example.com".into(),
        _ if allowed.starts_with("a list, each an http:// or https:// URL") => {
            vec!["https://example.com", "http://localhost:3000"].into()
        }
        _ if allowed.starts_with("whsec_") => "whsec_bm90IGEgc2VjcmV0".into(),
        _ if allowed.starts_with("ID:KEY") => "k:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=".into(),
        "\"xc20p\"" => "a256gcm".into(),
        _ if allowed.starts_with("ins_") => "ins_2abc".into(),
        _ if allowed.starts_with("32 bytes in base64") => "J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=".into(),
        _ => panic!("{name} = {default}, allowed: {allowed}"),
    }
}

#[tokio::test]
async fn every_variable_has_the_effect_that_the_documentation_says() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let setup = Setup::new().file("cert.pem", &made.cert.pem()).file("key.pem", &made.signing_key.serialize_pem());
    let (mut section, mut expected) = (String::new(), Vec::new());
    for line in include_str!("../../docs/configuration.md").lines() {
        if let Some(name) = line.strip_prefix("## `[").and_then(|rest| rest.strip_suffix("]`")) {
            section = name.trim_matches(['[', ']']).replacen("apps", "apps.0", 1);
        } else if let Some((name, rest)) = line.strip_prefix("| `").and_then(|row| row.split_once("`<br>`")) {
            let mut columns = rest.split(" | ");
            let variable = columns.next().unwrap().trim_end_matches('`').to_owned();
            let [default, allowed] = [(); 2].map(|()| columns.next().unwrap().trim_matches('`'));
            expected.push((format!("{section}.{name}"), variable, another(name, default, allowed)));
        }
    }
    assert!(expected.len() > 30, "{expected:?}");
    expected.retain(|(path, ..)| path != "auth.oidc.issuer");
    let setup = expected.iter().fold(setup, |setup, (_, variable, value)| {
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(several) => {
                several.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        setup.env(variable, &text)
    });
    let checked = setup.args(["check"]).run().await;
    assert!(checked.status.success(), "{checked:?}");
    let effective: toml::Value = toml::Value::Table(checked.stdout.parse().unwrap());
    for (path, variable, value) in expected {
        let found = path.split('.').try_fold(&effective, |place, part| match part.parse::<usize>() {
            Ok(position) => place.get(position),
            Err(_) => place.get(part),
        });
        // Secrets, and what others may have put in their place, are shown to nobody.
        const HIDDEN: [&str; 8] = [
            "sentry.dsn",
            "health.token",
            "auth.jwt_key",
            "auth.webhook_secret",
            "auth.encryption_master_key",
            "dispatch.secret",
            "tokens.keys",
            "integrations.cloudinary.url",
        ];
        let value = match path.as_str() {
            "server.api_keys"
            | "integrations.cloudinary.webhook_secrets"
            | "integrations.crisp.signing_secrets"
            | "integrations.crisp.webhook_keys" => vec!["***", "***"].into(),
            hidden if HIDDEN.contains(&hidden) => "***".into(),
            _ => value,
        };
        assert_eq!(found, Some(&value), "{variable} is {path}\n{}", checked.stdout);
    }
}

#[tokio::test]
async fn each_kind_of_redis_is_told_without_who_herald_is_there() {
    for (url, told) in [
        ("rediss://ann:hunter2@[::1]:7000/2", "rediss://[::1]:7000/2"),
        ("redis-sentinel://ann:hunter2@a,b:7000/2?master=main", "redis-sentinel://a:26379,b:7000/2?master=main"),
        ("redis-cluster://ann:hunter2@a,b:7000", "redis-cluster://a:6379,b:7000"),
    ] {
        for variable in ["HERALD_CLUSTER_REDIS_URL", "REDIS_URL"] {
            let checked = Setup::new().env(variable, url).args(["check"]).run().await;
            assert!(checked.status.success() && checked.stdout.contains(&format!("url = \"{told}\"")), "{checked:?}");
            assert!(!checked.stderr.contains("hunter2"), "{checked:?}");
        }
    }
}

#[tokio::test]
async fn further_names_of_others_have_their_effect() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = || Setup::new().file("cert.pem", &made.cert.pem()).file("key.pem", &made.signing_key.serialize_pem());
    for (variables, part) in [
        (&[("SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "false")][..], "client_events = false"),
        (&[("SOKETI_PATH_PREFIX", "/theirs")], "path_prefix = \"/theirs\""),
        (&[("REVERB_SERVER_PATH", "/theirs")], "path_prefix = \"/theirs\""),
        (&[("SOKETI_SSL_CERT", "cert.pem"), ("SOKETI_SSL_KEY", "key.pem")], "key = \"key.pem\""),
    ] {
        let setup = variables.iter().fold(files(), |setup, (name, value)| setup.env(name, value));
        let checked = setup.args(["check"]).run().await;
        assert!(checked.status.success() && checked.stdout.contains(part), "{part}: {checked:?}");
        for (name, _) in variables {
            assert!(checked.stderr.contains(&format!("{name} is used")), "{checked:?}");
        }
    }
}

#[tokio::test]
async fn what_does_not_go_together_is_told_with_where_it_came_from() {
    let known = "[[apps]]\nid = \"app-id\"\nkey = \"k\"\nsecret = \"app-secret\"\n";
    let said = Setup::new().config(known).env("HERALD_LISTEN", "0.0.0.0:0").refused().await;
    assert!(said.contains("apps.secret (from herald.toml, apps \"app-id\"): "), "{said}");
    assert!(said.contains("not on 0.0.0.0:0 (from HERALD_LISTEN)"), "{said}");
    let said = Setup::new().config("[tls]\ncert = \"cert.pem\"\n").refused().await;
    assert!(said.contains("tls.key: it is missing; tls.cert is set (from herald.toml)"), "{said}");
    let said = Setup::new().env("SOKETI_SSL_KEY", "key.pem").refused().await;
    assert!(said.contains("tls.cert: it is missing; tls.key is set (from SOKETI_SSL_KEY)"), "{said}");
    let twin = SHOP.replace("shop-key", "twin-key");
    let said = Setup::new().config(&format!("{SHOP}{twin}")).refused().await;
    assert!(said.contains("apps.id (from herald.toml, apps \"shop\"): "), "{said}");
    let setup = Setup::new().config(SHOP).env("HERALD_APP_ID", "x").env("PUSHER_KEY", "shop-key");
    let said = setup.env("HERALD_APP_SECRET", "s").refused().await;
    assert!(said.contains("apps.key (from PUSHER_KEY): \"shop-key\" is used twice"), "{said}");
    let said = Setup::new().config("[[apps]]\nid = \"bare\"\nkey = \"k\"\n").refused().await;
    assert!(said.contains("apps.secret (from herald.toml, apps \"bare\"): "), "{said}");
    let said = Setup::new().config(SHOP).env("HERALD_APP_CLIENT_EVENTS", "false").refused().await;
    assert!(said.contains("HERALD_APP_CLIENT_EVENTS: "), "{said}");
}

#[tokio::test]
async fn no_option_has_a_name_that_kubernetes_sets() {
    let page = include_str!("../../docs/configuration.md");
    let options: Vec<&str> = page.lines().filter(|line| line.contains("<br>`HERALD_")).collect();
    assert!(options.len() > 30, "{options:?}");
    for taken in ["`HERALD_PORT", "`HERALD_SERVICE_"] {
        assert!(options.iter().all(|line| !line.contains(taken)), "{taken}");
    }
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_the_nearest_name() {
    for (file, parts) in [
        ("[server]\nlistn = \"127.0.0.1:0\"\n", ["server.listn (from herald.toml)", "did you mean listen?"]),
        ("[serve]\n", ["serve (from herald.toml)", "did you mean server?"]),
        ("[connection.queue]\nmaxbytes = 5\n", ["connection.queue.maxbytes", "did you mean max_bytes?"]),
        ("[[apps]]\nid = \"a\"\nkey = \"k\"\nsecrett = \"x\"\n", ["apps.secrett", "did you mean secret?"]),
        ("[tls]\ncolour = 1\n", ["tls.colour", "known are cert, key"]),
    ] {
        let said = Setup::new().config(file).refused().await;
        assert!(parts.iter().all(|part| said.contains(part)), "{parts:?}\n{said}");
    }
}

#[tokio::test]
async fn an_unknown_variable_is_one_warning_and_the_server_starts() {
    let herald = Setup::new().env("HERALD_LISTNE", "x").env("HERALD_PORT", "6001").start().await;
    for (name, meant) in [("HERALD_LISTNE", "HERALD_LISTEN"), ("HERALD_PORT", "HERALD_LISTEN")] {
        let line = herald.logged(&[name, meant]).await;
        assert_eq!(line["level"], "WARN", "{line}");
    }
    herald.connect().await;
    let warnings = herald.log().into_iter().filter(|line| line["level"] == "WARN").count();
    assert_eq!(warnings, 2, "one each");
}

#[tokio::test]
async fn what_kubernetes_injects_is_ignored_with_a_line() {
    let injected = [
        ("HERALD_PORT", "tcp://10.0.0.1:6001"),
        ("HERALD_PORT_6001_TCP", "tcp://10.0.0.1:6001"),
        ("HERALD_PORT_6001_TCP_PROTO", "tcp"),
        ("HERALD_PORT_6001_TCP_PORT", "6001"),
        ("HERALD_PORT_6001_TCP_ADDR", "10.0.0.1"),
        ("HERALD_SERVICE_HOST", "10.0.0.1"),
        ("HERALD_SERVICE_PORT", "6001"),
        ("HERALD_SERVICE_PORT_HTTP", "6001"),
        ("SOKETI_PORT", "tcp://10.0.0.2:6001"),
        ("REVERB_SERVER_PORT", "tcp://10.0.0.3:8080"),
    ];
    let setup = injected.iter().fold(Setup::new(), |setup, (name, value)| setup.env(name, value));
    let herald = setup.start().await;
    let line = herald.logged(&["ignored"]).await;
    for (name, _) in injected {
        assert!(line.to_string().contains(name), "{name}: {line}");
    }
    assert!(herald.log().iter().all(|line| line["level"] != "WARN"), "{:?}", herald.log());
    serves(&herald, &App::new("app-id", "app-key", "app-secret")).await;
}

#[tokio::test]
async fn the_names_of_others_work_and_a_line_says_which_was_used() {
    for [id, key, secret] in [
        ["PUSHER_APP_ID", "PUSHER_KEY", "PUSHER_SECRET"],
        ["PUSHER_APP_ID", "PUSHER_APP_KEY", "PUSHER_APP_SECRET"],
        ["SOKETI_DEFAULT_APP_ID", "SOKETI_DEFAULT_APP_KEY", "SOKETI_DEFAULT_APP_SECRET"],
        ["REVERB_APP_ID", "REVERB_APP_KEY", "REVERB_APP_SECRET"],
    ] {
        let app = App::new("1234", "their-key", "their-secret");
        let setup = Setup::new().env(id, "1234").env(key, "their-key").env(secret, "their-secret");
        let herald = setup.start().await;
        serves(&herald, &app).await;
        for name in [id, key, secret] {
            herald.logged(&[&format!("{name} is used")]).await;
        }
        is_unknown(&herald, "app-key").await;
    }
}

#[tokio::test]
async fn addresses_of_others_are_listened_on() {
    for variables in [
        &[("SOKETI_PORT", "0")][..],
        &[("SOKETI_HOST", "127.0.0.1"), ("SOKETI_PORT", "0")],
        &[("REVERB_SERVER_PORT", "0"), ("REVERB_SERVER_HOST", "localhost")],
    ] {
        let setup = variables.iter().fold(Setup::new().without("HERALD_LISTEN"), |setup, (n, v)| setup.env(n, v));
        let herald = setup.start().await;
        assert_ne!(herald.address().port(), 6001, "{variables:?}");
        herald.connect().await;
        for (name, _) in variables {
            herald.logged(&[name, "used"]).await;
        }
    }
    let said = Setup::new().without("HERALD_LISTEN").env("SOKETI_PORT", "http").refused().await;
    assert!(said.contains("server.listen (from SOKETI_PORT): \"127.0.0.1:http\" is not allowed"), "{said}");
}

#[tokio::test]
async fn the_first_name_found_wins() {
    let names = ["HERALD_APP_KEY", "PUSHER_KEY", "SOKETI_DEFAULT_APP_KEY", "REVERB_APP_KEY"];
    for (position, winner) in names.iter().enumerate() {
        let setup = Setup::new().env("HERALD_APP_ID", "1").env("HERALD_APP_SECRET", "s");
        let setup = names.iter().skip(position).fold(setup, |setup, name| setup.env(name, &format!("{name}-value")));
        let herald = setup.start().await;
        serves(&herald, &App::new("1", &format!("{winner}-value"), "s")).await;
        if let Some(loser) = names.get(position + 1) {
            is_unknown(&herald, &format!("{loser}-value")).await;
            assert!(!herald.stderr.read().contains(&format!("{loser} is used")));
        }
    }
}

#[tokio::test]
async fn an_app_of_the_environment_joins_those_of_the_file_or_replaces_its_namesake() {
    let app = |id| Setup::new().config(SHOP).env("HERALD_APP_ID", id).env("PUSHER_KEY", "k").env("PUSHER_SECRET", "s");
    let herald = app("other").start().await;
    serves(&herald, &shop()).await;
    serves(&herald, &App::new("other", "k", "s")).await;

    let herald = app("shop").start().await;
    serves(&herald, &App::new("shop", "k", "s")).await;
    is_unknown(&herald, "shop-key").await;

    let said = Setup::new().config(SHOP).env("HERALD_APP_KEY", "k").refused().await;
    assert!(said.contains("HERALD_APP_KEY is set but not HERALD_APP_ID and HERALD_APP_SECRET"), "{said}");
}

#[tokio::test]
async fn the_environment_is_over_the_file() {
    let file = format!("[server]\nlisten = \"127.0.0.1:1\"\n[metrics]\nlisten = \"127.0.0.1:1\"\n{SHOP}");
    let herald = Setup::new().config(&file).start().await;
    assert_ne!(herald.address().port(), 1);
    serves(&herald, &shop()).await;
}

#[tokio::test]
async fn the_file_is_the_one_that_is_named_or_the_one_at_hand() {
    let at_hand = Setup::new().config(SHOP).start().await;
    at_hand.logged(&["herald.toml", "is used"]).await;
    serves(&at_hand, &shop()).await;

    let other = SHOP.replace("shop-key", "other-key");
    let app = App::new("shop", "other-key", "shop-secret");
    let named = Setup::new().config("not even TOML").file("other.toml", &other).env("HERALD_CONFIG", "other.toml");
    serves(&named.start().await, &app).await;

    let argument = Setup::new().file("other.toml", &other).env("HERALD_CONFIG", "missing.toml");
    serves(&argument.args(["--config", "other.toml"]).start().await, &app).await;

    let said = Setup::new().env("HERALD_CONFIG", "missing.toml").refused().await;
    assert!(said.contains("missing.toml (from HERALD_CONFIG): the file cannot be read"), "{said}");
    let said = Setup::new().args(["--config", "missing.toml"]).refused().await;
    assert!(said.contains("missing.toml (from --config): the file cannot be read"), "{said}");
}

#[tokio::test]
async fn a_file_that_is_no_toml_is_named_with_its_line_and_without_its_text() {
    for text in
        ["[[apps]]\nsecret = hush-hush\n", "[[apps]]\nsecret = \"hush-hush\n", "[[apps]]\nsecret \"hush-hush\"\n"]
    {
        let said = Setup::new().config(text).refused().await;
        assert!(said.contains("herald.toml") && said.contains("line 2"), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }
}

#[tokio::test]
async fn two_apps_cannot_share_an_id_or_a_key() {
    let twin = SHOP.replace("shop-key", "twin-key");
    assert!(Setup::new().config(&format!("{SHOP}{twin}")).refused().await.contains("\"shop\" is the id of two apps"));
    let twin = SHOP.replace("\"shop\"", "\"twin\"");
    assert!(Setup::new().config(&format!("{SHOP}{twin}")).refused().await.contains("\"shop-key\" is used twice"));
    let said = Setup::new().config("[[apps]]\n").refused().await;
    assert!(["apps.id", "apps.key", "apps.secret"].iter().all(|option| said.contains(option)), "{said}");
}

#[tokio::test]
async fn with_nothing_configured_it_is_for_this_machine_only() {
    let effective = Setup::new().without("HERALD_LISTEN").without("HERALD_METRICS_LISTEN").args(["check"]).run().await;
    assert!(effective.status.success(), "{effective:?}");
    let effective: toml::Table = effective.stdout.parse().unwrap();
    assert_eq!(effective["server"]["listen"].as_str(), Some("127.0.0.1:6001"));
    assert_eq!(effective["metrics"]["listen"].as_str(), Some("127.0.0.1:9601"));
    assert_eq!(effective["apps"][0]["id"].as_str(), Some("app-id"));
    assert_eq!(effective["apps"][0]["key"].as_str(), Some("app-key"));
    assert_eq!(effective["apps"][0]["client_events"].as_bool(), Some(true));

    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let said = Setup::new().env("HERALD_LISTEN", listen).refused().await;
        for name in ["HERALD_APP_ID", "HERALD_APP_KEY", "HERALD_APP_SECRET", listen] {
            assert!(said.contains(name), "{name}: {said}");
        }
    }
    // Said in so many words they are as known as before.
    let newcomer = "[[apps]]\nid = \"app-id\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n";
    Setup::new().config(newcomer).env("HERALD_LISTEN", "0.0.0.0:0").refused().await;

    let herald = Setup::new().config(SHOP).env("HERALD_LISTEN", "0.0.0.0:0").start().await;
    let port = herald.address().port();
    assert_eq!(get(&format!("http://127.0.0.1:{port}/health/live")).await.0, 200);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_with_its_option() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (variable, option) in [("HERALD_LISTEN", "server.listen"), ("HERALD_METRICS_LISTEN", "metrics.listen")] {
        let said = Setup::new().env(variable, &address).refused().await;
        assert!(said.contains(&format!("{option}: cannot listen on {address}")), "{said}");
    }
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised() {
    let herald = Setup::new().after("ulimit -S -n 64").start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", herald.id())).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard] = [0, 1].map(|column| line.split_whitespace().nth(column).unwrap());
    assert_eq!(soft, hard, "{line}");
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(herald.connect().await);
    }
}

#[tokio::test]
async fn the_listening_line_is_on_stdout_whatever_the_log_level() {
    for level in ["error", "warn", "info", "debug", "trace"] {
        let herald = Setup::new().config(SHOP).env("HERALD_LOG_LEVEL", level).start().await;
        herald.connect_to(&shop()).await;
        assert!(herald.stdout.read().starts_with(&format!("listening on http://{}\n", herald.address())));
        if level == "error" {
            assert_eq!(herald.stderr.read(), "");
        }
    }
}

#[tokio::test]
async fn another_issuer_than_clerk_needs_an_audience_and_excludes_clerks_keys() {
    let issuer = Setup::new().env("HERALD_AUTH_OIDC_ISSUER", "https://id.example.com/");
    let said = issuer.refused().await;
    assert!(said.contains("auth.oidc.audiences (from HERALD_AUTH_OIDC_ISSUER): it is missing"), "{said}");
    let both = Setup::new()
        .env("HERALD_AUTH_OIDC_ISSUER", "https://id.example.com/")
        .env("HERALD_AUTH_OIDC_AUDIENCES", "herald")
        .env("CLERK_PUBLISHABLE_KEY", "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k");
    let said = both.refused().await;
    assert!(said.contains("auth.publishable_key (from CLERK_PUBLISHABLE_KEY) is set too"), "{said}");
}
