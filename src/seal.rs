//! Tokens of other services at rest (section 8.4): encrypted, and bound to the row and column that they stand in.
//!
//! The text that is stored is `enc:v1:ALGORITHM:KEY:NONCE:CIPHERTEXT`, in base64url. The first key of a [`KeyRing`] encrypts, all of them
//! decrypt: that is how keys are replaced. What is not in that form is refused, never taken for a plain token.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use rand::RngExt as _;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// What stored tokens begin with.
const PREFIX: &str = "enc:v1";
/// The table that they stand in.
const TABLE: &str = "user_integrations";
/// Between the parts that a token is bound to: in none of them, since it is a control character.
const SEPARATOR: u8 = 0x1f;
/// Bytes of a key, and of a nonce of XChaCha20.
const KEY_BYTES: usize = 32;
const XNONCE_BYTES: usize = 24;
/// The longest id of a key.
const MAX_KEY_ID: usize = 32;

/// The row and column that a token stands in: it opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Which token.
    pub column: TokenColumn,
    /// Whose.
    pub app: &'a str,
    /// Whose.
    pub user: &'a str,
    /// The service.
    pub service: &'a str,
    /// The user's id there.
    pub service_user: &'a str,
}

/// Which token of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenColumn {
    /// The one that opens the service.
    Access,
    /// The one that renews it.
    Refresh,
}

impl TokenColumn {
    /// The column's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access_token_enc",
            Self::Refresh => "refresh_token_enc",
        }
    }
}

/// How new tokens are encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// XChaCha20-Poly1305: its nonces are long enough to be drawn by lot for ever.
    #[default]
    XChaCha20Poly1305,
    /// AES-256-GCM, for those who need a FIPS algorithm. A key must be replaced before 2^32 tokens.
    Aes256Gcm,
}

impl Algorithm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::XChaCha20Poly1305, Self::Aes256Gcm];

    /// Its name in a stored token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::XChaCha20Poly1305 => "xc20p",
            Self::Aes256Gcm => "a256gcm",
        }
    }
}

/// The keys, in their order.
#[derive(Clone)]
pub struct KeyRing {
    keys: Vec<Key>,
    algorithm: Algorithm,
}

#[derive(Clone)]
struct Key {
    id: String,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyRing").field(&self.keys.iter().map(|key| &key.id).collect::<Vec<_>>()).finish()
    }
}

/// A token as its service knows it. It is shown nowhere, and leaves no trace in the memory that it was in.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainToken(Zeroizing<String>);

impl PlainToken {
    /// The text, for whoever hands it out or sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for PlainToken {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for PlainToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainToken(***)")
    }
}

impl<'de> Deserialize<'de> for PlainToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// A text that is no key ring. It does not show the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyRing {
    /// An entry is not of the form.
    #[error("entry {0} must be ID:KEY, the id of A-Z a-z 0-9 _ - and the key 32 bytes in base64")]
    Entry(usize),
    /// Two entries have one id.
    #[error("the id {0:?} stands there twice")]
    Twice(String),
}

/// Why a stored token cannot be opened. For the log: it says nothing of the token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    /// It is not of the form.
    #[error("what is stored is no encrypted token")]
    Form,
    /// Its key is not in the ring.
    #[error("the key {0:?} is not configured")]
    UnknownKey(String),
    /// It was changed, moved to another row, or encrypted with another key of that id.
    #[error("the token does not open with the key {0:?} at its place")]
    Refused(String),
}

impl KeyRing {
    /// Reads `ID:BASE64,ID:BASE64`; the first is the one that encrypts.
    ///
    /// # Errors
    /// See [`InvalidKeyRing`].
    pub fn parse(text: &str) -> Result<Self, InvalidKeyRing> {
        let mut keys: Vec<Key> = Vec::new();
        for (position, entry) in (1..).zip(text.split(',')) {
            let key = Key::parse(entry.trim()).ok_or(InvalidKeyRing::Entry(position))?;
            if keys.iter().any(|known| known.id == key.id) {
                return Err(InvalidKeyRing::Twice(key.id));
            }
            keys.push(key);
        }
        Ok(Self { keys, algorithm: Algorithm::default() })
    }

