//! The public keys of an identity provider: a PEM of the configuration, or a key set (JWKS) that it publishes (section 1.3).

use std::borrow::Cow;
use std::fmt;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

/// How a token is signed. Always by a key pair: a shared secret would let whoever knows the public key sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// All that are known.
    pub const ALL: [Self; 4] = [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa];

    /// Its name in a token's header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The one of this name, written exactly so.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// What a key set calls it.
    const fn of_key(self) -> KeyAlgorithm {
        match self {
            Self::Rs256 => KeyAlgorithm::RS256,
            Self::Ps256 => KeyAlgorithm::PS256,
            Self::Es256 => KeyAlgorithm::ES256,
            Self::EdDsa => KeyAlgorithm::EdDSA,
        }
    }
}

/// A public key.
#[derive(Clone, PartialEq, Eq)]
pub enum Key {
    /// RSA: modulus and exponent, big-endian.
    Rsa {
        /// Modulus.
        n: Vec<u8>,
        /// Exponent.
        e: Vec<u8>,
    },
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    /// An Ed25519 key.
    Ed25519(Vec<u8>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "Key(RSA)",
            Self::P256(_) => "Key(P-256)",
            Self::Ed25519(_) => "Key(Ed25519)",
        })
    }
}

/// A text that is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be the PEM of an RSA public key: -----BEGIN PUBLIC KEY----- … -----END PUBLIC KEY-----")]
pub struct InvalidPem;

/// Object identifier of RSA keys, as DER has it.
const RSA_ENCRYPTION: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;

impl Key {
    /// Reads a PEM with line breaks of any kind, without any, or with `\n` written out, which is what env files of Docker leave.
    ///
    /// # Errors
    /// When it is none of an RSA key.
    pub fn from_pem(text: &str) -> Result<Self, InvalidPem> {
        let body = text.replace("\\r", "").replace("\\n", "\n");
        let (_, body) = body.split_once("-----BEGIN PUBLIC KEY-----").ok_or(InvalidPem)?;
        let (body, _) = body.split_once("-----END PUBLIC KEY-----").ok_or(InvalidPem)?;
        let body: String = body.chars().filter(|character| !character.is_whitespace()).collect();
        let der = BASE64.decode(body.as_bytes()).map_err(|_| InvalidPem)?;
        Self::from_spki(&der).ok_or(InvalidPem)
    }

    /// Reads the `SubjectPublicKeyInfo` of an RSA key (RFC 5280, 4.1, and RFC 8017, A.1).
    fn from_spki(der: &[u8]) -> Option<Self> {
        let (info, _) = element(der, SEQUENCE)?;
        let (algorithm, rest) = element(info, SEQUENCE)?;
        let (identifier, _) = element(algorithm, OBJECT_IDENTIFIER)?;
        let (bits, _) = element(rest, BIT_STRING)?;
        let (unused, key) = bits.split_first()?;
        let (numbers, _) = element(key, SEQUENCE)?;
        let (n, rest) = element(numbers, INTEGER)?;
        let (e, _) = element(rest, INTEGER)?;
        (identifier == RSA_ENCRYPTION && *unused == 0).then(|| Self::Rsa { n: positive(n), e: positive(e) })
    }

    /// Reads an entry of a key set; `None` if it is for something else.
    fn from_jwk(jwk: &Jwk, algorithms: &[Algorithm]) -> Option<Self> {
        let common = &jwk.common;
        let may_sign = common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
        let named = common.key_algorithm.as_ref();
        let is_allowed = named.is_none_or(|named| algorithms.iter().any(|algorithm| algorithm.of_key() == *named));
        if !may_sign || !is_allowed {
            return None;
        }
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok();
        match &jwk.algorithm {
            AlgorithmParameters::RSA(key) => Some(Self::Rsa { n: decode(&key.n)?, e: decode(&key.e)? }),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Some(Self::P256([vec![4], decode(&key.x)?, decode(&key.y)?].concat()))
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                Some(Self::Ed25519(decode(&key.x)?))
            }
            _ => None,
        }
    }

    /// Whether `signature` is this key's of `message`. False too when the key is not one for the algorithm.
    #[must_use]
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (self, algorithm) {
            (Self::Rsa { n, e }, Algorithm::Rs256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (Self::Rsa { n, e }, Algorithm::Ps256) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PSS_2048_8192_SHA256, message, signature)
            }
            (Self::P256(point), Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (Self::Ed25519(key), Algorithm::EdDsa) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
            _ => return false,
        }
        .is_ok()
    }
}

