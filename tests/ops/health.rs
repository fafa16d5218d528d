//! `/health/live`, `/health/ready` and `/health/integrations`, for balancers, supervisors and people. How ready changes at the end: `shutdown`.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::process::{Running, Setup, http};

#[tokio::test]
async fn both_listeners_say_that_it_lives_and_is_ready() {
    let herald = Setup::new().env("HERALD_PATH_PREFIX", "/realtime").start().await;
    let client = http().build().unwrap();
    for base in [herald.url(), herald.metrics_url().await] {
        for (path, status) in
            [("/health/live", "ok"), ("/health/ready", "ready"), ("/healthz", "ok"), ("/readyz", "ready")]
        {
            let answer = client.get(format!("{base}{path}")).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.headers()["content-type"], "application/json");
            assert_eq!(answer.headers()["cache-control"], "no-store");
            let body: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            assert_eq!(body["status"], status, "{base}{path}");
            let head = client.head(format!("{base}{path}")).send().await.unwrap();
            assert_eq!(head.status(), 200, "HEAD works, too");
            let other = client.post(format!("{base}{path}")).send().await.unwrap();
            assert_eq!(other.status(), 405);
        }
    }
}

/// What `/health/integrations` answers, with this token.
async fn integrations(herald: &Running, token: &str) -> (u16, Value) {
    let client = http().build().unwrap();
    let request = client.get(format!("{}/health/integrations", herald.url())).bearer_auth(token);
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["cache-control"], "no-store");
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

fn service<'v>(answer: &'v Value, name: &str) -> &'v Value {
    let services = answer["services"].as_array().unwrap();
    services.iter().find(|service| service["service"] == name).unwrap_or_else(|| panic!("{name} in {answer}"))
}

#[tokio::test]
async fn what_is_not_configured_is_well() {
    let herald = Setup::new().start().await;
    let client = http().build().unwrap();
    let (status, answer) = integrations(&herald, "").await;
    assert_eq!((status, &answer["healthy"]), (200, &json!(true)), "{answer}");
    for (name, status) in [
        ("pusher", "ok"),
        ("clerk", "not_configured"),
        ("crisp", "not_configured"),
        ("database", "ok"),
        ("redis", "not_configured"),
    ] {
        let service = service(&answer, name);
        assert_eq!((&service["healthy"], &service["details"]["status"]), (&json!(true), &json!(status)), "{service}");
        assert!(service["details"]["checked_at"].is_string() && service["details"]["latency_ms"].is_u64());
    }
    assert_eq!(service(&answer, "pusher")["details"]["connections"], 0);
    let alias = format!("{}/api/health/integrations", herald.metrics_url().await);
    assert_eq!(client.head(alias).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_is_down_is_told_in_a_word_and_nothing_else_of_it() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap(); // takes connections and never answers
    let silent = format!("http://{}/hush", silent.local_addr().unwrap());
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = |issuer: &str, more: &str| format!("[auth.oidc]\nissuer = \"{issuer}\"\naudiences = [\"a\"]\n{more}");
    for (issuer, code) in [
        (silent.as_str(), "timeout"),
        ("http://hush.invalid", "dns"),
        (&format!("http://{closed}/hush"), "connect"),
        (&format!("https://{closed}/hush"), "connect"),
    ] {
        let herald = Setup::new().config(&config(issuer, "")).start().await;
        let (status, answer) = integrations(&herald, "").await;
        assert_eq!((status, &answer["healthy"]), (503, &json!(false)));
        let clerk = service(&answer, "clerk");
        assert_eq!((&clerk["healthy"], &clerk["details"]["status"]), (&json!(false), &json!("down")), "{code}");
        assert_eq!(clerk["details"]["code"], code, "{issuer}");
        assert!(!answer.to_string().contains("hush"), "{answer}");
    }

    let lenient = config(&silent, "[health]\noptional = [\"clerk\"]\ntoken = \"0123456789abcdef\"");
    let herald = Setup::new().config(&lenient).start().await;
    for (token, is_told) in [("", false), ("wrong", false), ("0123456789abcdef", true)] {
        let (status, answer) = integrations(&herald, token).await;
        assert_eq!((status, &answer["healthy"]), (200, &json!(true)), "it may be down");
        let clerk = service(&answer, "clerk");
        assert_eq!((&clerk["healthy"], clerk["details"].is_object()), (&json!(false), is_told), "{token:?}");
    }
}

#[tokio::test]
async fn a_database_that_was_never_reached_takes_no_traffic_and_one_that_goes_away_does() {
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("postgres://herald:hush@{away}/herald");
    let herald = Setup::new().env("HERALD_DATABASE_URL", &url).start().await;
    let answer = http().build().unwrap().get(format!("{}/readyz", herald.url())).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let body: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    let checks = json!({ "database": "down", "redis": "ok", "draining": false });
    assert_eq!(body, json!({ "status": "not_ready", "checks": checks }));
    let (status, answer) = integrations(&herald, "").await;
    assert_eq!((status, service(&answer, "database")["healthy"].as_bool()), (503, Some(false)));
    assert!(!answer.to_string().contains("hush") && !answer.to_string().contains("127.0.0.1"), "{answer}");
}

#[tokio::test]
async fn a_crisp_that_does_not_take_the_token_is_down_and_nothing_of_it_is_told() {
    let answers =
        |head: &str| if head.contains("Basic dDpodXNo") { (200, String::new()) } else { (401, String::new()) };
    let api = crate::doctor::stand_in(answers, "", None).await;
    for (key, healthy, status, code) in
        [("hush", true, "ok", Value::Null), ("other-hush", false, "down", json!("unauthorized"))]
    {
        let setup =
            Setup::new().env("CRISP_WEBSITE_ID", "hush-website").env("CRISP_TOKEN_ID", "t").env("CRISP_TOKEN_KEY", key);
        let herald = setup.env("HERALD_INTEGRATIONS_CRISP_API_URL", &api).start().await;
        let (_, answer) = integrations(&herald, "").await;
        let crisp = service(&answer, "crisp");
        assert_eq!((&crisp["healthy"], &crisp["details"]["status"]), (&json!(healthy), &json!(status)), "{crisp}");
        assert_eq!(crisp["details"]["code"], code);
        assert!(!answer.to_string().contains("hush"), "{answer}");
    }
}
