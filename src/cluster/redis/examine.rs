//! What `herald doctor` sees of the Redis: nothing is written.

use super::servers::Servers;
use crate::config::RedisUrl;

/// A Redis that answers.
#[derive(Debug)]
pub struct Seen {
    /// Its version, or the one of Redis that it is like.
    pub version: Option<String>,
    /// What it does when its memory is full.
    pub policy: Option<String>,
}

/// Connects as a node does, to the server that holds a key of Herald's.
///
/// # Errors
/// Why it cannot be used, without who Herald is there.
pub async fn examine(url: &RedisUrl) -> Result<Seen, String> {
    let mut server = Servers::new(url).of("herald").await.map_err(|ended| ended.to_string())?;
    redis::cmd("PING").query_async::<()>(&mut server.connection).await.map_err(|error| error.to_string())?;
    let info: Option<String> = redis::cmd("INFO").query_async(&mut server.connection).await.ok(); // it may be forbidden
    let field = |name: &str| {
        let lines = info.as_deref().unwrap_or_default().lines();
        let value = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned());
        lines.filter_map(value).next()
    };
    Ok(Seen { version: field("valkey_version").or_else(|| field("redis_version")), policy: field("maxmemory_policy") })
}
