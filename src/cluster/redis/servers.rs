//! Which server holds a key: the one that is configured, the master that the Sentinels name, or, of a Redis Cluster, the one that has its
//! slot. Asked anew at the beginning of each session, so a failover or a slot that moves needs nothing but the end of a session.
//!
//! The redis crate's own clients for Sentinel and Cluster repeat commands on their own and subscribe on their own; here both would be wrong
//! (a publish twice, a subscription that is lost without a word), so it only makes the connections.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, FromRedisValue as _, IntoConnectionInfo as _, ProtocolVersion,
    RedisConnectionInfo, RedisError, RedisResult, Value,
};
use tokio::time::timeout;

use super::ANSWER;
use super::session::Ended;
use crate::config::{RedisKind, RedisUrl};

/// How long one of several servers may take to say whether it is the right one; then others are asked.
const LOOK: Duration = Duration::from_secs(1);

/// Name or IP address, and port.
pub(super) type Address = (String, u16);

/// See the module.
pub(super) struct Servers {
    url: RedisUrl,
    /// Where keys of a Redis Cluster were found: servers to begin with when those that are configured are gone.
    found: Mutex<HashMap<String, Address>>,
}

/// A server, and a connection to it.
pub(super) struct Server {
    pub(super) address: Address,
    pub(super) client: Client,
    pub(super) connection: MultiplexedConnection,
}

impl Servers {
    pub(super) fn new(url: &RedisUrl) -> Self {
        Self { url: url.clone(), found: Mutex::default() }
    }

    /// Whether they are a Redis Cluster.
    pub(super) fn are_shards(&self) -> bool {
        self.url.kind == RedisKind::Cluster
    }

    /// Connects to the server that holds a key now.
    pub(super) async fn of(&self, key: &str) -> Result<Server, Ended> {
        match &self.url.kind {
            RedisKind::Standalone => Ok(self.connect(&self.url.hosts[0], true).await?),
            RedisKind::Sentinel { master } => self.master(master).await,
            RedisKind::Cluster => self.shard(key).await,
        }
    }

    /// Returns when the Sentinels name another master, asked this often. One that was made a replica does not know before it is reconfigured,
    /// and what is written there until then is lost.
    pub(super) async fn until_replaced(&self, address: &Address, every: Duration) -> Ended {
        let RedisKind::Sentinel { master } = &self.url.kind else { return std::future::pending().await };
        loop {
            tokio::time::sleep(every).await;
            if self.named(master).await.is_ok_and(|named| named != *address) {
                return Ended::Moved;
            }
        }
    }