    /// The same keys; new tokens are encrypted so.
    #[must_use]
    pub fn encrypting(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// The id of the key that encrypts.
    #[must_use]
    pub fn first(&self) -> &str {
        self.keys.first().map(|key| key.id.as_str()).unwrap_or_default()
    }

    /// Whether a key of this id is in the ring.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id == id)
    }

    /// Encrypts a token for its place.
    #[must_use]
    pub fn seal(&self, token: &str, place: Place<'_>) -> String {
        // A ring has at least one key, since `parse` has read at least one entry.
        let Some(key) = self.keys.first() else { return String::new() };
        let (nonce, sealed) = key.seal(self.algorithm, token.as_bytes(), &place.bound());
        let (nonce, sealed) = (BASE64URL_NOPAD.encode(&nonce), BASE64URL_NOPAD.encode(&sealed));
        format!("{PREFIX}:{}:{}:{nonce}:{sealed}", self.algorithm.as_str(), key.id)
    }

    /// Decrypts what is stored at a place.
    ///
    /// # Errors
    /// See [`NotOpened`].
    pub fn open(&self, stored: &str, place: Place<'_>) -> Result<PlainToken, NotOpened> {
        let Stored { algorithm, key, nonce, sealed } = Stored::parse(stored).ok_or(NotOpened::Form)?;
        let known = self.keys.iter().find(|known| known.id == key);
        let known = known.ok_or_else(|| NotOpened::UnknownKey(key.to_owned()))?;
        let opened = known.open(algorithm, &nonce, &sealed, &place.bound());
        let text = opened.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
        text.map(PlainToken::from).ok_or_else(|| NotOpened::Refused(key.to_owned()))
    }
}

/// The id of the key that a stored token is encrypted with.
#[must_use]
pub fn key_of(stored: &str) -> Option<&str> {
    Stored::parse(stored).map(|stored| stored.key)
}

struct Stored<'a> {
    algorithm: Algorithm,
    key: &'a str,
    nonce: Vec<u8>,
    sealed: Vec<u8>,
}

impl<'a> Stored<'a> {
    fn parse(stored: &'a str) -> Option<Self> {
        let mut parts = stored.strip_prefix(PREFIX)?.strip_prefix(':')?.split(':');
        let (name, key, nonce, sealed) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)?;
        let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let is_all = parts.next().is_none();
        (is_all && is_key_id(key)).then_some(Self { algorithm, key, nonce: decode(nonce)?, sealed: decode(sealed)? })
    }
}

impl Place<'_> {
    /// What is authenticated beside the token.
    fn bound(self) -> Vec<u8> {
        let Self { column, app, user, service, service_user } = self;
        ["herald", "v1", TABLE, column.as_str(), app, user, service, service_user].map(str::as_bytes).join(&SEPARATOR)
    }
}

impl Key {
    fn parse(entry: &str) -> Option<Self> {
        let (id, key) = entry.split_once(':')?;
        let decoded = Zeroizing::new(BASE64.decode(key.as_bytes()).ok()?);
        let bytes = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(decoded.as_slice()).ok()?);
        is_key_id(id).then(|| Self { id: id.to_owned(), bytes })
    }

    fn seal(&self, algorithm: Algorithm, token: &[u8], bound: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut random = rand::rng();
        match algorithm {
            Algorithm::XChaCha20Poly1305 => {
                let nonce: [u8; XNONCE_BYTES] = random.random();
                let sealed = self.xchacha().encrypt(&XNonce::from(nonce), Payload { msg: token, aad: bound });
                (nonce.to_vec(), sealed.unwrap_or_else(|_| unreachable!("a token is far shorter than 256 GiB")))
            }
            Algorithm::Aes256Gcm => {
                let nonce: [u8; NONCE_LEN] = random.random();
                let mut sealed = token.to_vec();
                let done = self.aes().seal_in_place_append_tag(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(bound),
                    &mut sealed,
                );
                done.unwrap_or_else(|_| unreachable!("a token is far shorter than 64 GiB"));
                (nonce.to_vec(), sealed)
            }
        }
    }

    fn open(&self, algorithm: Algorithm, nonce: &[u8], sealed: &[u8], bound: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match algorithm {
            Algorithm::XChaCha20Poly1305 => {
                let nonce = <[u8; XNONCE_BYTES]>::try_from(nonce).ok()?;
                let opened = self.xchacha().decrypt(&XNonce::from(nonce), Payload { msg: sealed, aad: bound });
                opened.ok().map(Zeroizing::new)
            }
            Algorithm::Aes256Gcm => {
                let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
                let mut buffer = Zeroizing::new(sealed.to_vec());
                let opened = self.aes().open_in_place(nonce, Aad::from(bound), &mut buffer).ok()?;
                Some(Zeroizing::new(opened.to_vec()))
            }
        }
    }

    fn xchacha(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.bytes).into())
    }

    fn aes(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &*self.bytes);
        LessSafeKey::new(key.unwrap_or_else(|_| unreachable!("the key has the 32 bytes of this algorithm")))
    }
}

