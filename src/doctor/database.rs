//! Where users and notifications are kept: whether it answers, its tables, and the keys of what is encrypted there.

use super::{Findings, Patient};
use crate::rotation;
use crate::store::open::{Examined, examine};

pub(super) async fn check(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let config = patient.config();
    let Examined { name, version, tables, tokens } = match examine(config).await {
        Ok(examined) => examined,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(super::reason);
            let text = cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            findings.wrong(text, "look whether it runs, and at database.url (DATABASE_URL) or server.data_dir");
            return findings;
        }
    };
    findings.ok(match version {
        Some(version) => format!("{name} answers, version {version}"),
        None => format!("{name} can be written to"),
    });
    match tables {
        None => {}
        Some(error) if error.is_behind() && config.database.migrate => {
            let text = "its tables are those of an older version, or not there";
            findings.hint(text, "the next start makes them, or `herald migrate`");
        }
        Some(error) => findings.wrong(error.to_string(), "`herald migrate` brings them up to date"),
    }
    let missing = rotation::without_key(tokens, config.tokens.keys.as_ref());
    if !missing.is_empty() {
        let missing: Vec<String> = missing.iter().map(|(key, tokens)| format!("{key:?} ({tokens})")).collect();
        findings.wrong(
            format!("stored tokens need keys that are not configured: {}", missing.join(", ")),
            "tokens.keys (HERALD_TOKEN_KEYS) must have them until `herald rotate-keys` is done",
        );
    }
    findings
}