/// The content of the DER element with this tag at the beginning, and what comes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    (*found == tag).then_some((content, rest))
}

/// A DER integer without the zero in front that says that it is positive.
fn positive(integer: &[u8]) -> Vec<u8> {
    integer.strip_prefix(&[0]).unwrap_or(integer).to_vec()
}

/// The keys that a provider signs with, by their ids.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<(Option<String>, Key)>);

/// A document that is no key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the document is no JSON Web Key Set")]
pub struct InvalidKeySet;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Cow<'a, [Value]>,
}

impl KeySet {
    /// Reads a key set. Entries that are for something else than these algorithms, or unknown to Herald, are left out: a provider may
    /// add any.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(document: &[u8], algorithms: &[Algorithm]) -> Result<Self, InvalidKeySet> {
        let document: Document<'_> = serde_json::from_slice(document).map_err(|_| InvalidKeySet)?;
        let entries = document.keys.iter().filter_map(|entry| {
            let jwk: Jwk = serde_json::from_value(entry.clone()).ok()?;
            Some((jwk.common.key_id.clone(), Key::from_jwk(&jwk, algorithms)?))
        });
        Ok(Self(entries.collect()))
    }

    /// Whether this key is among them.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        self.0.iter().any(|(_, known)| known == key)
    }

    /// Whether some key is among both.
    #[must_use]
    pub fn shares_one_with(&self, other: &Self) -> bool {
        self.0.iter().any(|(_, key)| other.has(key))
    }

    /// The key that a token names. One that names none gets the only one there is, if `lone` allows that.
    #[must_use]
    pub fn find(&self, id: Option<&str>, lone: bool) -> Option<&Key> {
        match (id, self.0.as_slice()) {
            (Some(id), keys) => keys.iter().find(|(known, _)| known.as_deref() == Some(id)).map(|(_, key)| key),
            (None, [(_, only)]) if lone => Some(only),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_key_is_refused() {
        for wrong in [
            "",
            "-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
            "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAjS4F\n-----END PUBLIC KEY-----",
        ] {
            assert_eq!(Key::from_pem(wrong), Err(InvalidPem), "{wrong}");
        }
    }

    #[test]
    fn a_key_set_may_hold_what_herald_does_not_know() {
        let document = r#"{"keys":[
            {"kty":"RSA","kid":"enc","use":"enc","n":"AQAB","e":"AQAB"},
            {"kty":"RSA","kid":"rs512","alg":"RS512","n":"AQAB","e":"AQAB"},
            {"kty":"XYZ","kid":"new"}, 7,
            {"kty":"EC","kid":"ec","crv":"P-256","x":"AQAB","y":"AQAB"},
            {"kty":"RSA","kid":"rsa","n":"AQAB","e":"AQAB"}]}"#;
        let keys = KeySet::parse(document.as_bytes(), &[Algorithm::Rs256, Algorithm::Es256]).unwrap();
        assert_eq!(keys.0.iter().filter_map(|(id, _)| id.as_deref()).collect::<Vec<_>>(), ["ec", "rsa"]);
        assert!(keys.find(Some("rsa"), false).is_some() && keys.find(Some("enc"), true).is_none());
        assert!(keys.find(None, true).is_none(), "it does not say which of two");
        assert!(KeySet::parse(b"{}", &[]).is_err());
    }
}
