//! A token, from its text to an [`Identity`] (section 1.4). The checks come in the order in which they stand there: the signature before
//! the claims.

use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::keys::{Algorithm, Key};
use super::{Identity, Org, claims};

/// The longest token that is looked at.
const MAX_BYTES: usize = 16 * 1024;
/// The longest user id.
const MAX_USER_BYTES: usize = 255;
/// Categories of Clerk's tokens, from their headers.
const SESSION: &str = "cl_B7d4PD111AAA";
const MACHINE: &str = "cl_B7d4PD333AAA";
const UNCLASSIFIED: &str = "cl_I7d4PD111III";
/// What ids of machines begin with.
const MACHINE_USER: &str = "mch_";

/// What a token must be like.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Whose it is.
    pub profile: Profile,
    /// Who may have signed it; empty if that is not checked.
    pub issuers: Vec<String>,
    /// For whom it must be, if it says so; empty if that is not checked.
    pub audiences: Vec<String>,
    /// Pages that it may have been made for; empty if that is not checked.
    pub parties: Vec<String>,
    /// How it may be signed.
    pub algorithms: Vec<Algorithm>,
    /// How far clocks may be apart.
    pub skew: Duration,
}

/// Whose tokens they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Clerk's session tokens.
    Clerk {
        /// Whether tokens of JWT templates count too: they outlive their session.
        template_tokens: bool,
    },
    /// Those of any OIDC issuer: issuer and audience must be there and right.
    Oidc(ClaimNames),
}

/// Where an OIDC issuer's tokens say what; empty where they do not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    /// The user's id.
    pub user: String,
    /// The session's id.
    pub session: String,
    /// The organization's id.
    pub org: String,
    /// The user's role in it.
    pub role: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self {
            user: "sub".to_owned(),
            session: "sid".to_owned(),
            org: "org_id".to_owned(),
            role: "org_role".to_owned(),
        }
    }
}

/// Why a token is nobody's. The text is for the log; whoever sent it learns that it is invalid, no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No token at all, or one of a machine.
    #[error("token-invalid")]
    Invalid,
    /// Signed in a way that is not allowed.
    #[error("token-invalid-algorithm")]
    Algorithm,
    /// Signed with a key that the provider does not have.
    #[error("jwk-kid-mismatch")]
    UnknownKey,
    /// Not signed by that key.
    #[error("token-invalid-signature")]
    Signature,
    /// A claim is missing or of the wrong kind, or it is for others.
    #[error("token-verification-failed")]
    Claims,
    /// Made for another page.
    #[error("token-invalid-authorized-parties")]
    Parties,
    /// Made by another issuer.
    #[error("token-invalid-issuer")]
    Issuer,
    /// Over.
    #[error("token-expired")]
    Expired,
    /// Not valid yet.
    #[error("token-not-active-yet")]
    NotActiveYet,
    /// Made in the future.
    #[error("token-iat-in-the-future")]
    IssuedInTheFuture,
    /// Right, but of a kind that is not accepted.
    #[error("token-type-mismatch")]
    Kind,
    /// Right, but of a session that has still to be completed.
    #[error("session-pending")]
    Pending,
}

/// A token that was parsed and nothing more.
#[derive(Debug)]
pub struct Token<'a> {
    header: Header,
    claims: Map<String, Value>,
    algorithm: Algorithm,
    /// Header and payload as they came: what is signed.
    signed: &'a str,
    signature: Option<Vec<u8>>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: Option<Value>,
    typ: Option<Value>,
    kid: Option<String>,
    cat: Option<Value>,
}

