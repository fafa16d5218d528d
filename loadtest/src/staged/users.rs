//! A Herald that knows users: a key to check their session tokens with, a store for their inboxes, and no limit on what may be asked.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::server::Server;
use crate::target::Site;

/// Backends that ask at once, and users whom they ask about.
pub(super) const BACKENDS: usize = 8;
pub(super) const USERS: usize = 1_000;
/// The key pair of the tests: it signs nothing elsewhere.
const KEYS: &str = include_str!("../../../tests/vectors/clerk_jwt.json");

/// Where notifications are kept.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Options {
    /// A Postgres, in which a schema is made for each round, such as postgres://user@127.0.0.1/database; without it, SQLite in an empty folder
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
}

/// See the module.
pub(super) struct Users {
    // In the order in which they end: the folder goes last.
    pub(super) server: Server,
    key: Key,
    folder: Folder,
}

struct Key {
    id: String,
    private: String,
}

/// A folder of one round; it goes with this.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left lies in the folder for what may be deleted.
        _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Users {
    pub(super) fn start(herald: &Path, options: &Options) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let folder = Folder(std::env::temp_dir().join(format!("herald-loadtest-{}-{now}", std::process::id())));
        std::fs::create_dir(&folder.0).with_context(|| folder.0.display().to_string())?;
        let keys: Value = serde_json::from_str(KEYS)?;
        let key = |member: &str| {
            let key = keys["test_keys"]["a"][member].as_str();
            key.map(str::to_owned).with_context(|| format!("the vectors have no {member}"))
        };
        let (data, schema, public) = (folder.0.to_string_lossy(), format!("load_{now}"), key("test_public_key_pem")?);
        let mut environment = vec![
            ("HERALD_DATA_DIR", &*data),
            ("HERALD_LOG_LEVEL", "warn"),
            // What is measured is how much can be asked, not how much may.
            ("HERALD_LIMITS_SERVERS", "off"),
            ("HERALD_LIMITS_AUTH", "off"),
            ("HERALD_LIMITS_INBOX_READS", "off"),
            ("HERALD_AUTH_JWT_KEY", &public),
            ("HERALD_CLERK_AUTHORIZED_PARTIES", "https://app.example.com"),
        ];
        if let Some(url) = &options.postgres {
            environment.extend([("HERALD_DATABASE_URL", url.as_str()), ("HERALD_DB_SCHEMA", &schema)]);
        }
        let server = Server::herald(herald, &environment)?;
        Ok(Self { server, key: Key { id: key("kid")?, private: key("test_private_key_pem")? }, folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// A backend's request that creates a notification.
    pub(super) fn creation(&self, user: &str, title: &str) -> String {
        let body = json!({
            "to": { "user_ids": [user] }, "type": "comment.mentioned", "title": title, "message": "Jane mentioned you in a comment",
            "action_url": "/posts/1#c1", "actor": { "id": "user_2def", "name": "Jane" },
        });
        let Site { address, app } = self.server.target().site;
        app.request(address, "POST", "notifications", &[], &body.to_string())
    }

    /// A request of a client for its user's own channel.
    pub(super) fn authorization(&self) -> anyhow::Result<String> {
        let body = "socket_id=1.1&channel_name=private-user-user_2abc";
        Ok(format!(
            "POST /pusher/auth HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            self.server.address,
            self.key.token()?,
            body.len()
        ))
    }
}

impl Key {
    /// A session token as Clerk signs it, valid for an hour.
    fn token(&self) -> anyhow::Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.id, "cat": "cl_B7d4PD111AAA" });
        let claims = json!({
            "v": 2, "sub": "user_2abc", "sid": "sess_1", "azp": "https://app.example.com", "sts": "active",
            "iat": now, "nbf": now - 10, "exp": now + 3_600,
        });
        let encoded = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", encoded(&header), encoded(&claims));
        let body: String = self.private.lines().filter(|line| !line.starts_with("-----")).collect();
        let pair =
            RsaKeyPair::from_pkcs8(&BASE64.decode(body.as_bytes())?).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut signature = vec![0; pair.public().modulus_len()];
        let done = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
        done.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts() {
        let keys: Value = serde_json::from_str(KEYS).unwrap();
        let key = |member: &str| keys["test_keys"]["a"][member].as_str().unwrap().to_owned();
        let key = Key { id: key("kid"), private: key("test_private_key_pem") };
        assert_eq!(key.token().unwrap().split('.').count(), 3);
    }
}
