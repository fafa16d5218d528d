//! Herald as the auth endpoint: who is let in, in what forms it is asked, and how pages of other origins get to see the answer.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::Herald;
use super::user::{auth, authorize, request, token};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const ORIGIN: &str = "https://app.example.com";

#[tokio::test]
async fn form_json_and_the_old_address_are_answered_alike() {
    let herald = Herald::start(&auth("")).await;
    let authorization = format!("Authorization: Bearer {}", token("user_ann", &json!({})));
    let expected = herald.app.authorize("12.34".parse().unwrap(), "private-user-user_ann", None);
    for path in ["/pusher/auth", "/api/pusher/auth"] {
        for (kind, body) in [
            (FORM, "socket_id=12.34&channel_name=private-user-user_ann".to_owned()),
            (
                "Content-Type: application/json",
                json!({ "socket_id": "12.34", "channel_name": "private-user-user_ann" }).to_string(),
            ),
        ] {
            let answer = request(&herald, "POST", path, &[&authorization, kind], &body).await;
            assert_eq!(answer.ok(), json!({ "auth": expected }), "{path} {kind}");
            assert_eq!(answer.headers["cache-control"], "no-store");
        }
    }
}

#[tokio::test]
async fn several_channels_are_answered_one_by_one() {
    let herald = Herald::start(&auth("[[auth.rules]]\nchannels = [\"room-*\"]")).await;
    let form = "&socket_id=1.1&channel_name[0]=private-room-1&channel_name[1]=private-user-user_bob";
    let answer = authorize(&herald, "/pusher/auth", &token("user_ann", &json!({})), form).await.ok();
    let expected = herald.app.authorize("1.1".parse().unwrap(), "private-room-1", None);
    assert_eq!(answer["private-room-1"], json!({ "status": 200, "data": { "auth": expected } }));
    assert_eq!(answer["private-user-user_bob"], json!({ "status": 403 }));
}

#[tokio::test]
async fn every_refusal_has_its_status_and_code() {
    let herald = Herald::start(&auth("")).await;
    let good = token("user_ann", &json!({}));
    for (path, token, form, status, code) in [
        ("/pusher/auth", good.as_str(), "socket_id=1.1&channel_name=private-user-user_bob", 403, "forbidden"),
        ("/pusher/auth", &good, "socket_id=1.1&channel_name=private-encrypted-user-user_ann", 403, "forbidden"),
        ("/pusher/auth", &good, "socket_id=1.1&channel_name=news", 400, "invalid_request"),
        ("/pusher/auth", &good, "socket_id=1.1&channel_name=private-a b", 400, "invalid_request"),
        ("/pusher/auth", &good, "socket_id=1.1%3Ax&channel_name=private-user-user_ann", 400, "invalid_request"),
        ("/pusher/auth", &good, "socket_id=1.1", 400, "invalid_request"),
        ("/pusher/user-auth", &good, "", 400, "invalid_request"),
        ("/pusher/user-auth", "a.b.c", "socket_id=1.1", 401, "invalid_token"),
        ("/pusher/auth", &good, "socket_id=1.1&channel_name=private-user-user_ann&app=other", 404, "unknown_app"),
    ] {
        let answer = authorize(&herald, path, token, form).await;
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str().unwrap()), (status, code), "{path} {form}");
    }
    let get = request(&herald, "GET", "/pusher/auth", &[], "").await;
    assert_eq!((get.status, get.headers["allow"].as_str()), (405, "POST, OPTIONS"));
    let authorization = format!("Authorization: Bearer {good}");
    let text = request(&herald, "POST", "/pusher/auth", &[&authorization, "Content-Type: text/plain"], "x").await;
    assert_eq!(text.status, 415);
    let large = request(&herald, "POST", "/pusher/auth", &[&authorization, FORM], &"x".repeat(65 * 1024)).await;
    assert_eq!((large.status, &large.json()["error"]["code"]), (413, &json!("too_large")));
    assert!(!herald.has_logged(&good), "a token stands in no log");
}

#[tokio::test]
async fn with_several_apps_the_request_says_for_which() {
    let apps = "[[apps]]\nid = \"one\"\nkey = \"key-1\"\nsecret = \"s1\"\n[[apps]]\nid = \"two\"\nkey = \"key-2\"\nsecret = \"s2\"\n";
    let herald = Herald::start(&format!("{}{apps}", auth(""))).await;
    let token = token("user_ann", &json!({}));
    let form = "socket_id=1.1&channel_name=private-user-user_ann";
    let answer = authorize(&herald, "/pusher/auth", &token, form).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!("app_required")));
    for named in ["two", "key-2"] {
        let answer = authorize(&herald, &format!("/pusher/auth?app={named}"), &token, form).await.ok();
        assert!(answer["auth"].as_str().unwrap().starts_with("key-2:"), "{named}: {answer}");
    }
}

