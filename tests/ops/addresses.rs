//! Where it listens and whom it believes: IPv6, a unix socket, addresses that a proxy tells.

use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use futures_util::future::join_all;
use tokio::net::{TcpStream, UnixStream};

use crate::process::{Running, Setup, get, http};
use crate::socket::Socket;
use crate::support::Frame;

#[tokio::test]
async fn ipv6_is_an_address_like_any_other() {
    if std::net::TcpListener::bind("[::1]:0").is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable) {
        return; // this machine has no IPv6
    }
    let herald = Setup::new().env("HERALD_LISTEN", "[::1]:0").env("HERALD_METRICS_LISTEN", "[::1]:0").start().await;
    let url = herald.url();
    assert!(url.starts_with("http://[::1]:"), "{url}");
    assert_eq!(get(&format!("{url}/health/ready")).await.0, 200);
    assert_eq!(get(&format!("{}/metrics", herald.metrics_url().await)).await.0, 200);
    let mut client = Socket::open(TcpStream::connect(herald.address()).await.unwrap(), "app-key").await;
    client.subscribe("my-channel").await;
    let mut command = herald.command(["trigger", "my-channel", "my-event", "data", "--url", &url]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(client.expect("my-event").await, "data");
}

#[tokio::test]
async fn the_address_of_all_is_for_both_families() {
    if std::net::TcpListener::bind("[::1]:0").is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable) {
        return; // this machine has no IPv6
    }
    let app = "[[apps]]\nid = \"app-id\"\nkey = \"app-key\"\nsecret = \"configured\"\n";
    let setup = Setup::new().config(app).env("HERALD_LISTEN", "[::]:0").env("HERALD_TRUSTED_PROXIES", "192.0.2.0/24");
    let herald = setup.start().await;
    let port = herald.address().port();
    for (host, seen) in [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")] {
        assert_eq!(get(&format!("http://{host}:{port}/health/ready")).await.0, 200);
        assert_eq!(get(&format!("http://{host}:{port}/nowhere")).await.0, 404);
        herald.logged(&["request refused", &format!("\"address\":\"{seen}\"")]).await;
        let stream = TcpStream::connect(format!("{host}:{port}")).await.unwrap();
        Socket::open(stream, "app-key").await.settle().await;
    }
}

fn at(name: &str, setup: Setup) -> (Setup, String) {
    let path = setup.path(name).display().to_string();
    (setup.env("HERALD_LISTEN", &format!("unix:{path}")), path)
}

async fn serves(path: &str) {
    let stream = UnixStream::connect(path).await.unwrap();
    Socket::open(stream, "app-key").await.settle().await;
    let http = http().unix_socket(Path::new(path)).build().unwrap();
    assert_eq!(http.get("http://localhost/health/live").send().await.unwrap().status(), 200);
}

async fn ends(herald: Running) {
    herald.signal("TERM");
    assert!(herald.finished().await.status.success());
}

#[tokio::test]
async fn a_unix_socket_is_an_alternative_to_a_port() {
    let (setup, path) = at("herald.sock", Setup::new().env("HERALD_SHUTDOWN_DELAY", "0s"));
    let herald = setup.start().await;
    assert_eq!(herald.url(), format!("unix:{path}"));
    herald.metrics_url().await;
    serves(&path).await;
    let mut client = Socket::open(UnixStream::connect(&path).await.unwrap(), "app-key").await;
    client.subscribe("my-channel").await;
    let http2 = http().unix_socket(Path::new(&path)).http2_prior_knowledge().build().unwrap();
    assert_eq!(http2.get("http://localhost/health/ready").send().await.unwrap().version(), reqwest::Version::HTTP_2);

    // The introduction does not promise an address that is none.
    let said = herald.stdout.read();
    assert!(said.contains("app-secret") && !said.contains("wsPort"), "{said}");
    assert!(!said.contains("--url unix:"), "{said}");

    herald.signal("TERM");
    client.expect_close(4200).await;
    drop(client);
    let folder = herald.folder().to_owned();
    let finished = async {
        while folder.join("herald.sock").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::support::DEADLINE, finished).await.expect("the file is removed at the end");
    assert!(herald.finished().await.status.success());
}

