//! Where users' tokens of other services are refreshed: whether each token endpoint can be reached. A refresh is not tried, since it would use
//! somebody's token up.

use axum::http::HeaderMap;
use futures_util::future::join_all;

use super::{Findings, Patient};

pub(super) async fn check(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let config = patient.config();
    let services = &config.integrations.oauth;
    let endpoints = services.iter().filter_map(|(name, options)| Some((name, options.token_url.as_ref()?)));
    let asked = endpoints.map(|(name, url)| async move { (name, patient.get(url.as_str(), HeaderMap::new()).await) });
    for (name, answer) in join_all(asked).await {
        match answer {
            // It takes nothing but POST.
            Ok(_) => findings.ok(format!("the token endpoint of {name} answers")),
            Err(why) => findings.wrong(
                format!("the token endpoint of {name} cannot be asked: {why}"),
                format!("look at integrations.oauth.{name}.token_url, and whether this machine may reach it by HTTPS"),
            ),
        }
    }
    if !services.is_empty() && config.tokens.keys.is_none() {
        findings.wrong(
            "users' tokens cannot be kept: there is no key to encrypt them with",
            "docs/integrations.md: HERALD_TOKEN_KEYS",
        );
    }
    findings
}
