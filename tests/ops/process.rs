//! Herald's process as an operator sees it: what it is given, what it prints, which signals it minds, how it ends.

use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use herald_protocol::Secret;
use herald_protocol::signature::{body_md5, request_string};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::support::api::Api;
use crate::support::{App, Client, DEADLINE, Options};

/// How often something that must happen is looked for.
const LOOK: Duration = Duration::from_millis(10);

/// A command that is not run yet: in a folder of its own, with an environment that says free ports and nothing else.
#[derive(Debug)]
pub(crate) struct Setup {
    folder: TempDir,
    command: Command,
    app: App,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
        command.env_clear().current_dir(folder.path());
        command.env("HERALD_LISTEN", "127.0.0.1:0").env("HERALD_METRICS_LISTEN", "127.0.0.1:0");
        Self { folder, command, app: App::new("app-id", "app-key", "app-secret") }
    }

    /// The same program and folder, started by a shell that does this first.
    pub(crate) fn after(mut self, script: &str) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("{script}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_herald")]);
        shell.env_clear().current_dir(self.folder.path());
        for (name, value) in self.command.get_envs() {
            shell.env(name, value.unwrap_or_default());
        }
        self.command = shell;
        self
    }

    /// Writes a file into the working directory.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        std::fs::write(self.folder.path().join(name), text).unwrap();
        self
    }

    /// Writes `herald.toml` into the working directory.
    pub(crate) fn config(self, text: &str) -> Self {
        self.file("herald.toml", text)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    pub(crate) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.command.args(args);
        self
    }

    /// Whose credentials the clients and backends of the test have.
    pub(crate) fn app(mut self, app: App) -> Self {
        self.app = app;
        self
    }

    /// A path in the working directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What would be run, and the folder that it needs, for a test that handles the process by itself.
    pub(crate) fn into_command(self) -> (Command, TempDir) {
        (self.command, self.folder)
    }

    /// Runs it, and leaves it running.
    pub(crate) fn spawn(mut self) -> Running {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the binary starts");
        let stdout = Text::of(child.stdout.take().unwrap());
        let stderr = Text::of(child.stderr.take().unwrap());
        Running { stdout, stderr, app: self.app, child, folder: self.folder }
    }

    /// Runs it until it listens.
    pub(crate) async fn start(self) -> Running {
        let mut running = self.spawn();
        let announced = async {
            loop {
                if running.stdout.line_with("listening on ").is_some() {
                    return;
                }
                if let Some(status) = running.child.try_wait().unwrap() {
                    running.stderr.at_end().await;
                    panic!("herald ended before it listened: {status}\n{}", running.stderr.read());
                }
                sleep(LOOK).await;
            }
        };
        if timeout(DEADLINE, announced).await.is_err() {
            panic!("herald did not say in time where it listens");
        }
        running
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) -> Finished {
        self.spawn().finished().await
    }

    /// Runs it to its end, which must be a failure; returns what it said on stderr.
    pub(crate) async fn refused(self) -> String {
        let finished = self.run().await;
        assert!(!finished.status.success(), "it must not start: {finished:?}");
        assert_eq!(finished.stdout, "", "{finished:?}");
        finished.stderr
    }
}

/// A process. Dropped, it is killed; if the test is failing, what it printed is shown.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) stdout: Text,
    pub(crate) stderr: Text,
    app: App,
    child: Child,
    folder: TempDir,
}