impl<'a> Token<'a> {
    /// Takes a text apart and checks what its header says.
    ///
    /// # Errors
    /// [`TokenError::Invalid`] and [`TokenError::Algorithm`].
    pub fn parse(text: &'a str, rules: &Rules) -> Result<Self, TokenError> {
        if text.len() > MAX_BYTES {
            return Err(TokenError::Invalid);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let (header, payload) =
            signed.split_once('.').filter(|(_, rest)| !rest.contains('.')).ok_or(TokenError::Invalid)?;
        let decode = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| TokenError::Invalid);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Invalid)?;
        let claims = serde_json::from_slice(&decode(payload)?).map_err(|_| TokenError::Invalid)?;
        let is_clerk = matches!(rules.profile, Profile::Clerk { .. });
        if is_clerk && header.cat.as_ref().and_then(Value::as_str) == Some(MACHINE) {
            return Err(TokenError::Invalid);
        }
        let is_known_type = |typ: &Value| typ == "JWT" || (!is_clerk && typ == "at+jwt");
        if !header.typ.as_ref().is_none_or(is_known_type) {
            return Err(TokenError::Invalid);
        }
        let algorithm = header.alg.as_ref().and_then(Value::as_str).and_then(Algorithm::parse);
        let algorithm =
            algorithm.filter(|algorithm| rules.algorithms.contains(algorithm)).ok_or(TokenError::Algorithm)?;
        // A signature that is no base64 is one that is wrong: what it is about is well-formed.
        let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).ok();
        Ok(Self { header, claims, algorithm, signed, signature })
    }

    /// The id of the key that it says it is signed with.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Checks it against the keys, of which one must have signed it, and the rules at the time `now` (Unix seconds).
    ///
    /// # Errors
    /// In the order of section 1.4.
    pub fn verify(self, keys: &[Key], rules: &Rules, now: f64) -> Result<Identity, TokenError> {
        let signature = self.signature.as_deref().ok_or(TokenError::Signature)?;
        if !keys.iter().any(|key| key.verifies(self.algorithm, self.signed.as_bytes(), signature)) {
            return Err(TokenError::Signature);
        }
        let claims = &self.claims;
        let user = self.user(rules)?;
        check_audience(claims, rules)?;
        check_member(claims.get("azp"), &rules.parties, TokenError::Parties)?;
        check_member(claims.get("iss"), &rules.issuers, TokenError::Issuer)?;
        let (issued_at, expires_at) = check_times(claims, rules.skew.as_secs_f64(), now)?;
        let session = self.session(rules, &user)?;
        let actor = claims.get("act").and_then(|act| act.get("sub")).and_then(Value::as_str).map(str::to_owned);
        let org = self.org(rules);
        Ok(Identity { user, session, org, actor, issued_at, expires_at, claims: self.claims })
    }

    fn user(&self, rules: &Rules) -> Result<String, TokenError> {
        let name = match &rules.profile {
            Profile::Clerk { .. } => "sub",
            Profile::Oidc(names) => &names.user,
        };
        let user = self.claims.get(name).and_then(Value::as_str);
        let is_id = |id: &&str| (1..=MAX_USER_BYTES).contains(&id.len()) && !id.chars().any(char::is_control);
        user.filter(is_id).map(str::to_owned).ok_or(TokenError::Claims)
    }

    /// The session; what is no session's token is refused, or has none.
    fn session(&self, rules: &Rules, user: &str) -> Result<Option<String>, TokenError> {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let template_tokens = match &rules.profile {
            Profile::Oidc(names) => return Ok(text(&names.session)),
            Profile::Clerk { template_tokens } => *template_tokens,
        };
        let session = text("sid");
        let is_sessions = match self.header.cat.as_ref() {
            None => true,
            Some(category) => category == SESSION || category == UNCLASSIFIED,
        };
        if user.starts_with(MACHINE_USER) {
            return Err(TokenError::Kind);
        }
        if (!is_sessions || session.is_none()) && !template_tokens {
            return Err(TokenError::Kind);
        }
        if self.claims.get("sts").is_some_and(|status| status == "pending") {
            return Err(TokenError::Pending);
        }
        Ok(session)
    }

    fn org(&self, rules: &Rules) -> Option<Org> {
        match &rules.profile {
            Profile::Clerk { .. } => claims::organization(&self.claims),
            Profile::Oidc(names) => {
                let text = |name: &str| self.claims.get(name).and_then(Value::as_str).map(str::to_owned);
                Some(Org { id: text(&names.org)?, slug: None, role: text(&names.role), permissions: None })
            }
        }
    }
}

/// One of those that are configured must be among those that the token names. Clerk's may name none, an OIDC issuer's may not.
fn check_audience(claims: &Map<String, Value>, rules: &Rules) -> Result<(), TokenError> {
    if rules.audiences.is_empty() {
        return Ok(());
    }
    let known = |audience: &Value| {
        audience.as_str().is_some_and(|audience| rules.audiences.iter().any(|known| known == audience))
    };
    let is_for_us = match claims.get("aud") {
        None => matches!(rules.profile, Profile::Clerk { .. }),
        Some(Value::Array(audiences)) => audiences.iter().any(known),
        Some(one) => known(one),
    };
    if is_for_us { Ok(()) } else { Err(TokenError::Claims) }
}

/// If there are any that are allowed, the claim must be exactly one of them.
fn check_member(claim: Option<&Value>, allowed: &[String], error: TokenError) -> Result<(), TokenError> {
    let claim = claim.and_then(Value::as_str);
    if allowed.is_empty() || claim.is_some_and(|claim| allowed.iter().any(|one| one == claim)) {
        Ok(())
    } else {
        Err(error)
    }
}

