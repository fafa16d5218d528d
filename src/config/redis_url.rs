//! Where the Redis is that joins the nodes, and who Herald is there: one URL, whether it is one server, several Sentinels or a Redis
//! Cluster. A URL has one host in the books; here it may have several, so it is taken apart by hand.
//!
//! Always: a user, a password and what is no such URL are shown to nobody.

use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;

/// Where Redis and the nodes of a Redis Cluster listen if nothing else is said.
const REDIS_PORT: u16 = 6379;
/// The same for Sentinels.
const SENTINEL_PORT: u16 = 26379;

/// See the module. Shown without the user and the password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// What is at the hosts.
    pub kind: RedisKind,
    /// Names or addresses (an IPv6 address without brackets) and ports: at least one, and exactly one of a standalone Redis.
    pub hosts: Vec<(String, u16)>,
    /// Who Herald is there; `None` is Redis's default user.
    pub user: Option<String>,
    /// Empty for a user that needs none.
    pub password: Option<String>,
    /// The number of the database; 0 on a Redis Cluster, which has no others.
    pub database: u16,
    /// Whether all connections are encrypted.
    pub is_tls: bool,
}

/// What is at the hosts of a [`RedisUrl`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisKind {
    /// The Redis.
    Standalone,
    /// Sentinels that know where it is.
    Sentinel {
        /// What they call it.
        master: String,
    },
    /// Some of the nodes that it consists of.
    Cluster,
}

impl RedisUrl {
    /// `None` where it is not one of the forms that the documentation names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));

        let (kind, is_tls) = kind(scheme, query)?;
        let port = if matches!(kind, RedisKind::Sentinel { .. }) { SENTINEL_PORT } else { REDIS_PORT };
        let hosts: Vec<_> = hosts.split(',').map(|text| host(text, port)).collect::<Option<_>>()?;
        let (user, password) = user_and_password(credentials)?;
        let database = if database.is_empty() { 0 } else { number(database)? };
        let is_possible = match kind {
            RedisKind::Standalone => hosts.len() == 1,
            RedisKind::Sentinel { .. } => true,
            RedisKind::Cluster => database == 0,
        };
        is_possible.then_some(Self { kind, hosts, user, password, database, is_tls })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "rediss" } else { "redis" };
        let (flavour, rest) = match &self.kind {
            RedisKind::Standalone => ("", format!("/{}", self.database)),
            RedisKind::Sentinel { master } => ("-sentinel", format!("/{}?master={master}", self.database)),
            RedisKind::Cluster => ("-cluster", String::new()),
        };
        let hosts: Vec<String> = self.hosts.iter().map(|(host, port)| written(host, *port)).collect();
        write!(f, "{scheme}{flavour}://{}{rest}", hosts.join(","))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the scheme and the parameters say, and whether it is over TLS.
fn kind(scheme: &str, query: &str) -> Option<(RedisKind, bool)> {
    let (flavour, is_tls) = match scheme.strip_prefix("rediss") {
        Some(flavour) => (flavour, true),
        None => (scheme.strip_prefix("redis")?, false),
    };
    let kind = match (flavour, query) {
        ("", "") => RedisKind::Standalone,
        ("-cluster", "") => RedisKind::Cluster,
        ("-sentinel", query) => {
            let master = query.strip_prefix("master=").filter(|name| is_word(name))?;
            RedisKind::Sentinel { master: master.to_owned() }
        }
        _ => return None,
    };
    Some((kind, is_tls))
}

fn host(text: &str, default_port: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (address, port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            if !is_word(name) {
                return None;
            }
            (name, port)
        }
    };
    let port = if port.is_empty() { default_port } else { number(port.strip_prefix(':')?)? };
    (port > 0).then(|| (host.to_owned(), port))
}

/// A user alone is one that needs no password.
fn user_and_password(credentials: &str) -> Option<(Option<String>, Option<String>)> {
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let decoded = |text| percent_decode_str(text).decode_utf8().ok().map(String::from);
    let (user, password) = (decoded(user)?, decoded(password)?);
    let user = Some(user).filter(|user| !user.is_empty());
    let password = Some(password).filter(|password| user.is_some() || !password.is_empty());
    Some((user, password))
}

fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// What hosts are made of; Sentinels allow the same for the name of a master.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