    async fn master(&self, name: &str) -> Result<Server, Ended> {
        let address = self.named(name).await?;
        let mut server = self.connect(&address, true).await?;
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut server.connection).await?;
        let role = role.into_iter().next().and_then(|role| String::from_redis_value(role).ok()).unwrap_or_default();
        if role == "master" {
            return Ok(server);
        }
        Err(Ended::NotFound(at(&address, format!("the Sentinels name it, but it is a {role}"))))
    }

    /// The master by the word of most of the Sentinels: of those, who has seen the latest failover is right. All are asked at once, so one
    /// that hangs holds nobody up.
    async fn named(&self, name: &str) -> Result<Address, Ended> {
        let asked = self.url.hosts.iter().map(|sentinel| async move {
            let named = timeout(LOOK, self.named_by(sentinel, name)).await;
            named.unwrap_or_else(|_| Err(format!("no answer within {LOOK:?}"))).map_err(|why| at(sentinel, why))
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut answers, mut latest, mut problems) = (0, None, Vec::new());
        while answers <= self.url.hosts.len() / 2
            && let Some(answer) = asked.next().await
        {
            match answer {
                Ok(named) => {
                    answers += 1;
                    latest = latest.max(Some(named));
                }
                Err(problem) => problems.push(problem),
            }
        }
        let none = || Ended::NotFound(format!("no Sentinel names a master {name:?}: {}", problems.join("; ")));
        latest.map(|(_epoch, address)| address).ok_or_else(none)
    }

    /// Which master one Sentinel names, behind the number of the failover that made it.
    async fn named_by(&self, sentinel: &Address, name: &str) -> Result<(u64, Address), String> {
        let ask = async |with_credentials| {
            let mut server = self.connect(sentinel, with_credentials).await?;
            let mut asked = redis::cmd("SENTINEL");
            asked.arg("MASTER").arg(name);
            asked.query_async::<HashMap<String, String>>(&mut server.connection).await
        };
        // Sentinels have a password of their own, or none; credentials are shown only to who asks for them.
        let answer = match ask(false).await {
            Err(error) if error.code() == Some("NOAUTH") => ask(true).await,
            answer => answer,
        };
        let mut master = answer.map_err(|error| error.to_string())?;
        let number = |field: &str| master.get(field).and_then(|number| number.parse::<u64>().ok());
        let found = number("config-epoch").zip(number("port").and_then(|port| u16::try_from(port).ok()));
        let (epoch, port) = found.ok_or("an answer without config-epoch or port")?;
        Ok((epoch, (master.remove("ip").ok_or("an answer without ip")?, port)))
    }

    /// Any server of a Redis Cluster names the one that has a key's slot.
    async fn shard(&self, key: &str) -> Result<Server, Ended> {
        let starts: Vec<Address> = {
            let found = self.found.lock();
            found.get(key).into_iter().chain(&self.url.hosts).chain(found.values()).cloned().collect()
        };
        let (mut asked, mut problems) = (HashSet::new(), Vec::new());
        for start in starts {
            let mut next = Some(start);
            while let Some(address) = next.take()
                && asked.insert(address.clone())
            {
                match timeout(LOOK, self.holder(&address, key)).await {
                    Ok(Ok(server)) => {
                        self.found.lock().insert(key.to_owned(), address);
                        return Ok(server);
                    }
                    Ok(Err(error)) => {
                        next = moved(&error, &address.0);
                        problems.push(at(&address, error));
                    }
                    Err(_) => problems.push(at(&address, format!("no answer within {LOOK:?}"))),
                }
            }
        }
        Err(Ended::NotFound(format!("no server of the Redis Cluster has its slot: {}", problems.join("; "))))
    }

    async fn holder(&self, address: &Address, key: &str) -> RedisResult<Server> {
        let mut server = self.connect(address, true).await?;
        redis::cmd("EXISTS").arg(key).query_async::<()>(&mut server.connection).await?;
        Ok(server)
    }

    async fn connect(&self, address: &Address, with_credentials: bool) -> RedisResult<Server> {
        let (host, port) = address.clone();
        let info = if self.url.is_tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        // Version 3 of Redis's protocol tells messages from answers.
        // What the library would tell of itself, newer servers log as denied to the user that the documentation names.
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_skip_set_lib_name();
        if with_credentials {
            settings = settings.set_db(self.url.database.into());
            if let Some(user) = &self.url.user {
                settings = settings.set_username(user);
            }
            if let Some(password) = &self.url.password {
                settings = settings.set_password(password);
            }
        }
        let client = Client::open(info.into_connection_info()?.set_redis_settings(settings))?;
        let connection = client.get_multiplexed_async_connection_with_config(&patience()).await?;
        Ok(Server { address: address.clone(), client, connection })
    }
}

/// With how much patience a server is connected to and asked.
pub(super) fn patience() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER))
}

/// Where the answer sends the asker; without a host it is another port of the host that was asked.
fn moved(error: &RedisError, asked: &str) -> Option<Address> {
    let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
    Some((if host.is_empty() { asked } else { host }.to_owned(), port.parse().ok()?))
}

fn at((host, port): &Address, what: impl Display) -> String {
    format!("{host}:{port}: {what}")
}
