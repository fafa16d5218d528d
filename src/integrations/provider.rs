//! The identity provider that is configured: what its tokens must be like, its keys, and what its users may subscribe to.

use std::sync::Arc;
use std::time::Duration;

use super::authorizer::Authorizer;
use super::clerk::users::{self, Users};
use super::jwks::{Jwks, NoKeys, Source};
use crate::config::{AuthDefault, AuthOptions, Config, RuleOptions};
use crate::identity::rules::{Policy, Rule};
use crate::identity::token::{ClaimNames, Profile};
use crate::identity::{Algorithm, Identity, Key, Rules, Token, TokenError};
use crate::outgoing::Outgoing;
use crate::outgoing::problem::CallProblem;

/// See the module.
#[derive(Debug)]
pub struct Provider {
    rules: Rules,
    keys: Keys,
    /// Who may subscribe to what.
    pub policy: Policy,
    /// Who is asked where no rule speaks.
    pub authorizer: Option<Authorizer>,
    /// Who knows users of whom nothing was told yet.
    pub users: Option<Arc<Users>>,
}

fn rule(rule: &RuleOptions) -> Rule {
    Rule { channels: rule.channels.clone(), org_roles: rule.org_roles.clone() }
}

/// Clerk's session tokens; `None` if no key is configured, nor where there is one.
fn clerk(auth: &AuthOptions, outgoing: &Outgoing) -> Option<(Rules, Keys)> {
    let published = || {
        let of_instance = auth.publishable_key.as_ref().map(|key| Source::Url(key.jwks_url()));
        let of_backend = || {
            let secret = auth.secret_key.as_ref()?;
            Some(Source::With(format!("{}/v1/jwks", auth.api_url), users::headers(secret)))
        };
        let source = of_instance.or_else(of_backend)?;
        Some(Keys::Published(Box::new(Jwks::new(source, outgoing.service("clerk.jwks"), vec![Algorithm::Rs256]))))
    };
    let keys = auth.jwt_key.clone().map(Keys::Configured).or_else(published)?;
    let issuer = auth.issuer.clone().or_else(|| auth.publishable_key.as_ref().map(|key| key.issuer()));
    let rules = Rules {
        profile: Profile::Clerk { template_tokens: auth.allow_template_tokens },
        issuers: issuer.into_iter().collect(),
        audiences: Vec::new(),
        parties: auth.authorized_parties.clone(),
        algorithms: vec![Algorithm::Rs256],
        skew: auth.clock_skew,
    };
    Some((rules, keys))
}

/// The tokens of another issuer.
fn oidc(auth: &AuthOptions, issuer: &str, outgoing: &Outgoing) -> (Rules, Keys) {
    let oidc = &auth.oidc;
    let source = match &oidc.jwks_url {
        Some(url) => Source::Url(url.clone()),
        None => Source::Issuer(issuer.to_owned(), outgoing.service_named_by_others("oidc.jwks")),
    };
    let rules = Rules {
        profile: Profile::Oidc(ClaimNames {
            user: oidc.user_claim.clone(),
            session: oidc.session_claim.clone(),
            org: oidc.org_claim.clone(),
            role: oidc.role_claim.clone(),
        }),
        issuers: vec![issuer.to_owned()],
        audiences: oidc.audiences.clone(),
        parties: Vec::new(),
        algorithms: oidc.algorithms.clone(),
        skew: auth.clock_skew,
    };
    (rules, Keys::Published(Box::new(Jwks::new(source, outgoing.service("oidc.jwks"), oidc.algorithms.clone()))))
}

/// Where the keys come from.
#[derive(Debug)]
enum Keys {
    /// The configuration: whatever key a token names, it is one of these.
    Configured(Vec<Key>),
    /// The provider publishes them.
    Published(Box<Jwks>),
}

/// Why somebody is not known.
#[derive(Debug, thiserror::Error)]
pub enum NotIdentified {
    /// The token is wrong.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The keys cannot be loaded.
    #[error(transparent)]
    NoKeys(#[from] NoKeys),
}

impl Provider {
    /// The configured one; `None` if there is none.
    #[must_use]
    pub fn new(config: &Config, outgoing: &Outgoing) -> Option<Self> {
        let auth = &config.auth;
        let policy = Policy {
            rules: auth.rules.iter().map(rule).collect(),
            allows_others: auth.default == AuthDefault::Allow,
            asks: auth.authorizer.is_some(),
        };
        let (rules, keys) = match &auth.oidc.issuer {
            Some(issuer) => oidc(auth, issuer, outgoing),
            None => clerk(auth, outgoing)?,
        };
        let authorizer = auth.authorizer.clone().map(|url| Authorizer::new(url, auth.authorizer_timeout, outgoing));
        let secret = auth.secret_key.as_ref().filter(|_| auth.oidc.issuer.is_none());
        let users = secret.map(|secret| Arc::new(Users::new(&auth.api_url, secret, outgoing)));
        Some(Self { rules, keys, policy, authorizer, users })
    }

    /// Where the keys come from that tokens are checked with, and whether they can be had: for health checks.
    ///
    /// # Errors
    /// As [`Jwks::check`].
    pub async fn check(&self) -> Result<&'static str, (CallProblem, bool)> {
        match &self.keys {
            Keys::Configured(_) => Ok("pem"),
            Keys::Published(keys) => keys.check().await.map(|()| "jwks"),
        }
    }

    /// Whose token it is, at the time `now` (since 1970).
    ///
    /// # Errors
    /// When it is nobody's, or that cannot be told.
    pub async fn identify(&self, token: &str, now: Duration) -> Result<Identity, NotIdentified> {
        let token = Token::parse(token, &self.rules)?;
        let now = now.as_secs_f64();
        Ok(match &self.keys {
            Keys::Configured(keys) => token.verify(keys, &self.rules, now)?,
            Keys::Published(keys) => {
                let key = keys.find(token.key_id()).await?.ok_or(TokenError::UnknownKey)?;
                token.verify(&[key], &self.rules, now)?
            }
        })
    }
}