/// What is left of a process that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Running {
    /// The URL of the "listening" line.
    pub(crate) fn url(&self) -> String {
        announced(&self.stdout, "listening on ").expect("it listens")
    }

    /// Where the main listener is, if that is an address.
    pub(crate) fn address(&self) -> SocketAddr {
        let url = self.url();
        url.rsplit('/').next().unwrap().parse().unwrap_or_else(|_| panic!("an address: {url}"))
    }

    /// The URL of the listener for metrics.
    pub(crate) async fn metrics_url(&self) -> String {
        self.stdout.wait_for("metrics on ").await;
        announced(&self.stdout, "metrics on ").unwrap()
    }

    /// A plain client that has read its hello.
    pub(crate) async fn connect(&self) -> Client {
        self.connect_to(&self.app).await
    }

    /// A plain client of this app that has read its hello.
    pub(crate) async fn connect_to(&self, app: &App) -> Client {
        let path = format!("/app/{}?protocol=7&client=js&version=8.4.0", app.key);
        let mut client = Client::open(self.address(), &path, app.clone(), Options::default()).await;
        client.read_hello().await;
        client
    }

    /// A plain client that is upgraded, with further headers.
    pub(crate) async fn open(&self, path: &str, headers: &str) -> Client {
        Client::open(self.address(), path, self.app.clone(), Options { headers, ..Options::default() }).await
    }

    /// The app's backend.
    pub(crate) fn api(&self) -> Api {
        self.api_of(&self.app)
    }

    /// This app's backend.
    pub(crate) fn api_of(&self, app: &App) -> Api {
        Api::new(self.address(), app.clone())
    }

    /// Another command of Herald in the same folder; port and log are not inherited.
    pub(crate) fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
        command.env_clear().current_dir(self.folder.path()).args(args);
        command
    }

    /// The folder that it works in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "the process is there to be asked");
    }

    /// The lines of the log, which is JSON since stderr is no terminal.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = self.stderr.read();
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        text.lines().map(line).collect()
    }

    /// Waits for a line of the log that contains all of these.
    pub(crate) async fn logged(&self, parts: &[&str]) -> Value {
        let what = format!("{parts:?}");
        let line = self.stderr.wait_for_line(|line| parts.iter().all(|part| line.contains(part)), &what).await;
        serde_json::from_str(&line).unwrap()
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the process to end by itself, and for all that it printed.
    pub(crate) async fn finished(mut self) -> Finished {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                sleep(LOOK).await;
            }
        };
        let status = timeout(2 * DEADLINE, ended).await.expect("the process ends in time");
        self.stdout.at_end().await;
        self.stderr.at_end().await;
        Finished { status, stdout: self.stdout.read(), stderr: self.stderr.read() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        _ = self.child.kill();
        _ = self.child.wait();
        if thread::panicking() {
            eprintln!("stdout:\n{}\nstderr:\n{}", self.stdout.read(), self.stderr.read());
        }
    }
}

fn announced(stdout: &Text, beginning: &str) -> Option<String> {
    stdout.line_with(beginning).map(|line| line.strip_prefix(beginning).expect("a line of its own").to_owned())
}

/// What a process prints, as it comes.
#[derive(Clone, Debug)]
pub(crate) struct Text(Arc<Mutex<(String, bool)>>);

impl Text {
    /// Reads to the end, so that the process never blocks on it.
    pub(crate) fn of(from: impl Read + Send + 'static) -> Self {
        let text = Self(Arc::default());
        let shared = Arc::clone(&text.0);
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let mut shared = shared.lock().unwrap();
                shared.0.push_str(&line);
                shared.0.push('\n');
            }
            shared.lock().unwrap().1 = true;
        });
        text
    }

    /// All that came so far.
    pub(crate) fn read(&self) -> String {
        self.0.lock().unwrap().0.clone()
    }

    /// The first line that contains `part`.
    pub(crate) fn line_with(&self, part: &str) -> Option<String> {
        self.read().lines().find(|line| line.contains(part)).map(str::to_owned)
    }

    /// Waits for a line that contains `part`.
    pub(crate) async fn wait_for(&self, part: &str) -> String {
        self.wait_for_line(|line| line.contains(part), part).await
    }

    async fn wait_for_line(&self, is_it: impl Fn(&str) -> bool, what: &str) -> String {
        let found = async {
            loop {
                if let Some(line) = self.read().lines().find(|line| is_it(line)) {
                    return line.to_owned();
                }
                sleep(LOOK).await;
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("no line with {what} in time:\n{}", self.read()))
    }

    /// Waits until nothing more can come.
    pub(crate) async fn at_end(&self) {
        let ended = async {
            while !self.0.lock().unwrap().1 {
                sleep(LOOK).await;
            }
        };
        timeout(DEADLINE, ended).await.expect("the output ends with the process");
    }
}

/// A client for plain HTTP that asks no proxy.
pub(crate) fn http() -> reqwest::ClientBuilder {
    herald::outgoing::install_crypto();
    reqwest::Client::builder().no_proxy().timeout(DEADLINE)
}

/// Status and text of a `GET`.
pub(crate) async fn get(url: &str) -> (u16, String) {
    let answer = http().build().unwrap().get(url).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The path and query of a request that the newcomer's backend has signed.
pub(crate) fn signed(method: &str, path: &str, body: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let md5 = body_md5(body.as_bytes());
    let mut parameters = vec![("auth_key", "app-key"), ("auth_timestamp", &now), ("auth_version", "1.0")];
    if !body.is_empty() {
        parameters.push(("body_md5", &md5));
    }
    let text = request_string(method, path, parameters.iter().copied());
    let signature = Secret::new("app-secret").sign(text.as_bytes());
    parameters.push(("auth_signature", &signature));
    format!("{path}?{}", form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish())
}

/// How many TCP sockets a process listens on.
pub(crate) fn listening_sockets(process: u32) -> usize {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links: Vec<String> = files
        .filter_map(|file| Some(std::fs::read_link(file.ok()?.path()).ok()?.to_string_lossy().into_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap());
    let listening = tables.iter().flat_map(|table| table.lines()).filter(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.get(3) == Some(&"0A") && links.contains(&format!("socket:[{}]", columns[9]))
    });
    listening.count()
}
