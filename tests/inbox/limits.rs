//! How much each caller may ask: who asks too much hears it with a time to come back, and nobody else does.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::support::Herald;
use super::support::api::Answer;
use super::user::{CLERK_SECRET, ask, auth, authorize, request, token};

const FORM: &str = "socket_id=1.1&channel_name=private-user-ann";

async fn inbox(herald: &Herald, user: &str) -> Answer {
    ask(herald, user, "GET", "/v1/inbox", &Value::Null).await
}

fn number(answer: &Answer, header: &str) -> u64 {
    answer.headers.get(header).unwrap_or_else(|| panic!("{header} in {answer:?}")).parse().unwrap()
}

/// Whether it is the refusal of a limit, whose headers and body agree.
fn is_refused(answer: &Answer, policy: &str) -> bool {
    if answer.status != 429 {
        return false;
    }
    let error = &answer.json()["error"];
    let wait = number(answer, "retry-after");
    assert_eq!((&error["code"], error["retry_after"].as_u64()), (&json!("rate_limited"), Some(wait)), "{answer:?}");
    assert!(error["message"].as_str().unwrap().contains(policy), "{answer:?}");
    assert!(wait >= 1);
    true
}

#[tokio::test]
async fn a_user_who_asks_too_much_is_told_when_to_come_back_and_the_others_are_served() {
    let herald =
        Herald::start(&format!("metrics.listen = \"127.0.0.1:0\"\n{}[limits]\ninbox_reads = \"3/h\"", auth(""))).await;
    for remaining in [2, 1, 0] {
        let answer = inbox(&herald, "ann").await;
        assert_eq!(answer.status, 200);
        assert_eq!((number(&answer, "x-ratelimit-limit"), number(&answer, "x-ratelimit-remaining")), (3, remaining));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let reset = number(&answer, "x-ratelimit-reset");
        assert!((now + 1_190 * (3 - remaining)..=now + 1_201 * (3 - remaining)).contains(&reset), "{reset}");
        assert_eq!(answer.headers["ratelimit-policy"], r#""inbox_reads";q=3;w=3600"#);
    }
    let refused = inbox(&herald, "ann").await;
    assert!(is_refused(&refused, "inbox_reads"));
    let wait = number(&refused, "retry-after");
    assert!((1_100..=1_200).contains(&wait), "one more is due a third of an hour after the first");
    assert_eq!(refused.headers["ratelimit"], format!(r#""inbox_reads";r=0;t={wait}"#));
    assert_eq!(inbox(&herald, "bob").await.status, 200, "bob has asked nothing yet");
    let seen = json!({ "action": "seen", "up_to_rev": 0 });
    let written = ask(&herald, "ann", "POST", "/v1/inbox/mark-all", &seen).await;
    assert_eq!(written.status, 200, "what is changed counts by itself");
    assert!(herald.metrics().await.contains(r#"herald_rate_limited_total{policy="inbox_reads"} 1"#));
}

#[tokio::test]
async fn each_group_of_routes_has_its_limit() {
    let limits =
        "[limits]\nauth = \"1/h\"\ninbox_writes = \"1/h\"\nservers = \"1/h\"\nwebhooks = \"1/h\"\nreset = \"iso\"";
    let config = auth(&format!("webhook_secret = \"{CLERK_SECRET}\""));
    let herald = Herald::start(&format!("server.api_keys = [\"0123456789abcdef\"]\n{config}{limits}")).await;
    let seen = json!({ "action": "seen", "up_to_rev": 0 });
    for is_first in [true, false] {
        let answers = [
            ("auth", authorize(&herald, "/pusher/auth", &token("ann", &json!({})), FORM).await),
            ("inbox_writes", ask(&herald, "ann", "POST", "/v1/inbox/mark-all", &seen).await),
            (
                "servers",
                request(&herald, "GET", "/v1/users/ann/inbox", &["Authorization: Bearer 0123456789abcdef"], "").await,
            ),
            ("webhooks", request(&herald, "POST", "/webhooks/clerk", &[], "{}").await),
        ];
        for (policy, answer) in answers {
            assert_eq!(is_refused(&answer, policy), !is_first, "{policy}: {answer:?}");
            assert_eq!(answer.headers["x-ratelimit-limit"], "1", "{policy}");
            assert!(answer.headers["x-ratelimit-reset"].contains('T'), "{policy}: {answer:?}");
        }
    }
    let signed = herald.api().get("/notifications/none", &[]).await;
    assert!(is_refused(&signed, "servers"), "an app is one caller, with a key as with a signature");
    for _ in 0..5 {
        herald.api().trigger("news", "e", "").await; // Pusher's API is limited by the app's own limits
    }
}

#[tokio::test]
async fn wrong_tokens_keys_and_signatures_are_limited_by_address_and_the_right_ones_are_served() {
    let herald = Herald::start(&format!("{}[limits]\nfailed_auth = \"3/h\"", auth(""))).await;
    let bearer = ["Authorization: Bearer wrong"];
    let form = async |path| authorize(&herald, path, "wrong", FORM).await;
    assert_eq!(form("/pusher/auth").await.status, 401);
    assert_eq!(request(&herald, "GET", "/v1/inbox", &[], "").await.status, 401, "who says nothing tries nothing");
    assert_eq!(request(&herald, "GET", "/v1/users/ann/inbox", &bearer, "").await.status, 401);
    let unsigned = request(&herald, "GET", "/apps/app-id/channels?auth_key=wrong", &[], "").await;
    assert_eq!(unsigned.status, 401);
    assert!(is_refused(&form("/pusher/user-auth").await, "failed_auth"));
    assert!(is_refused(&request(&herald, "GET", "/v1/users/ann/inbox", &bearer, "").await, "failed_auth"));
    let unsigned = request(&herald, "GET", "/apps/app-id/channels?auth_key=wrong", &[], "").await;
    assert_eq!(unsigned.status, 429, "{unsigned:?}");
    assert_eq!(inbox(&herald, "ann").await.status, 200);
    herald.api().trigger("news", "e", "").await;
}

#[tokio::test]
async fn a_page_of_another_origin_may_read_where_the_limit_stands() {
    let herald = Herald::start(&auth("")).await;
    let authorization = format!("Authorization: Bearer {}", token("ann", &json!({})));
    let headers = [authorization.as_str(), "Origin: https://app.example.com"];
    let answer = request(&herald, "GET", "/v1/inbox", &headers, "").await;
    let exposed = answer.headers["access-control-expose-headers"].to_ascii_lowercase();
    for header in [
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
    ] {
        assert!(exposed.split(',').any(|name| name.trim() == header), "{header} in {exposed}");
    }
    assert_eq!(answer.headers["ratelimit-policy"], r#""inbox_reads";q=600;w=60"#, "600 a minute if nothing is said");
}

#[tokio::test]
async fn what_has_no_limit_says_nothing_of_one() {
    let herald = Herald::start(&format!("{}[limits]\ninbox_reads = \"off\"\ndraft_headers = false", auth(""))).await;
    let answer = inbox(&herald, "ann").await;
    assert!(answer.status == 200 && answer.headers.keys().all(|name| !name.contains("ratelimit")), "{answer:?}");
    let written = ask(&herald, "ann", "POST", "/v1/inbox/mark-all", &json!({ "action": "seen", "up_to_rev": 0 })).await;
    assert!(written.headers.contains_key("x-ratelimit-limit") && !written.headers.contains_key("ratelimit"));
}