#[tokio::test]
async fn pages_of_the_configured_origins_see_answers_and_refusals_and_others_none() {
    let herald = Herald::start(&auth("")).await;
    let preflight = |path: &'static str, origin: &'static str| {
        let origin = format!("Origin: {origin}");
        let herald = &herald;
        async move {
            let headers =
                [&*origin, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization"];
            request(herald, "OPTIONS", path, &headers, "").await
        }
    };
    for path in
        ["/pusher/auth", "/api/pusher/user-auth", "/v1/inbox", "/v1/inbox/changes", "/v1/inbox/bulk", "/v1/inbox/x"]
    {
        let allowed = preflight(path, ORIGIN).await;
        assert_eq!(allowed.headers["access-control-allow-origin"], ORIGIN, "{path}");
        assert!(allowed.headers["access-control-allow-headers"].contains("authorization"));
        assert_eq!(allowed.headers["access-control-max-age"], "600");
        assert!(!preflight(path, "https://evil.example").await.headers.contains_key("access-control-allow-origin"));
    }
    let refused = request(&herald, "POST", "/pusher/auth", &["Origin: https://app.example.com", FORM], "").await;
    assert_eq!((refused.status, refused.headers["access-control-allow-origin"].as_str()), (401, ORIGIN));
    assert!(refused.headers["vary"].to_ascii_lowercase().contains("origin"));
}

/// The app's own endpoint, which sees to it that it is asked as Herald asks.
async fn app(secret: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/authorize", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(decide(stream, secret));
        }
    });
    url
}

async fn decide(mut stream: tokio::net::TcpStream, secret: &str) {
    let mut request = Vec::new();
    let (head, body) = loop {
        assert!(stream.read_buf(&mut request).await.unwrap() > 0);
        let text = str::from_utf8(&request).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            break (head.to_owned(), body.to_owned());
        }
    };
    let signature = herald_protocol::Secret::new(secret).sign(body.as_bytes());
    assert!(head.contains(&format!("x-pusher-signature: {signature}")), "{head}");
    let asked: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&asked["user_id"], &asked["session_id"]), (&json!("user_ann"), &json!("sess_user_ann")));
    let (status, body) = match asked["channel_name"].as_str().unwrap() {
        "private-project-1" => ("200 OK", String::new()),
        "presence-project-1" => ("200 OK", json!({ "user_info": { "name": "Ann" } }).to_string()),
        "private-slow" => return std::future::pending().await,
        "private-broken" => ("500 Oops", String::new()),
        "private-page" => ("200 OK", "<!doctype html><title>Sign in</title>".to_owned()),
        _ => ("403 Forbidden", String::new()),
    };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn where_no_rule_speaks_the_app_decides() {
    let url = app("app-secret").await;
    let more = format!("authorizer = \"{url}\"\nauthorizer_timeout = \"300ms\"\n[[auth.rules]]\nchannels = [\"room\"]");
    let herald = Herald::start(&auth(&more)).await;
    let good = token("user_ann", &json!({}));
    for (channel, status) in [
        ("private-room", 200),
        ("private-project-1", 200),
        ("private-project-2", 403),
        ("private-user-user_bob", 403),
        ("private-slow", 503),
        ("private-broken", 503),
        ("private-page", 503),
    ] {
        let form = format!("socket_id=1.1&channel_name={channel}");
        let answer = authorize(&herald, "/pusher/auth", &good, &form).await;
        assert_eq!(answer.status, status, "{channel}: {answer:?}");
    }
    let form = "socket_id=1.1&channel_name=presence-project-1";
    let answer = authorize(&herald, "/pusher/auth", &good, form).await.ok();
    let data: serde_json::Value = serde_json::from_str(answer["channel_data"].as_str().unwrap()).unwrap();
    assert_eq!(data, json!({ "user_id": "user_ann", "user_info": { "name": "Ann" } }));
}

#[tokio::test]
async fn the_cookie_of_a_session_counts_for_the_app_s_own_pages() {
    let key = "pk_test_Y2xlcmsuZXhhbXBsZS5jb20k";
    let suffix = herald::identity::publishable_key::PublishableKey::parse(key).unwrap().cookie_suffix();
    let herald = Herald::start(&auth(&format!("publishable_key = \"{key}\""))).await;
    let made = |seconds_ago: u64| {
        let iat = super::user::now() - seconds_ago;
        token("user_ann", &json!({ "iss": "https://clerk.example.com", "iat": iat, "nbf": iat }))
    };
    let (older, newer, uat) = (made(20), made(5), super::user::now() - 10);
    let form = "socket_id=1.1&channel_name=private-user-user_ann";
    for (cookie, origin, status) in [
        (format!("__session={newer}"), "", 200),
        (format!("a=b; __session_{suffix}={newer}; __session=x.y.z"), ORIGIN, 200),
        (format!("__session_{suffix}={older}; __session={newer}; __client_uat_{suffix}={uat}"), ORIGIN, 200),
        (format!("__session={older}; __client_uat={uat}"), ORIGIN, 401),
        (format!("__session={newer}; __client_uat=0"), ORIGIN, 401),
        (format!("__session={newer}"), "https://evil.example", 403),
        ("__session=x.y.z".to_owned(), ORIGIN, 401),
        (format!("other=a%3B__session={newer}"), ORIGIN, 401),
        (String::new(), ORIGIN, 401),
    ] {
        let (cookie_line, origin_line) = (format!("Cookie: {cookie}"), format!("Origin: {origin}"));
        let mut headers = vec![cookie_line.as_str(), FORM];
        if !origin.is_empty() {
            headers.push(&origin_line);
        }
        let answer = request(&herald, "POST", "/pusher/auth", &headers, form).await;
        assert_eq!(answer.status, status, "{cookie} {origin}: {answer:?}");
    }
}