fn written(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap_or_else(|| panic!("{text} is allowed"))
    }

    #[test]
    fn each_form_is_read_and_shown_without_its_credentials() {
        for (written, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://ann:hunter2@redis.internal:7000/15", "redis://redis.internal:7000/15"),
            ("rediss://[::1]:7000/", "rediss://[::1]:7000/0"),
            ("rediss://[2001:db8::7]/3", "rediss://[2001:db8::7]:6379/3"),
            ("redis-sentinel://a?master=main", "redis-sentinel://a:26379/0?master=main"),
            (
                "rediss-sentinel://ann:hunter2@a,b:7001,[::1]/2?master=my.main-1_x",
                "rediss-sentinel://a:26379,b:7001,[::1]:26379/2?master=my.main-1_x",
            ),
            ("redis-cluster://a", "redis-cluster://a:6379"),
            ("redis-cluster://a:1,10.0.0.2:65535/0", "redis-cluster://a:1,10.0.0.2:65535"),
            ("rediss-cluster://:hunter2@a,[::1]:7002", "rediss-cluster://a:6379,[::1]:7002"),
        ] {
            let url = parsed(written);
            assert_eq!(url.to_string(), shown, "{written}");
            assert_eq!(format!("{url:?}"), shown, "{written}");
            assert_eq!(
                parsed(shown),
                RedisUrl { user: None, password: None, ..url },
                "what is shown is read as the same"
            );
        }
    }

    #[test]
    fn user_and_password_are_decoded() {
        for (credentials, user, password) in [
            ("", None, None),
            ("@", None, None),
            (":@", None, None),
            (":p@", None, Some("p")),
            ("ann:p@", Some("ann"), Some("p")),
            ("ann@", Some("ann"), Some("")),
            ("ann:@", Some("ann"), Some("")),
            ("a%3Ab:s3cret%2Fp%40ss%2Bw:rd+%25@", Some("a:b"), Some("s3cret/p@ss+w:rd+%")),
            ("ann:p@ss@", Some("ann"), Some("p@ss")),
            ("%C3%A4nn:%E2%82%AC@", Some("änn"), Some("€")),
        ] {
            for (scheme, rest) in [("redis", ""), ("rediss-sentinel", ",other/1?master=m"), ("redis-cluster", ",other")]
            {
                let url = parsed(&format!("{scheme}://{credentials}host{rest}"));
                assert_eq!((url.user.as_deref(), url.password.as_deref()), (user, password), "{credentials}");
                assert_eq!(url.hosts[0].0, "host");
            }
        }
    }

    #[test]
    fn what_is_none_of_the_forms_is_refused() {
        for text in [
            "",
            "host",
            "host:6379",
            "redis:host",
            "redis//host",
            "http://host",
            "redisss://host",
            "redis-://host",
            "redis-sentinels://host?master=m",
            "redis+cluster://host",
            "redis://",
            "redis:///1",
            "redis://user:pass@",
            "redis://:6379",
            "redis://a,b",
            "redis://a:0",
            "redis://a:65536",
            "redis://a:+1",
            "redis://a:",
            "redis://a:b:1",
            "redis://a b",
            "redis://::1",
            "redis://[::1",
            "redis://[::1]7000",
            "redis://[host]:7000",
            "redis://a/65536",
            "redis://a/-1",
            "redis://a/one",
            "redis://a/0/1",
            "redis://a?protocol=resp3",
            "redis://a?protocol",
            "redis://a?master=m",
            "redis://a#insecure",
            "rediss://a/0#insecure",
            "redis://ann:%FF@a",
            "redis-sentinel://a",
            "redis-sentinel://a?master",
            "redis-sentinel://a?master=",
            "redis-sentinel://a?master=m&",
            "redis-sentinel://a?master=m&master=n",
            "redis-sentinel://a?master=m&db=1",
            "redis-sentinel://a?Master=m",
            "redis-sentinel://a?db=1",
            "redis-sentinel://a,?master=m",
            "redis-sentinel://,a?master=m",
            "redis-sentinel://a,,b?master=m",
            "redis-sentinel://a, b?master=m",
            "redis-cluster://a/1",
            "redis-cluster://a,",
            "redis-cluster://a:0,b",
            "redis-cluster://a?master=m",
        ] {
            assert_eq!(RedisUrl::parse(text), None, "{text}");
        }
    }
}