#[tokio::test]
async fn a_proxy_at_a_unix_socket_counts_as_this_machine() {
    for (trusted, seen) in [("127.0.0.1", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")] {
        let (setup, path) = at("herald.sock", Setup::new().env("HERALD_TRUSTED_PROXIES", trusted));
        let herald = setup.start().await;
        let http = http().unix_socket(Path::new(&path)).build().unwrap();
        let request = http.get("http://localhost/nowhere").header("X-Forwarded-For", "203.0.113.9");
        assert_eq!(request.send().await.unwrap().status(), 404);
        let line = herald.logged(&["request refused"]).await;
        assert_eq!(line["address"], seen, "{line}");
    }
}

#[tokio::test]
async fn the_file_of_a_server_that_died_is_replaced() {
    let (setup, path) = at("herald.sock", Setup::new().env("HERALD_SHUTDOWN_DELAY", "0s"));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(std::fs::metadata(&path).unwrap().file_type().is_socket());
    let herald = setup.start().await;
    serves(&path).await;
    ends(herald).await;
}

#[tokio::test]
async fn a_file_that_is_in_use_or_no_socket_is_left_alone() {
    let (setup, path) = at("herald.sock", Setup::new());
    let _herald = setup.start().await;
    let said = Setup::new().env("HERALD_LISTEN", &format!("unix:{path}")).refused().await;
    assert!(said.contains("server.listen") && said.contains(&path), "{said}");
    serves(&path).await;

    let (setup, path) = at("precious.txt", Setup::new().file("precious.txt", "to be kept"));
    let mut refused = setup.spawn();
    refused.stderr.wait_for("server.listen").await;
    while refused.is_running() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), "to be kept");
}

#[tokio::test]
async fn a_unix_socket_is_not_encrypted() {
    let (setup, _) = at("herald.sock", Setup::new());
    let said = setup.env("HERALD_TLS_CERT", "c.pem").env("HERALD_TLS_KEY", "k.pem").refused().await;
    assert!(said.contains("tls.cert") && said.contains("unix socket"), "{said}");
    let said = Setup::new().env("HERALD_LISTEN", "unix:relative/path").refused().await;
    assert!(said.contains("server.listen (from HERALD_LISTEN)"), "{said}");
}

/// Whether each of these connections, by what a proxy says of it, is let in; all at once.
async fn admitted(herald: &Running, forwarded: &[&str]) -> Vec<bool> {
    let mut clients = Vec::new();
    for address in forwarded {
        let headers = if address.is_empty() { String::new() } else { format!("X-Forwarded-For: {address}\r\n") };
        clients.push(herald.open("/app/app-key?protocol=7", &headers).await);
    }
    join_all(clients.iter_mut().map(async |client| {
        let first = client.next_frame().await.expect("a frame");
        assert_eq!(first.opcode, Frame::TEXT);
        let text = String::from_utf8(first.payload).unwrap();
        let is_in = text.contains("pusher:connection_established");
        assert!(is_in || text.contains("4100"), "{text}");
        is_in
    }))
    .await
}

#[tokio::test]
async fn attempts_are_limited_by_the_address_that_a_trusted_proxy_tells() {
    let limited = || Setup::new().env("HERALD_LIMITS_CONNECTIONS", "2/h");
    let (one, other) = ("203.0.113.1", "203.0.113.2");
    let attempts = [one, one, one, other, "", "203.0.113.9, 203.0.113.1", "203.0.113.1, 203.0.113.3", "2001:db8::1"];

    let behind = limited().env("HERALD_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    assert_eq!(admitted(&behind, &attempts).await, [true, true, false, true, true, false, true, true]);

    // Of a stranger nothing is believed: all of these are one address.
    let open = limited().start().await;
    assert_eq!(admitted(&open, &attempts[..4]).await, [true, true, false, false]);

    let unlimited = Setup::new().start().await;
    assert_eq!(admitted(&unlimited, &[one; 50]).await, [true; 50]);
}