fn is_key_id(id: &str) -> bool {
    (1..=MAX_KEY_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../tests/vectors/token_encryption.json")).unwrap()
    }

    fn place(row: &Value) -> Place<'_> {
        let text = |member: &str| row[member].as_str().unwrap();
        let columns = [TokenColumn::Access, TokenColumn::Refresh];
        let column = columns.into_iter().find(|column| column.as_str() == text("column")).unwrap();
        let (app, user) = (text("app_id"), text("user_id"));
        Place { column, app, user, service: text("service"), service_user: text("service_user_id") }
    }

    #[test]
    fn tokens_open_at_their_place_with_their_key_and_nowhere_else() {
        let vectors = vectors();
        let ring = KeyRing::parse(vectors["key_ring_env"].as_str().unwrap()).unwrap();
        assert_eq!(ring.first(), vectors["primary_key_id"].as_str().unwrap());
        let cases = vectors["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 32);
        for case in cases {
            let place = place(&case["row"]);
            if let Some(bound) = case["aad_hex"].as_str() {
                assert_eq!(data_encoding::HEXLOWER.encode(&place.bound()), bound, "{}", case["name"]);
            }
            let opened = ring.open(case["stored"].as_str().unwrap(), place);
            assert_eq!(Value::from(opened.is_ok()), case["expect"]["ok"], "{}: {opened:?}", case["name"]);
            if let Ok(token) = opened {
                assert_eq!(token.expose(), case["plaintext"].as_str().unwrap(), "{}", case["name"]);
            }
        }
    }

    #[test]
    fn what_is_sealed_opens_again_and_never_looks_the_same() {
        let vectors = vectors();
        for algorithm in [Algorithm::XChaCha20Poly1305, Algorithm::Aes256Gcm] {
            let ring = KeyRing::parse(vectors["key_ring_env"].as_str().unwrap()).unwrap().encrypting(algorithm);
            let place = place(&vectors["cases"][0]["row"]);
            let [one, other] = [(); 2].map(|()| ring.seal("ya29.token", place));
            assert_ne!(one, other);
            assert_eq!(key_of(&one), Some("k2"));
            assert!(one.starts_with(&format!("enc:v1:{}:k2:", algorithm.as_str())) && !one.contains("ya29"));
            assert_eq!(ring.open(&one, place).unwrap().expose(), "ya29.token");
        }
    }

    #[test]
    fn a_key_ring_that_is_none_is_refused_and_not_shown() {
        let good = "a:J5pgjA3ziAqP8TtB9Gjqo77UtympDuM+FeIpJwHHeVk=";
        for (text, error) in [
            ("", InvalidKeyRing::Entry(1)),
            ("a", InvalidKeyRing::Entry(1)),
            ("a:aHVzaA==", InvalidKeyRing::Entry(1)),
            (&*format!("{good},"), InvalidKeyRing::Entry(2)),
            (&format!("a b{good}"), InvalidKeyRing::Entry(1)),
            (&format!("{}{good}", "x".repeat(32)), InvalidKeyRing::Entry(1)),
            (&format!("{good}, {good}"), InvalidKeyRing::Twice("a".to_owned())),
        ] {
            assert_eq!(KeyRing::parse(text).unwrap_err(), error, "{text}");
        }
        let ring = KeyRing::parse(good).unwrap();
        assert!(!format!("{ring:?}").contains("J5pg"), "{ring:?}");
        assert!(!format!("{:?}", PlainToken::from("hush".to_owned())).contains("hush"));
    }
}
