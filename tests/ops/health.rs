//! `/health/live` and `/health/ready`, for balancers and supervisors. How ready changes at the end: `shutdown`.

use crate::process::{Setup, http};

#[tokio::test]
async fn both_listeners_say_that_it_lives_and_is_ready() {
    let herald = Setup::new().env("HERALD_PATH_PREFIX", "/realtime").start().await;
    let client = http().build().unwrap();
    for base in [herald.url(), herald.metrics_url().await] {
        for (path, status) in [("/health/live", "ok"), ("/health/ready", "ready")] {
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
