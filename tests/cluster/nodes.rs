//! Some nodes of one cluster: servers of the test's own that share a Redis and a configuration.

use std::ops::{Deref, DerefMut};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toml::{Table, Value as Toml};

use crate::support::api::{Answer, Api};
use crate::support::{DEADLINE, Herald};

/// Options of nodes that soon take one another for dead, and so often compare what Redis holds with the truth. Others leave a busy machine
/// more time to let them say that they are alive.
pub(crate) const IMPATIENT: &str = "cluster.node_timeout = \"1s\"\n";

/// How often something that must come true is looked at.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// See the module; a slice of servers. Each is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Nodes {
    nodes: Vec<Herald>,
    urls: Vec<String>,
    config: Table,
}

impl Deref for Nodes {
    type Target = [Herald];

    fn deref(&self) -> &[Herald] {
        &self.nodes
    }
}

impl DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut [Herald] {
        &mut self.nodes
    }
}

impl Nodes {
    /// So many nodes on one Redis, with further options. Options of the cluster that they leave out are those of a cluster in a hurry.
    pub(crate) async fn start(url: &str, count: usize, config: &str) -> Self {
        Self::start_each(&vec![url; count], config).await
    }

    /// A node for each of these addresses, all of the same Redis.
    pub(crate) async fn start_each(urls: &[&str], config: &str) -> Self {
        Self::start_in(urls, config, &[]).await
    }

    /// The same with further variables in their environment.
    pub(crate) async fn start_in(urls: &[&str], config: &str, environment: &[(&str, &str)]) -> Self {
        let mut nodes = Self { nodes: Vec::new(), urls: Vec::new(), config: in_a_hurry(config) };
        for url in urls {
            nodes.nodes.push(Herald::start_with(nodes.config_at(url), environment).await);
            nodes.urls.push((*url).to_owned());
        }
        for node in &*nodes {
            until(node, "ready").await;
        }
        nodes
    }

    /// One more on the first one's Redis, whose sections have these options besides or instead.
    pub(crate) async fn join(&mut self, more: &str) {
        let url = self.urls[0].clone();
        let mut config = self.config_at(&url);
        for (name, options) in more.parse::<Table>().unwrap() {
            section(&mut config, &name).extend(options.as_table().unwrap().clone());
        }
        self.nodes.push(Herald::start_with(config, &[]).await);
        self.urls.push(url);
        until(&self[self.len() - 1], "ready").await;
    }

    /// What a node says that does not start with the same configuration, and so with a database of its own.
    pub(crate) async fn refusal(&self) -> String {
        let mut config = self.config_at(&self.urls[0]);
        section(&mut config, "server").insert("listen".to_owned(), "127.0.0.1:0".into());
        refusal(&config.to_string()).await
    }

    fn config_at(&self, url: &str) -> Table {
        let mut config = self.config.clone();
        let redis = section(section(&mut config, "cluster"), "redis");
        redis.insert("url".to_owned(), url.into());
        config
    }

    /// Puts a new node in the place of one that has ended.
    pub(crate) async fn replace(&mut self, position: usize) {
        let config = self.config_at(&self.urls[position]);
        self.nodes[position] = Herald::start_with(config, &[]).await;
        until(&self.nodes[position], "ready").await;
    }

    /// The backends, one for each node.
    pub(crate) fn apis(&self) -> Vec<Api> {
        self.nodes.iter().map(Herald::api).collect()
    }

    /// Waits until each node answers this question so.
    pub(crate) async fn until_all_say(&self, path: &str, parameters: &[(&str, &str)], answer: &Value) {
        for api in self.apis() {
            until_says(&api, path, parameters, answer).await;
        }
    }

    /// Waits until these are the members of a channel for whichever node is asked.
    pub(crate) async fn until_members_are(&self, channel: &str, users: &[&str]) {
        for api in self.apis() {
            until_members_are(&api, channel, users).await;
        }
    }

