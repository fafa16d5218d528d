//! `POST /v1/vitals`: what browsers measure is counted, what is none of it is told, and nobody may send too much.

use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::metrics::Page;
use crate::process::{Running, Setup, http};

/// Status, headers and body of a request.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn message(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body));
        body["error"]["message"].as_str().unwrap().to_owned()
    }
}

async fn ask(herald: &Running, method: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let url = format!("{}/v1/vitals", herald.url());
    let mut request = http().build().unwrap().request(method.parse().unwrap(), url).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, body: answer.text().await.unwrap() }
}

async fn report(herald: &Running, body: &str) -> Answer {
    ask(herald, "POST", &[("content-type", "application/json")], body).await
}

/// How many values each histogram has.
async fn counts(herald: &Running) -> Vec<f64> {
    let page = Page::of(herald).await;
    let names = ["lcp_seconds", "inp_seconds", "fcp_seconds", "ttfb_seconds", "cls"];
    names.map(|name| page.value(&format!("herald_web_vitals_{name}_count"))).to_vec()
}

#[tokio::test]
async fn what_a_page_measures_is_in_the_histograms() {
    let herald = Setup::new().start().await;
    assert_eq!(counts(&herald).await, [0.0; 5], "they are there from the start");
    let one = report(&herald, r#"{"name":"LCP","value":2400,"rating":"good","id":"v5-1"}"#).await;
    assert_eq!((one.status, one.body.as_str()), (204, ""));
    // As `navigator.sendBeacon` sends a text.
    let several = r#"[{"name":"INP","value":180},{"name":"CLS","value":0.09},{"name":"FCP","value":1700},{"name":"TTFB","value":750.5},
                      {"name":"LCP","value":5000}]"#;
    let several = ask(&herald, "POST", &[("content-type", "text/plain;charset=UTF-8")], several).await;
    assert_eq!(several.status, 204);
    assert_eq!(counts(&herald).await, [2.0, 1.0, 1.0, 1.0, 1.0]);
    let page = Page::of(&herald).await;
    for (series, value) in [
        ("lcp_seconds_sum", 7.4),
        ("inp_seconds_sum", 0.18),
        ("ttfb_seconds_sum", 0.7505),
        ("cls_sum", 0.09),
        // A bucket ends where good ends, and where poor begins.
        ("lcp_seconds_bucket{le=\"2.5\"}", 1.0),
        ("lcp_seconds_bucket{le=\"4\"}", 1.0),
        ("lcp_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("inp_seconds_bucket{le=\"0.2\"}", 1.0),
        ("inp_seconds_bucket{le=\"0.5\"}", 1.0),
        ("fcp_seconds_bucket{le=\"1.8\"}", 1.0),
        ("fcp_seconds_bucket{le=\"3\"}", 1.0),
        ("ttfb_seconds_bucket{le=\"0.8\"}", 1.0),
        ("ttfb_seconds_bucket{le=\"1.8\"}", 1.0),
        ("cls_bucket{le=\"0.1\"}", 1.0),
        ("cls_bucket{le=\"0.25\"}", 1.0),
        ("cls_bucket{le=\"0.05\"}", 0.0),
    ] {
        let found = page.value(&format!("herald_web_vitals_{series}"));
        assert!((found - value).abs() < 1e-9, "{series} is {found}, not {value}");
    }
    assert!(!page.text.contains("v5-1"), "nothing else is kept");
}

#[tokio::test]
async fn what_is_not_right_is_told_and_not_counted() {
    let herald = Setup::new().start().await;
    let large = format!(r#"[{{"name":"LCP","value":1,"entries":"{}"}}]"#, "x".repeat(16 * 1024));
    let many = format!("[{}]", vec![r#"{"name":"LCP","value":1}"#; 21].join(","));
    for (body, status, said) in [
        ("", 400, "the body must be"),
        ("no JSON", 400, "the body must be"),
        ("[]", 400, "a list of 1 to 20"),
        (&many, 400, "a list of 1 to 20"),
        (
            r#"{"name":"FID","value":1}"#,
            400,
            "\"FID\" is not counted; `name` must be one of LCP, INP, FCP, TTFB and CLS",
        ),
        (r#"{"value":1}"#, 400, "`name` is missing"),
        (r#"{"name":"LCP","value":-1}"#, 400, "the `value` of LCP must be a number from 0 to 600000 (milliseconds)"),
        (r#"{"name":"CLS","value":101}"#, 400, "from 0 to 100"),
        (r#"{"name":"LCP","value":null}"#, 400, "must be a number"), // what JSON makes of infinity
        (r#"[{"name":"LCP","value":1},{"name":"LCP","value":"1"}]"#, 400, "must be a number"),
        (&large, 413, "16384"),
    ] {
        let answer = report(&herald, body).await;
        assert_eq!(answer.status, status, "{body}");
        assert!(answer.message().contains(said), "{body}: {}", answer.message());
    }
    let form = ask(&herald, "POST", &[("content-type", "application/x-www-form-urlencoded")], "name=LCP&value=1").await;
    assert_eq!(
        (form.status, form.message().as_str()),
        (415, "the content type must be application/json or text/plain")
    );
    let read = ask(&herald, "GET", &[], "").await;
    assert_eq!((read.status, read.headers["allow"].to_str().unwrap()), (405, "POST, OPTIONS"));
    assert_eq!(counts(&herald).await, [0.0; 5]);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_report() {
    let herald = Setup::new().env("HERALD_ALLOWED_ORIGINS", "https://app.example.com").start().await;
    for (origin, allowed) in [("https://app.example.com", true), ("https://elsewhere.example.com", false)] {
        let asked = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        let question = ask(&herald, "OPTIONS", &asked, "").await;
        let sent =
            ask(&herald, "POST", &[("origin", origin), ("content-type", "text/plain")], r#"{"name":"CLS","value":0}"#)
                .await;
        for answer in [&question, &sent] {
            let found = answer.headers.get("access-control-allow-origin").map(|value| value.to_str().unwrap());
            assert_eq!(found, allowed.then_some(origin), "{}", answer.status);
        }
        assert_eq!(sent.headers["vary"], "origin");
    }
    assert!(counts(&herald).await[4] >= 1.0);
}

#[tokio::test]
async fn an_address_may_not_report_more_than_the_limit_says() {
    let config = "server = { trusted_proxies = [\"127.0.0.1\"] }\n[limits]\nvitals = \"2/h\"\n";
    let herald = Setup::new().config(config).env("HERALD_PATH_PREFIX", "").start().await;
    let from = async |address: &str, body: &str| {
        ask(&herald, "POST", &[("x-forwarded-for", address), ("content-type", "application/json")], body).await
    };
    let right = r#"{"name":"LCP","value":1}"#;
    assert_eq!(from("203.0.113.9", right).await.status, 204);
    let wrong = from("203.0.113.9", "{}").await;
    assert_eq!(wrong.status, 400, "a wrong one counts as well");
    assert_eq!(wrong.headers["x-ratelimit-remaining"], "0");
    let refused = from("203.0.113.9", right).await;
    assert_eq!(refused.status, 429);
    assert!(refused.message().contains("the limit `vitals`"), "{}", refused.message());
    assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(from("203.0.113.10", right).await.status, 204, "another address has a limit of its own");
    let page = Page::of(&herald).await;
    assert_eq!(page.value("herald_rate_limited_total{policy=\"vitals\"}"), 1.0);
    assert_eq!(page.value("herald_web_vitals_lcp_seconds_count"), 2.0);
    assert_eq!(page.value("herald_http_requests_total{route=\"vitals\",status=\"204\"}"), 2.0);
}
