//! A Herald with users of its own and an empty store, for what is kept: in a folder, or in a schema of a Postgres.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use crate::server::Server;

/// Writes that are synced for comparison, and their size.
const SYNCED: u32 = 200;
const PAGE: usize = 4_096;
/// The key pair of the tests: it signs nothing elsewhere.
const KEYS: &str = include_str!("../../../tests/vectors/clerk_jwt.json");

/// See the module; dropped, the server ends and its folder goes. A schema stays, under a name that begins with `load_`.
pub(crate) struct Kept {
    pub(crate) server: Server,
    folder: Folder,
}

impl Kept {
    /// Starts Herald over SQLite, or over this Postgres.
    pub(crate) fn start(herald: &Path, postgres: Option<&str>) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let data = folder.0.to_string_lossy().into_owned();
        let schema = format!("load_{}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
        let key = key("test_public_key_pem")?;
        let mut environment = vec![
            ("HERALD_DATA_DIR", data.as_str()),
            ("HERALD_LOG_LEVEL", "warn"),
            // What is measured is how much can be asked, not how much may.
            ("HERALD_LIMITS_AUTH", "off"),
            ("HERALD_LIMITS_SERVERS", "off"),
            ("HERALD_AUTH_JWT_KEY", key.as_str()),
            ("HERALD_CLERK_AUTHORIZED_PARTIES", "https://app.example.com"),
        ];
        if let Some(url) = postgres {
            environment.extend([("HERALD_DATABASE_URL", url), ("HERALD_DB_SCHEMA", &schema)]);
        }
        Ok(Self { server: Server::herald(herald, &environment)?, folder })
    }

    /// Milliseconds that a page takes to be on the disk that the folder is on.
    pub(crate) fn synced_ms(&self) -> anyhow::Result<f64> {
        let mut file = File::create(self.folder.0.join("synced"))?;
        let begun = Instant::now();
        for _ in 0..SYNCED {
            file.write_all(&[7; PAGE])?;
            file.sync_data()?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e3 / f64::from(SYNCED))
    }
}

/// A folder of one round; it goes with this.
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
        let path = std::env::temp_dir().join(format!("herald-loadtest-{}-{now}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left lies in the folder for what may be deleted.
        _ = std::fs::remove_dir_all(&self.0);
    }
}

fn key(member: &str) -> anyhow::Result<String> {
    let keys: Value = serde_json::from_str(KEYS)?;
    let key = keys["test_keys"]["a"][member].as_str();
    Ok(key.with_context(|| format!("the vectors have no {member}"))?.to_owned())
}

/// A session token of this user as Clerk signs it, valid for an hour.
pub(crate) fn token(user: &str) -> anyhow::Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": key("kid")?, "cat": "cl_B7d4PD111AAA" });
    let claims = json!({
        "v": 2, "sub": user, "sid": "sess_1", "azp": "https://app.example.com", "sts": "active",
        "iat": now, "nbf": now - 10, "exp": now + 3_600,
    });
    let encoded = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", encoded(&header), encoded(&claims));
    let private_key = key("test_private_key_pem")?;
    let body: String = private_key.lines().filter(|line| !line.starts_with("-----")).collect();
    let pair = RsaKeyPair::from_pkcs8(&BASE64.decode(body.as_bytes())?).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut signature = vec![0; pair.public().modulus_len()];
    let done = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
    done.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_three_parts() {
        assert_eq!(token("user_2abc").unwrap().split('.').count(), 3);
    }
}
