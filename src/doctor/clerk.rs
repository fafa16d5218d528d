//! Clerk, or the other issuer: whether its keys are there, and are those that are configured.

use axum::http::HeaderMap;
use serde_json::Value;

use super::{Findings, Patient};
use crate::identity::{Algorithm, KeySet};
use crate::integrations::clerk::users;

pub(super) async fn check(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let auth = &patient.config().auth;
    if auth.jwt_key.is_none() && auth.publishable_key.is_none() && auth.secret_key.is_none() {
        return findings;
    }
    let secret = auth.secret_key.as_ref();
    let (is_test, is_live) = (
        secret.is_some_and(|key| key.expose().starts_with("sk_test_")),
        secret.is_some_and(|key| key.expose().starts_with("sk_live_")),
    );
    let development = auth.publishable_key.as_ref().map(|key| key.is_development());
    match (development, is_test, is_live) {
        (Some(false), true, _) => findings.wrong(
            "the publishable key is a production instance's, the secret key a development instance's",
            "take both from the same instance's page in Clerk's dashboard",
        ),
        (Some(true), _, true) => findings.wrong(
            "the publishable key is a development instance's, the secret key a production instance's",
            "take both from the same instance's page in Clerk's dashboard",
        ),
        _ => {}
    }
    if patient.is_in_production() && (development == Some(true) || is_test) {
        let text = "keys of a development instance (pk_test_, sk_test_) where people depend on it";
        findings.wrong(text, "take those of the production instance (pk_live_, sk_live_)");
    }
    let of_instance = match &auth.publishable_key {
        None => None,
        Some(key) => {
            keys(patient, "the instance of the publishable key", &key.jwks_url(), HeaderMap::new(), &mut findings).await
        }
    };
    let of_secret = match secret {
        None => None,
        Some(secret) => {
            let url = format!("{}/v1/jwks", auth.api_url.trim_end_matches('/'));
            keys(patient, "the instance of the secret key", &url, users::headers(secret), &mut findings).await
        }
    };
    if let (Some(of_instance), Some(of_secret)) = (&of_instance, &of_secret)
        && !of_instance.shares_one_with(of_secret)
    {
        findings.wrong(
            "the publishable key and the secret key are of different instances",
            "take both from the same instance's page in Clerk's dashboard",
        );
    }
    if let Some(own) = &auth.jwt_key
        && let Some(published) = of_instance.or(of_secret)
    {
        match own.iter().filter(|key| published.has(key)).count() {
            0 => findings.wrong(
                "auth.jwt_key (CLERK_JWT_KEY) is none of the keys that the instance publishes: every token is refused",
                "copy the JWKS public key from Clerk's dashboard anew",
            ),
            _ => findings.ok("auth.jwt_key is the instance's"),
        }
    }
    if auth.webhook_secret.is_none() {
        let text = "no webhooks: connections of sessions that end, and of users that are banned, live on";
        findings.hint(text, "docs/clerk.md: an endpoint at /webhooks/clerk, and CLERK_WEBHOOK_SIGNING_SECRET");
    }
    findings
}

/// The keys that are published there.
async fn keys(
    patient: &Patient,
    whose: &str,
    url: &str,
    headers: HeaderMap,
    findings: &mut Findings,
) -> Option<KeySet> {
    let answer = match patient.get(url, headers).await {
        Ok(answer) => answer,
        Err(why) => {
            findings
                .wrong(format!("{whose} cannot be asked: {why}"), "look whether this machine may reach it by HTTPS");
            return None;
        }
    };
    if matches!(answer.status.as_u16(), 401 | 403) {
        findings.wrong(
            format!("{whose}: the key is refused"),
            "it was changed or is another instance's: take it from Clerk's dashboard",
        );
        return None;
    }
    match KeySet::parse(&answer.body, &[Algorithm::Rs256]) {
        Ok(keys) if answer.status.is_success() => {
            findings.ok(format!("{whose} answers"));
            Some(keys)
        }
        _ => {
            let text = format!("{whose} answers {} without keys", answer.status.as_u16());
            findings.wrong(text, "the key may be of an instance that is gone");
            None
        }
    }
}

/// Another issuer in place of Clerk.
pub(super) async fn oidc(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let oidc = &patient.config().auth.oidc;
    let Some(issuer) = &oidc.issuer else { return findings };
    let mut url = oidc.jwks_url.clone();
    if url.is_none() {
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found = patient.get(&address, HeaderMap::new()).await.map(|answer| answer.body);
        let found: Option<Value> = found.ok().and_then(|body| serde_json::from_slice(&body).ok());
        match found.filter(|found| found["issuer"] == **issuer) {
            Some(found) => url = found["jwks_uri"].as_str().map(str::to_owned),
            None => {
                let text = "the issuer has no discovery document of that name";
                findings.wrong(text, "auth.oidc.issuer must be written as its tokens have it, or auth.oidc.jwks_url says where its keys are");
            }
        }
    }
    if let Some(url) = url {
        match patient.get(&url, HeaderMap::new()).await.map(|answer| KeySet::parse(&answer.body, &oidc.algorithms)) {
            Ok(Ok(_)) => findings.ok("the issuer publishes its keys"),
            Ok(Err(error)) => findings.wrong(format!("the issuer's keys: {error}"), "auth.oidc.jwks_url"),
            Err(why) => findings
                .wrong(format!("the issuer's keys cannot be had: {why}"), "look whether this machine may reach them"),
        }
    }
    findings
}
