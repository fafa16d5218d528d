//! A server of a test's own: the real binary in a process, on a free port, in a folder that goes with it.
//!
//! The tests of one node are the tests of a cluster, too: with [`REDIS_URL`] in the environment every server keeps its state in that Redis,
//! and with [`NODES`]` = 2` it has a second node, which the backends speak to while the clients are with the first.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;
use toml::{Table, Value as Toml};

use super::api::Api;
use super::client::{Client, Options};
use super::{App, DEADLINE};

/// The folder, within the server's own, that it keeps things in; nobody has made it.
const DATA: &str = "data";

/// The variable with the Redis that servers without a `[cluster]` of their own are to use.
const REDIS_URL: &str = "HERALD_TEST_REDIS_URL";

/// The variable with the number of nodes, 1 or 2, that they are then.
const NODES: &str = "HERALD_TEST_NODES";

/// See the module. Dropped, the process is killed; if the test is failing, its log is shown.
#[derive(Debug)]
pub(crate) struct Herald {
    pub(crate) address: SocketAddr,
    /// The first app of the configuration; its credentials are `app-id`, `app-key`, `app-secret` unless the test gave others.
    pub(crate) app: App,
    child: Child,
    log: Arc<Mutex<String>>,
    folder: Arc<TempDir>,
    /// The node that backends speak to, where there are two.
    second: Option<Box<Self>>,
}

