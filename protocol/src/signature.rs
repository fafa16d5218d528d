//! Signatures: what a secret signs, and how a signature is compared.
//!
//! Every signature of the protocol is the lower-case hex HMAC-SHA256 of a string under the secret of one key pair; the functions here
//! build those strings. Always: comparisons take the same time whatever differs, and a [`Secret`] never prints itself.

use std::borrow::Cow;
use std::fmt;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use memchr::memchr;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::socket_id::SocketId;

/// The secret of a key pair, ready to sign. Its `Debug` form is masked.
#[derive(Clone)]
pub struct Secret {
    text: String,
    keyed: Hmac<Sha256>,
}

impl Secret {
    /// Prepares `text` for signing; the key schedule is computed once, here.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let keyed =
            Hmac::new_from_slice(text.as_bytes()).unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
        Self { text, keyed }
    }

    /// Signs `message`: 64 lower-case hex digits.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        HEXLOWER.encode(&self.mac(message))
    }

    /// The same as bytes.
    #[must_use]
    pub fn mac(&self, message: &[u8]) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Whether `signature` is what [`Secret::sign`] makes of `message`, compared in constant time. Upper-case digits do not match.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        are_digits_of(signature, self.mac(message))
    }

    /// Whether this is the secret `text`, compared in constant time.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.text.as_bytes().ct_eq(text.as_bytes()).into()
    }

    /// The secret itself, for the one who must hand it on (the command line's own requests). Never for a log, an error or a page.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// What is signed to authorize a subscription (3.1): `socket_id:channel`, and `:channel_data` whenever it was sent.
#[must_use]
pub fn channel_string(socket_id: SocketId, channel: &str, channel_data: Option<&str>) -> String {
    match channel_data {
        Some(channel_data) => format!("{socket_id}:{channel}:{channel_data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

/// What is signed to sign a user in (3.5): `socket_id::user::user_data`.
#[must_use]
pub fn user_string(socket_id: SocketId, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

/// What is signed of an HTTP request (4.1): method, raw path and sorted query, a line each.
///
/// `parameters` are decoded; `auth_signature` is left out, keys are lower-cased, and `k[]` or `k[0]` are gathered as `k=v1,v2`
/// (the PHP library signs arrays so).
#[must_use]
pub fn request_string<'a>(
    method: &str,
    path: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut gathered: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::with_capacity(8);
    for (key, value) in parameters {
        let name = memchr(b'[', key.as_bytes()).and_then(|end| key.get(..end)).unwrap_or(key);
        let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let name = if is_lower { Cow::Borrowed(name) } else { Cow::Owned(name.to_ascii_lowercase()) };
        if name == "auth_signature" {
            continue;
        }
        match gathered.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) if key.contains('[') => {
                let values = values.to_mut();
                values.push(',');
                values.push_str(value);
            }
            Some((_, values)) => *values = Cow::Borrowed(value),
            None => gathered.push((name, Cow::Borrowed(value))),
        }
    }
    gathered.sort_unstable();
    let length = gathered.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>();
    let mut signed = String::with_capacity(method.len() + path.len() + 2 + length);
    for line in [method, path] {
        signed.push_str(line);
        signed.push('\n');
    }
    for (position, (name, value)) in gathered.iter().enumerate() {
        if position > 0 {
            signed.push('&');
        }
        signed.push_str(name);
        signed.push('=');
        signed.push_str(value);
    }
    signed
}

/// The lower-case hex MD5 of a request's body (4.1, `body_md5`).
#[must_use]
pub fn body_md5(body: &[u8]) -> String {
    HEXLOWER.encode(&Md5::digest(body))
}

/// Whether `md5` is what [`body_md5`] makes of `body`, compared in constant time. Upper-case digits do not match.
#[must_use]
pub fn is_body_md5(md5: &str, body: &[u8]) -> bool {
    are_digits_of::<16>(md5, Md5::digest(body).into())
}

/// Whether these are the lower-case hex digits of `bytes`, compared in constant time.
fn are_digits_of<const N: usize>(digits: &str, bytes: [u8; N]) -> bool {
    let mut said = [0; N];
    digits.len() == 2 * N && HEXLOWER.decode_mut(digits.as_bytes(), &mut said).is_ok() && bool::from(bytes.ct_eq(&said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example_of_the_http_api() {
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let md5 = body_md5(body);
        assert_eq!(md5, "ec365a775a4cd0599faeb73354201b6f");
        let signed = request_string(
            "POST",
            "/apps/3/events",
            [
                ("auth_version", "1.0"),
                ("auth_key", "278d425bdf160c739803"),
                ("auth_timestamp", "1353088179"),
                ("body_md5", md5.as_str()),
            ],
        );
        assert_eq!(
            Secret::new("7ad3773142a6692b25b8").sign(signed.as_bytes()),
            "da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
        );
    }

    #[test]
    fn arrays_are_gathered_and_the_last_plain_value_counts() {
        let signed = request_string(
            "GET",
            "/x",
            [("b[0]", "1"), ("A", "0"), ("b[1]", "2"), ("a", "9"), ("auth_signature", "s")],
        );
        assert_eq!(signed, "GET\n/x\na=9&b=1,2");
    }

    #[test]
    fn nothing_but_its_own_digits_is_a_signature() {
        let secret = Secret::new("hush");
        let signature = secret.sign(b"message");
        let (flipped, upper) = (signature.replace(['0', '1'], "2"), signature.to_ascii_uppercase());
        assert!(secret.verifies(b"message", &signature));
        for wrong in
            ["", "x", signature.get(1..).unwrap(), &format!("{signature}00"), &flipped, &upper, &"x".repeat(64)]
        {
            assert!(!secret.verifies(b"message", wrong), "{wrong:?}");
        }
        assert!(is_body_md5(&body_md5(b"{}"), b"{}"));
        assert!(!is_body_md5(&body_md5(b"{}"), b"") && !is_body_md5(&body_md5(b"{}").to_ascii_uppercase(), b"{}"));
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "Secret(***)");
    }
}
