//! Crisp: whether it takes the token, and whether replies can reach anybody.

use super::{Findings, Patient};
use crate::integrations::crisp::Crisp;
use crate::outgoing::problem::CallProblem;

pub(super) async fn check(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let options = &patient.config().integrations.crisp;
    let Some(crisp) = Crisp::of(options, &patient.outgoing) else { return findings };
    let asked = match &crisp.rest {
        None => None,
        Some(rest) => Some(rest.ping().await),
    };
    match asked {
        None => findings.hint(
            "no token for the REST API: where a hook does not say whose a conversation is, its replies reach nobody, and backends cannot write",
            "docs/support.md: CRISP_TOKEN_ID and CRISP_TOKEN_KEY",
        ),
        Some(Ok(())) => findings.ok("its REST API takes the token"),
        Some(Err(CallProblem::Status(status))) if status.is_client_error() => findings.wrong(
            format!("its REST API answers {status}: the token is refused, or not one for this website"),
            format!(
                "take identifier and key from Crisp; it is used as a {} token (CRISP_TIER)",
                options.tier.as_str()
            ),
        ),
        Some(Err(problem)) => findings.wrong(
            format!("its REST API: {problem}"),
            "look whether this machine may reach it by HTTPS (integrations.crisp.api_url)",
        ),
    }
    if !crisp.trusted.is_any() {
        let text = "no hooks: replies of the support are no notifications";
        findings
            .hint(text, "docs/support.md: a hook at /webhooks/crisp, and CRISP_SIGNING_SECRET or CRISP_WEBHOOK_KEY");
    }
    if crisp.identity_secret.is_none() {
        let text = "addresses are not signed: Crisp verifies none that a page gives it, so conversations stay nobody's";
        findings.hint(text, "docs/support.md: CRISP_IDENTITY_SECRET");
    }
    if patient.config().auth.is_clerk() && patient.config().auth.webhook_secret.is_none() {
        let text = "no webhooks of Clerk's: users' addresses, by which conversations become theirs, are not told";
        findings.hint(text, "docs/clerk.md: an endpoint at /webhooks/clerk, and CLERK_WEBHOOK_SIGNING_SECRET");
    }
    findings
}