impl Herald {
    /// Starts a server with these options. What they leave out of `[server] listen`, `[shutdown]` and the first app's credentials is
    /// filled in.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), config).await
    }

    /// One node, or the two that the environment asks for.
    async fn start_in(folder: Arc<TempDir>, config: &str) -> Self {
        let mut config: Table = config.parse().expect("the test's configuration is TOML");
        let is_shared = join_cluster(&mut config, &folder);
        let mut first = Self::start_node(folder, config.clone(), &[]).await;
        if is_shared {
            first.until_ready().await;
        }
        if is_shared && std::env::var(NODES).is_ok_and(|nodes| nodes == "2") {
            let server = config.entry("server").or_insert_with(|| Table::new().into()).as_table_mut().unwrap();
            server.insert("listen".to_owned(), "127.0.0.1:0".into());
            let folder = Arc::new(tempfile::tempdir().unwrap());
            let second = Self::start_node(folder, config, &[]).await;
            second.until_ready().await;
            first.second = Some(Box::new(second));
        }
        first
    }

    /// Waits until the server has reached its Redis.
    async fn until_ready(&self) {
        let ready = async {
            let request = "GET /health/ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n";
            while Api::new(self.address, self.app.clone()).raw(request).await.json()["status"] != "ready" {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(DEADLINE, ready).await.expect("it reaches its Redis in time");
    }

    async fn start_node(folder: Arc<TempDir>, mut config: Table, environment: &[(&str, &str)]) -> Self {
        let app = complete(&mut config);
        let file = folder.path().join("herald.toml");
        std::fs::write(&file, config.to_string()).unwrap();

        let mut child = Command::new(env!("CARGO_BIN_EXE_herald"))
            .env_clear()
            .env("HERALD_CONFIG", &file)
            .env("HERALD_DATA_DIR", folder.path().join(DATA))
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().unwrap();
        thread::spawn({
            let log = Arc::clone(&log);
            move || keep(stderr, &log)
        });
        let stdout = child.stdout.take().unwrap();
        let (lines, announced) = mpsc::channel();
        thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    append(&log, &line);
                    // The test has what it needs and may be gone; the rest is read so that the server never blocks on it.
                    _ = lines.send(line);
                }
            }
        });
        let address = tokio::task::spawn_blocking(move || {
            loop {
                match announced.recv_timeout(DEADLINE) {
                    Ok(line) => match line.strip_prefix("listening on http://") {
                        Some(address) => return Ok(address.parse::<SocketAddr>().unwrap()),
                        None => continue,
                    },
                    Err(RecvTimeoutError::Timeout) => return Err("did not say in time where it listens"),
                    Err(RecvTimeoutError::Disconnected) => return Err("ended before it listened"),
                }
            }
        });
        match address.await.unwrap() {
            Ok(address) => Self { address, app, child, log, folder, second: None },
            Err(problem) => {
                _ = child.kill();
                _ = child.wait();
                panic!("herald {problem}; its log:\n{}", log.lock().unwrap());
            }
        }
    }

    /// A client of the first app that has read its hello.
    pub(crate) async fn connect(&self) -> Client {
        self.connect_to(&self.app).await
    }

    /// A client of another app that has read its hello.
    pub(crate) async fn connect_to(&self, app: &App) -> Client {
        let mut client = self.open(&format!("/app/{}?protocol=7&client=test&version=1.0", app.key)).await;
        client.app = app.clone();
        client.read_hello().await;
        client
    }

    /// A client of the first app at `path`, upgraded; nothing is read yet.
    pub(crate) async fn open(&self, path: &str) -> Client {
        self.open_with(path, Options::default()).await
    }

    /// The same with headers or a socket of the test's choice.
    pub(crate) async fn open_with(&self, path: &str, options: Options<'_>) -> Client {
        Client::open(self.address, path, self.app.clone(), options).await
    }

    /// Clients that joined a presence channel as these users, in this order, each having seen all later ones join.
    pub(crate) async fn members<const N: usize>(&self, channel: &str, users: [&str; N]) -> [Client; N] {
        let mut clients: Vec<Client> = Vec::new();
        for (position, user) in users.iter().enumerate() {
            let mut client = self.connect().await;
            client.join(channel, user).await;
            if !users[..position].contains(user) {
                for earlier in &mut clients {
                    earlier.expect("pusher_internal:member_added").await;
                }
            }
            clients.push(client);
        }
        clients.try_into().unwrap()
    }

    /// The first app's backend.
    pub(crate) fn api(&self) -> Api {
        self.api_of(&self.app)
    }

    /// Another app's backend.
    pub(crate) fn api_of(&self, app: &App) -> Api {
        let node = self.second.as_deref().unwrap_or(self);
        Api::new(node.address, app.clone())
    }

    /// Triggers an event as the first app's backend.
    pub(crate) async fn trigger(&self, channel: &str, event: &str, data: impl Into<Value>) {
        self.api().trigger(channel, event, data).await;
    }

    /// Asks the process to end; where there are two, both.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
        if let Some(second) = &self.second {
            second.signal("TERM");
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "the process is there to be asked");
    }

    /// Bytes of memory that the process holds.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Waits for the process to end by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(2 * DEADLINE, ended).await.expect("the process ends in time")
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
        if thread::panicking() {
            eprintln!("the server's log:\n{}", self.log.lock().unwrap());
        }
    }
}

/// Puts a server into the Redis of the environment if there is one, each test in a part of its own: that of its folder's name, so that a
/// server started again finds what the first one left.
fn join_cluster(config: &mut Table, folder: &TempDir) -> bool {
    let Ok(url) = std::env::var(REDIS_URL) else { return false };
    if config.contains_key("cluster") {
        return false;
    }
    let name = folder.path().file_name().unwrap().to_string_lossy().replace('.', "");
    let redis = Table::from_iter([("url".to_owned(), Toml::from(url)), ("prefix".to_owned(), Toml::from(name))]);
    config.insert("cluster".to_owned(), Table::from_iter([("redis".to_owned(), redis.into())]).into());
    true
}

