//! What can be configured: sections of `herald.toml`, and the environment over them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use herald_protocol::Secret;
use serde::{Deserialize, Deserializer};

/// Everything that is configured.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where and how Herald listens.
    pub server: ServerOptions,
    /// How it ends.
    pub shutdown: ShutdownOptions,
    /// What holds for every client's connection.
    pub connection: ConnectionOptions,
    /// The applications.
    pub apps: Vec<AppOptions>,
}

/// Where Herald listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty = $default:expr $(, $with:literal)?;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* $(#[serde(deserialize_with = $with)])? pub $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! { /// Where and how Herald listens.
ServerOptions {
    /// Address and port, or `unix:/path`.
    listen: Listen = Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 6001))), "listen";
    /// What stands in front of `/app` and `/apps`.
    path_prefix: String = String::new();
    /// Connections of all apps.
    max_connections: Option<usize> = None;
    /// How long a request's head may take.
    handshake_timeout: Duration = Duration::from_secs(10), "duration";
    /// How long a request's body may take.
    request_timeout: Duration = Duration::from_secs(10), "duration";
} }
section! { /// How Herald ends.
ShutdownOptions {
    /// How long the listener goes on after the signal.
    delay: Duration = Duration::from_secs(2), "duration";
    /// Over how long the clients are sent away.
    drain: Duration = Duration::from_secs(10), "duration";
} }
section! { /// What holds for every client's connection.
ConnectionOptions {
    /// After how long a silent client pings by itself.
    activity_timeout: Duration = Duration::from_secs(60), "duration";
    /// How much later Herald pings it.
    activity_grace: Duration = Duration::from_secs(10), "duration";
    /// How long the answer may take.
    pong_timeout: Duration = Duration::from_secs(15), "duration";
    /// How long the socket may take nothing.
    write_deadline: Duration = Duration::from_secs(10), "duration";
    /// What may wait for the client.
    queue: QueueOptions = QueueOptions::default();
} }
section! { /// What may wait for one client.
QueueOptions {
    /// Bytes.
    max_bytes: usize = 1024 * 1024;
    /// Frames.
    max_frames: usize = 10_000;
} }
section! { /// One application.
AppOptions {
    /// In the paths of the HTTP API.
    id: String = String::new();
    /// Public: what clients connect with.
    key: String = String::new();
    /// What requests and authorizations are signed with.
    secret: Secret = Secret::new(""), "secret";
    /// Further pairs, while rotating.
    keys: Vec<KeyPair> = Vec::new();
    /// Whether anybody may connect or trigger.
    enabled: bool = true;
    /// Whether clients may send events to each other.
    client_events: bool = true;
    /// Origins of pages that may connect; empty means all.
    allowed_origins: Vec<String> = Vec::new();
    /// Whether clients without an origin are refused.
    require_origin: bool = false;
    /// Whether plain connections are refused.
    require_tls: bool = false;
    /// Until when a client must have signed in or subscribed with authorization.
    require_authorized_within: Option<Duration> = None, "optional_duration";
    /// Connections.
    max_connections: Option<usize> = None;
    /// How long a cache channel keeps its last event.
    cache_ttl: Duration = Duration::from_secs(30 * 60), "duration";
    /// Sizes and counts.
    limits: Limits = Limits::default();
} }
section! { /// Sizes and counts that an app allows.
Limits {
    /// Characters of a channel's name.
    channel_name: usize = 164;
    /// Characters of an event's name.
    event_name: usize = 200;
    /// Bytes of an event's data, decoded.
    event_data: usize = 10_240;
    /// Channels of one trigger.
    channels_per_trigger: usize = 100;
    /// Events of one batch.
    batch_events: usize = 10;
    /// Client events a second from one connection.
    client_events_per_second: usize = 10;
    /// Bytes of a member's info.
    presence_user_info: usize = 2_048;
    /// Members of one channel.
    presence_members: usize = 1_000;
    /// Subscriptions of one connection.
    subscriptions: usize = 1_000;
    /// Events a second triggered over HTTP; each event of a batch counts.
    events_per_second: Option<usize> = None;
    /// Reading requests a second.
    reads_per_second: Option<usize> = None;
} }

/// A further key and its secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyPair {
    /// Public.
    pub key: String,
    /// What it signs with.
    #[serde(deserialize_with = "secret")]
    pub secret: Secret,
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    humantime::parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn listen<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Listen, D::Error> {
    parse_listen(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn parse_listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Listen::Unix(path.into()));
    }
    text.parse().map(Listen::Tcp).map_err(|_| format!("{text:?} must be ADDRESS:PORT or unix:/PATH"))
}

/// Reads the file that `HERALD_CONFIG` names, and `HERALD_LISTEN`, `HERALD_APP_ID`, `_KEY`, `_SECRET` over it.
///
/// # Errors
/// Names the option, and what is allowed.
pub fn load(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Config> {
    let mut config = match variable("HERALD_CONFIG") {
        Some(path) => read(Path::new(&path))?,
        None => Config::default(),
    };
    if let Some(listen) = variable("HERALD_LISTEN") {
        config.server.listen = parse_listen(&listen).map_err(|error| anyhow::anyhow!("HERALD_LISTEN: {error}"))?;
    }
    let named = ["HERALD_APP_ID", "HERALD_APP_KEY", "HERALD_APP_SECRET"].map(&variable);
    match named {
        [Some(id), Some(key), Some(secret)] => {
            config.apps.retain(|app| app.id != id);
            config.apps.push(AppOptions { id, key, secret: Secret::new(secret), ..AppOptions::default() });
        }
        [None, None, None] => {}
        _ => {
            anyhow::bail!("HERALD_APP_ID, HERALD_APP_KEY and HERALD_APP_SECRET belong together: set all three or none")
        }
    }
    if config.apps.is_empty() {
        let local = match &config.server.listen {
            Listen::Tcp(address) => address.ip().is_loopback(),
            Listen::Unix(_) => true,
        };
        anyhow::ensure!(
            local,
            "no app is configured, and the newcomer's credentials are for loopback addresses only: set HERALD_APP_ID, HERALD_APP_KEY and HERALD_APP_SECRET"
        );
        let (id, key, secret) = ("app-id".to_owned(), "app-key".to_owned(), Secret::new("app-secret"));
        config.apps.push(AppOptions { id, key, secret, ..AppOptions::default() });
    }
    for app in &config.apps {
        let valid =
            (1..=64).contains(&app.id.len()) && app.id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        anyhow::ensure!(valid, "apps.id {:?}: 1 to 64 letters, digits, _ and - are allowed", app.id);
        anyhow::ensure!(!app.key.is_empty(), "apps.key of app {:?} is missing", app.id);
        anyhow::ensure!(!app.secret.is(""), "apps.secret of app {:?} is missing", app.id);
    }
    Ok(config)
}

fn read(path: &Path) -> anyhow::Result<Config> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    // The parser's own message quotes the line, which may hold a secret: only what is wrong and where is told.
    toml::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.message()))
}
