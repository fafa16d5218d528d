//! The identity provider that is configured: what its tokens must be like, its keys, and what its users may subscribe to.

use std::time::Duration;

use super::jwks::{Jwks, NoKeys};
use crate::config::{AuthDefault, Config};
use crate::identity::rules::{Policy, Rule};
use crate::identity::token::Profile;
use crate::identity::{Algorithm, Identity, Key, Rules, Token, TokenError};

/// See the module.
#[derive(Debug)]
pub struct Provider {
    rules: Rules,
    keys: Keys,
    /// Who may subscribe to what.
    pub policy: Policy,
}

/// Where the keys come from.
#[derive(Debug)]
enum Keys {
    /// The configuration: whatever key a token names, it is this one.
    Configured(Key),
    /// The provider publishes them.
    Published(Jwks),
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
    pub fn new(config: &Config, client: &reqwest::Client) -> Option<Self> {
        let auth = &config.auth;
        let published = || {
            let url = auth.publishable_key.as_ref()?.jwks_url();
            Some(Keys::Published(Jwks::new(url, client.clone(), vec![Algorithm::Rs256])))
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
        let rule = |rule: &crate::config::RuleOptions| Rule {
            channels: rule.channels.clone(),
            org_roles: rule.org_roles.clone(),
        };
        let policy =
            Policy { rules: auth.rules.iter().map(rule).collect(), allows_others: auth.default == AuthDefault::Allow };
        Some(Self { rules, keys, policy })
    }

    /// Whose token it is, at the time `now` (since 1970).
    ///
    /// # Errors
    /// When it is nobody's, or that cannot be told.
    pub async fn identify(&self, token: &str, now: Duration) -> Result<Identity, NotIdentified> {
        let token = Token::parse(token, &self.rules)?;
        let key = match &self.keys {
            Keys::Configured(key) => key.clone(),
            Keys::Published(keys) => keys.find(token.key_id()).await?.ok_or(TokenError::UnknownKey)?,
        };
        Ok(token.verify(&key, &self.rules, now.as_secs_f64())?)
    }
}
