//! What the chat on a user's page needs to know (section 3.2): who it is, with a signature that shows it to Crisp, and which conversation is theirs on
//! every device.

use data_encoding::BASE64URL_NOPAD;
use herald_protocol::Secret;

/// The signature of an address: over it exactly as the chat is told it, capital letters and all.
#[must_use]
pub fn sign(email: &str, secret: &Secret) -> String {
    secret.sign(email.as_bytes())
}

/// What the user's conversation is found by. Whoever knows it reads the conversation, so that nobody can guess it without the server's key.
#[must_use]
pub fn token_id(user: &str, key: &Secret) -> String {
    BASE64URL_NOPAD.encode(&key.mac(format!("crisp-token|{user}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn addresses_are_signed_as_crisp_wants_it() {
        let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/crisp.json")).unwrap();
        let cases = vectors["identity_cases"].as_array().unwrap();
        assert_eq!(cases.len(), 3);
        for case in cases {
            let secret = Secret::new(case["verification_secret"].as_str().unwrap());
            assert_eq!(sign(case["email"].as_str().unwrap(), &secret), case["signature"], "{case}");
        }
    }

    #[test]
    fn a_conversation_is_one_users_and_cannot_be_guessed() {
        let id = |user, key: &str| token_id(user, &Secret::new(key));
        assert_eq!(id("user_ann", "key").len(), 43);
        assert_eq!(id("user_ann", "key"), id("user_ann", "key"));
        assert_ne!(id("user_ann", "key"), id("user_bob", "key"));
        assert_ne!(id("user_ann", "key"), id("user_ann", "another key"));
    }
}