/// Fills in what every test needs, and says who the first app is.
fn complete(config: &mut Table) -> App {
    let fill = |table: &mut Table, name: &str, value: &str| {
        table.entry(name).or_insert_with(|| Toml::from(value)).as_str().unwrap().to_owned()
    };
    let section = |config: &mut Table, name: &str| {
        config.remove(name).map_or_else(Table::new, |section| section.try_into().unwrap())
    };
    let mut server = section(config, "server");
    fill(&mut server, "listen", "127.0.0.1:0");
    config.insert("server".to_owned(), server.into());
    let mut shutdown = section(config, "shutdown");
    fill(&mut shutdown, "delay", "0s");
    fill(&mut shutdown, "drain", "1s");
    config.insert("shutdown".to_owned(), shutdown.into());
    let mut metrics = section(config, "metrics");
    fill(&mut metrics, "listen", "off");
    config.insert("metrics".to_owned(), metrics.into());
    let apps = config.entry("apps").or_insert_with(|| vec![Table::new()].into()).as_array_mut().unwrap();
    let app = apps[0].as_table_mut().unwrap();
    let (id, key) = (fill(app, "id", "app-id"), fill(app, "key", "app-key"));
    App::new(&id, &key, &fill(app, "secret", "app-secret"))
}

fn keep(from: impl Read, log: &Mutex<String>) {
    for line in BufReader::new(from).lines().map_while(Result::ok) {
        append(log, &line);
    }
}

fn append(log: &Mutex<String>, line: &str) {
    let mut log = log.lock().unwrap();
    log.push_str(line);
    log.push('\n');
}

/// What only some tests ask for.
#[allow(dead_code, reason = "each of the tests that share this asks for some of it")]
impl Herald {
    /// One server with further variables in its environment.
    pub(crate) async fn start_with(config: Table, environment: &[(&str, &str)]) -> Self {
        Self::start_node(Arc::new(tempfile::tempdir().unwrap()), config, environment).await
    }

    /// Ends the process without a word, as a loss of power does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops the process as if it slept; it notices nothing.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets a paused process go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// A further server in this one's folder, once this one has ended.
    pub(crate) async fn start_again(self, config: &str) -> Self {
        Self::start_in(Arc::clone(&self.folder), config).await
    }

    /// Where the server keeps things over a restart.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join(DATA)
    }

    /// Whether a line with this text was written to the log.
    pub(crate) fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().contains(text)
    }

    /// Waits until a line with this text was written to the log.
    pub(crate) async fn logged(&self, text: &str) {
        let written = async {
            while !self.has_logged(text) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, written).await.is_ok(), "{text:?} is logged, in time");
    }

    /// The value of a metric without labels; the configuration must have a `[metrics]` listener.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let page = self.metrics().await;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
    }

    /// The page of all metrics.
    pub(crate) async fn metrics(&self) -> String {
        let address = loop {
            let log = self.log.lock().unwrap().clone();
            match log.lines().find_map(|line| line.strip_prefix("metrics on http://")) {
                Some(address) => break address.parse().unwrap(),
                None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        };
        let request = "GET /metrics HTTP/1.1\r\nHost: metrics\r\nConnection: close\r\n\r\n";
        Api::new(address, self.app.clone()).raw(request).await.text
    }

    /// How many lines with this text were written to the log.
    pub(crate) fn times_logged(&self, text: &str) -> usize {
        self.log.lock().unwrap().lines().filter(|line| line.contains(text)).count()
    }

    /// Descriptors that the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        self.opened().count()
    }

    /// The same without its database's, of which there are more or fewer as it is asked.
    pub(crate) fn descriptors_but_the_databases(&self) -> usize {
        self.opened().filter(|path| !path.to_string_lossy().contains("herald.db")).count()
    }

    fn opened(&self) -> impl Iterator<Item = PathBuf> {
        let all = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
    }

    /// The process may have so many descriptors from now on, and cannot raise that.
    pub(crate) fn limit_descriptors(&self, most: usize) {
        let (id, most) = (self.child.id().to_string(), format!("--nofile={most}:{most}"));
        assert!(Command::new("prlimit").args(["--pid", &id, &most]).status().unwrap().success());
    }

    /// Time that the process has spent on a processor.
    pub(crate) fn processor_time(&self) -> std::time::Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap(); // the name before may hold anything
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        std::time::Duration::from_millis(ticks * 10)
    }

    /// Whether the process has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}