    /// The sum of a metric over some nodes, and over all labels.
    pub(crate) async fn sum(&self, positions: impl IntoIterator<Item = usize>, metric: &str) -> u64 {
        let mut sum = 0;
        for position in positions {
            let page = self.nodes[position].metrics().await;
            let value = |line: &str| {
                let rest = line.strip_prefix(metric)?;
                rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next()?.parse::<u64>().ok()).flatten()
            };
            sum += page.lines().filter_map(value).sum::<u64>();
        }
        sum
    }
}

/// The test's options, and what they leave out of `[cluster]` and `[metrics]`.
fn in_a_hurry(config: &str) -> Table {
    let mut config: Table = config.parse().expect("the test's configuration is TOML");
    let fill = |table: &mut Table, name: &str, value: &str| {
        table.entry(name).or_insert_with(|| Toml::from(value));
    };
    fill(section(&mut config, "metrics"), "listen", "127.0.0.1:0");
    let cluster = section(&mut config, "cluster");
    fill(cluster, "heartbeat", "100ms");
    fill(cluster, "node_timeout", "5s");
    fill(section(cluster, "redis"), "prefix", &format!("test-{:08x}", rand::random::<u32>()));
    config
}

fn section<'a>(table: &'a mut Table, name: &str) -> &'a mut Table {
    table.entry(name).or_insert_with(|| Table::new().into()).as_table_mut().unwrap()
}

/// `GET /health/ready`.
pub(crate) async fn health(node: &Herald) -> Answer {
    node.api().raw("GET /health/ready HTTP/1.1\r\nHost: health\r\nConnection: close\r\n\r\n").await
}

/// Waits until a node says this of itself.
pub(crate) async fn until(node: &Herald, status: &str) {
    let ask = async || health(node).await.json()["status"].as_str().map(str::to_owned);
    until_equal(&Some(status.to_owned()), "health", ask).await;
}

/// Waits until a node answers this question so.
pub(crate) async fn until_says(api: &Api, path: &str, parameters: &[(&str, &str)], answer: &Value) {
    until_equal(answer, path, async || api.get(path, parameters).await.json()).await;
}

/// Waits until a node names these as the members of a channel.
pub(crate) async fn until_members_are(api: &Api, channel: &str, users: &[&str]) {
    let mut users: Vec<Value> = users.iter().map(|user| json!({ "id": user })).collect();
    users.sort_by_key(ToString::to_string);
    until_equal(&Value::from(users), channel, async || members(api, channel).await).await;
}

/// The members of a channel, sorted.
pub(crate) async fn members(api: &Api, channel: &str) -> Value {
    let mut answer = api.get(&format!("/channels/{channel}/users"), &[]).await.json();
    if let Some(users) = answer["users"].as_array_mut() {
        users.sort_by_key(ToString::to_string);
        return answer["users"].take();
    }
    answer
}

/// Asks again and again until the answer is this.
pub(crate) async fn until_equal<T: PartialEq + std::fmt::Debug>(expected: &T, what: &str, ask: impl AsyncFn() -> T) {
    until_equal_within(DEADLINE, expected, what, ask).await;
}

/// The same for what takes its time.
pub(crate) async fn until_equal_within<T: PartialEq + std::fmt::Debug>(
    deadline: Duration,
    expected: &T,
    what: &str,
    ask: impl AsyncFn() -> T,
) {
    let start = Instant::now();
    loop {
        let found = ask().await;
        if found == *expected {
            return;
        }
        assert!(start.elapsed() < deadline, "{what} should become {expected:?}, and is {found:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// What a server says that does not start with this configuration.
pub(crate) async fn refusal(config: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("herald.toml");
    let apps = "\n[[apps]]\nid = \"app-id\"\nkey = \"app-key\"\nsecret = \"app-secret\"\n";
    let listening =
        if config.contains("listen") { "" } else { "server.listen = \"127.0.0.1:0\"\nmetrics.listen = \"off\"\n" };
    std::fs::write(&file, format!("{listening}{config}{apps}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_herald"));
    command.env_clear().env("HERALD_CONFIG", &file).current_dir(folder.path());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it started with:\n{config}");
        }
        tokio::time::sleep(LOOK).await;
    }
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "it ended, and said that all was well, with:\n{config}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
