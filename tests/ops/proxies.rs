//! What stands in front of Herald and what starts it: the files of `config/` work as they are, but for the names of hosts and the port.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::process::{Running, Setup, Text};
use crate::support::{App, Client, DEADLINE, Options};

const NGINX: &str = include_str!("../../config/nginx.conf");
const CADDY: &str = include_str!("../../config/Caddyfile");
const UNIT: &str = include_str!("../../config/herald.service");

/// A real proxy in front of a real server; it ends with this.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    child: Child,
    stderr: Text,
    _folder: tempfile::TempDir,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM, so that nginx takes its workers along. It may have ended already.
        _ = Command::new("kill").arg(self.child.id().to_string()).status();
        _ = self.child.wait();
        if std::thread::panicking() {
            #[allow(clippy::print_stderr, reason = "a failed test shows the proxy's log")]
            {
                eprintln!("proxy:\n{}", self.stderr.read());
            }
        }
    }
}

impl Proxy {
    /// Starts it with what `command` makes of the folder, and waits until it accepts.
    async fn start(address: SocketAddr, folder: tempfile::TempDir, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the proxy is installed: tests/run does it");
        let stderr = Text::of(child.stderr.take().unwrap());
        let proxy = Self { address, child, stderr, _folder: folder };
        let accepts = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, accepts).await.unwrap_or_else(|_| panic!("it listens: {}", proxy.stderr.read()));
        proxy
    }

    async fn nginx(herald: &Running) -> Self {
        Self::nginx_with(herald, |file| file).await
    }

    /// The same with a file that is a little other.
    pub(crate) async fn nginx_with(herald: &Running, other: impl FnOnce(String) -> String) -> Self {
        let (address, folder) = (free_address(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("nginx.conf"), other(nginx(address, herald.address()))).unwrap();
        let tested = run(&mut nginx_command(folder.path(), &["-t"]));
        assert!(tested.status.success(), "{tested:?}");
        let command = nginx_command(folder.path(), &[]);
        Self::start(address, folder, command).await
    }

    async fn caddy(herald: &Running) -> Self {
        let (address, folder) = (free_address(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("Caddyfile"), caddy(address, herald.address())).unwrap();
        let command = caddy_command(folder.path(), "run");
        Self::start(address, folder, command).await
    }

    /// What a client at `from` is refused by, of whom Herald's log tells the address.
    async fn refuse(&self, from: &str) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(self.address).await.unwrap();
        let request = format!(
            "GET /app/none?protocol=7 HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 101");
    }
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it is installed: tests/run does it")
}

/// The file, where one node stands for the two.
fn nginx(listens: SocketAddr, herald: SocketAddr) -> String {
    let one = NGINX.replace("listen 80;", &format!("listen {listens};")).replace("herald-1:6001", &herald.to_string());
    let lines = one.lines().filter(|line| !line.contains("herald-2:6001"));
    // Folders of its own, for more than one of it on a machine.
    let folders =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|name| format!("{name}_temp_path {name};\n"));
    let text: Vec<&str> = lines.collect();
    text.join("\n").replacen("http {", &format!("http {{\naccess_log off;\n{}", folders.concat()), 1)
}

fn nginx_command(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new("nginx");
    command.args(["-p", folder.to_str().unwrap(), "-c", "nginx.conf", "-e", "stderr"]);
    command.args(["-g", "daemon off; pid nginx.pid;"]).args(more);
    command
}

fn caddy(listens: SocketAddr, herald: SocketAddr) -> String {
    let one = CADDY.replace("realtime.example.com", &format!("http://{listens}"));
    format!("{{\nadmin off\n}}\n{}", one.replace("herald-1:6001 herald-2:6001", &herald.to_string()))
}

fn caddy_command(folder: &Path, command: &str) -> Command {
    let mut caddy = Command::new("caddy");
    caddy.args([command, "--adapter", "caddyfile", "--config", "Caddyfile"]).current_dir(folder);
    caddy.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    caddy
}

/// A server that believes a proxy at 127.0.0.1.
async fn herald() -> Running {
    Setup::new().env("HERALD_TRUSTED_PROXIES", "127.0.0.1").start().await
}

/// A client and a backend are served through it, and Herald knows where clients are.
async fn passes(proxy: &Proxy, herald: &Running) {
    let app = App::new("app-id", "app-key", "app-secret");
    let path = "/app/app-key?protocol=7&client=js&version=8.4.0";
    let mut client = Client::open(proxy.address, path, app.clone(), Options::default()).await;
    client.read_hello().await;
    client.subscribe("private-room").await;
    let api = crate::support::api::Api::new(proxy.address, app);
    api.trigger("private-room", "e", "data").await;
    assert_eq!(client.expect("e").await.data(), "data");
    proxy.refuse("127.0.0.77").await;
    // Not what the client says of itself.
    let line = herald.logged(&["connection refused", "unknown_app"]).await;
    assert_eq!(line["address"], "127.0.0.77", "{line}");
    client.close().await;
}

#[tokio::test]
async fn nginx_passes_websockets_requests_and_the_clients_address() {
    let herald = herald().await;
    let proxy = Proxy::nginx(&herald).await;
    passes(&proxy, &herald).await;
}

#[tokio::test]
async fn caddy_passes_websockets_requests_and_the_clients_address() {
    let herald = herald().await;
    let proxy = Proxy::caddy(&herald).await;
    passes(&proxy, &herald).await;
}

#[tokio::test]
async fn the_caddyfile_is_valid_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("Caddyfile"), CADDY).unwrap();
    let tested = tokio::task::spawn_blocking(move || run(&mut caddy_command(folder.path(), "validate"))).await.unwrap();
    assert!(tested.status.success(), "{tested:?}");
}

#[tokio::test]
async fn the_unit_is_valid_and_leaves_a_process_little_that_it_could_do() {
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("herald.service");
    std::fs::write(&unit, UNIT.replace("/usr/local/bin/herald", env!("CARGO_BIN_EXE_herald"))).unwrap();
    let verified = run(Command::new("systemd-analyze").arg("verify").arg(&unit));
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    // From 0, which is nothing, to 10: below 2 is what it calls OK, and better.
    let rated = run(Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&unit));
    assert!(rated.status.success(), "{}", String::from_utf8_lossy(&rated.stdout));
}

#[tokio::test]
async fn systemd_is_told_when_it_listens_and_its_reload_is_a_sighup() {
    let folder = tempfile::tempdir().unwrap();
    let socket = tokio::net::UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let herald = Setup::new().env("NOTIFY_SOCKET", folder.path().join("notify").to_str().unwrap()).start().await;
    let mut told = [0; 64];
    let read = tokio::time::timeout(DEADLINE, socket.recv(&mut told)).await.expect("it is told in time").unwrap();
    assert_eq!(&told[..read], b"READY=1");
    herald.connect().await;
    assert!(UNIT.contains("ExecReload=/bin/kill -HUP $MAINPID\n") && UNIT.contains("Type=notify\n"));
    herald.signal("HUP");
    herald.logged(&["SIGHUP", "was read again"]).await;
}
