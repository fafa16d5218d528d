//! Sentry: whether a connection is taken where reports go. Nothing is sent over it.

use super::{Findings, Patient};
use crate::integrations::sentry::health;

pub(super) async fn check(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let Some(dsn) = &patient.config().sentry.dsn else { return findings };
    match health::check(dsn).await {
        Ok(()) => findings.ok("a connection is taken where reports go"),
        Err(why) => findings.wrong(
            format!("reports cannot be sent: {why}"),
            "look at the host in SENTRY_DSN, and whether this machine may reach it",
        ),
    }
    findings
}
