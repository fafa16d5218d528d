//! The Redis that joins the nodes.

use super::{Findings, Patient};
use crate::cluster::redis::examine;

/// The oldest that has what Herald needs.
const OLDEST: u32 = 7;

pub(super) async fn check(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let Some(url) = &patient.config().cluster.redis.url else { return findings };
    let seen = match examine(url).await {
        Ok(seen) => seen,
        Err(why) => {
            let mend = match why.contains("NOAUTH") || why.contains("WRONGPASS") {
                true => "cluster.redis.url must hold its password (REDIS_PASSWORD)",
                false => "look whether it runs, and at cluster.redis.url (REDIS_URL); rediss:// is with TLS",
            };
            findings.wrong(format!("{url} cannot be used: {why}"), mend);
            return findings;
        }
    };
    let version = seen.version.as_deref().unwrap_or("unknown");
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major < OLDEST) {
        findings.wrong(format!("{url} is Redis {version}"), "7.0 or later is needed, or Valkey");
    } else {
        findings.ok(format!("{url} answers, version {version}"));
    }
    match seen.policy.as_deref() {
        Some("noeviction") => findings.ok("it throws nothing away (noeviction)"),
        Some(policy) => findings.wrong(
            format!("it throws keys away when its memory is full ({policy}): members and counts would go"),
            "CONFIG SET maxmemory-policy noeviction, and in its file",
        ),
        None => findings
            .hint("what it does when its memory is full is not known", "its maxmemory-policy must be noeviction"),
    }
    findings
}