fn check_times(claims: &Map<String, Value>, skew: f64, now: f64) -> Result<(Option<f64>, f64), TokenError> {
    let number = |name: &str| claims.get(name).map(|value| value.as_f64().ok_or(TokenError::Claims)).transpose();
    let expires_at = number("exp")?.ok_or(TokenError::Claims)?;
    if expires_at <= now - skew {
        return Err(TokenError::Expired);
    }
    if number("nbf")?.is_some_and(|not_before| not_before > now + skew) {
        return Err(TokenError::NotActiveYet);
    }
    let issued_at = number("iat")?;
    if issued_at.is_some_and(|issued_at| issued_at > now + skew) {
        return Err(TokenError::IssuedInTheFuture);
    }
    Ok((issued_at, expires_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::KeySet;

    fn vectors(name: &str) -> Value {
        let text = match name {
            "jwt" => include_str!("../../tests/vectors/clerk_jwt.json"),
            _ => include_str!("../../tests/vectors/clerk_claims.json"),
        };
        serde_json::from_str(text).unwrap()
    }

    fn list(value: &Value) -> Vec<String> {
        match value {
            Value::Null => Vec::new(),
            Value::Array(all) => all.iter().map(|one| one.as_str().unwrap().to_owned()).collect(),
            one => vec![one.as_str().unwrap().to_owned()],
        }
    }

    fn clerk(options: &Value) -> Rules {
        Rules {
            profile: Profile::Clerk { template_tokens: false },
            issuers: list(&options["issuer"]),
            audiences: list(&options["audience"]),
            parties: list(&options["authorized_parties"]),
            algorithms: vec![Algorithm::Rs256],
            skew: Duration::from_secs(5),
        }
    }

    #[test]
    fn every_token_of_clerks_is_judged_as_the_library_does() {
        let vectors = vectors("jwt");
        let now = vectors["now"].as_f64().unwrap();
        let set = KeySet::parse(vectors["jwks"].to_string().as_bytes(), &[Algorithm::Rs256]).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 61);
        for case in cases {
            let (options, rules) = (&case["options"], clerk(&case["options"]));
            let pem = options["jwt_key"].as_str().map(|pem| Key::from_pem(pem).unwrap());
            let verified = Token::parse(case["token"].as_str().unwrap(), &rules).and_then(|token| {
                let key = match &pem {
                    Some(key) => key,
                    None => set.find(token.key_id(), false).ok_or(TokenError::UnknownKey)?,
                };
                token.verify(std::slice::from_ref(key), &rules, now)
            });
            let reason = verified.as_ref().err().map(ToString::to_string);
            assert_eq!(reason.as_deref(), case["expect"]["reason"].as_str(), "{}", case["name"]);
            assert_eq!(Value::from(verified.is_ok()), case["expect"]["ok"], "{}", case["name"]);
            if let (Ok(identity), Some(user)) = (&verified, case["sdk_verify_token"]["sub"].as_str()) {
                assert_eq!(identity.user, user, "{}", case["name"]);
            }
        }
    }

    #[test]
    fn claims_of_both_versions_say_who_somebody_is() {
        let vectors = vectors("claims");
        let lists = vectors.as_object().unwrap().values().filter_map(Value::as_array);
        for case in lists.flatten() {
            let claims = case["claims"].as_object().unwrap();
            let (org, expected) = (claims::organization(claims), &case["expect"]);
            let text = |value: Option<&str>| value.map_or(Value::Null, Value::from);
            assert_eq!(text(org.as_ref().map(|org| &*org.id)), expected["org_id"], "{}", case["name"]);
            assert_eq!(
                text(org.as_ref().and_then(|org| org.slug.as_deref())),
                expected["org_slug"],
                "{}",
                case["name"]
            );
            assert_eq!(
                text(org.as_ref().and_then(|org| org.role.as_deref())),
                expected["org_role"],
                "{}",
                case["name"]
            );
            let permissions = org.and_then(|org| org.permissions).map_or(Value::Null, Value::from);
            assert_eq!(permissions, expected["org_permissions"], "{}", case["name"]);
        }
    }

    #[test]
    fn a_template_token_counts_only_where_that_is_wanted() {
        let vectors = vectors("jwt");
        let now = vectors["now"].as_f64().unwrap();
        for name in ["cat_template", "no_sid_no_cat"] {
            let case = vectors["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
            let rules = Rules { profile: Profile::Clerk { template_tokens: true }, ..clerk(&case["options"]) };
            let key = Key::from_pem(case["options"]["jwt_key"].as_str().unwrap()).unwrap();
            let identity =
                Token::parse(case["token"].as_str().unwrap(), &rules).unwrap().verify(&[key], &rules, now).unwrap();
            assert_eq!(identity.session, None, "{name}");
        }
    }
}
