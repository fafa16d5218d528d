//! Who a user is: tokens of an identity provider, Clerk by default or any OIDC issuer, become an [`Identity`] (sections 1.1 to 1.6).
//!
//! Start at [`token::Token`]: a text is parsed, its key found in [`keys`], its signature checked before anything that it claims, so that
//! an error reveals no configuration. [`claims`] reads what a verified one says, [`rules`] which channels that opens. Nothing here does I/O
//! or reads a clock.
//!
//! Not here: how a request carries its token (`http::user`), whether the session has ended since (the store).

pub mod claims;
pub mod keys;
pub mod publishable_key;
pub mod rules;
pub mod token;

use serde_json::{Map, Value};

pub use keys::{Algorithm, Key, KeySet};
pub use token::{Rules, Token, TokenError};

/// Somebody whose token was right.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The provider's id of the user.
    pub user: String,
    /// The session; none in a token that outlives its session.
    pub session: Option<String>,
    /// The organization that the user is active in.
    pub org: Option<Org>,
    /// Who acts as this user, if it is not the user.
    pub actor: Option<String>,
    /// When the token was made, in Unix seconds.
    pub issued_at: Option<f64>,
    /// When it ends, in Unix seconds.
    pub expires_at: f64,
    /// Everything that the token says.
    pub claims: Map<String, Value>,
}

/// An organization, and what the user is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Org {
    /// Its id.
    pub id: String,
    /// Its name in addresses.
    pub slug: Option<String>,
    /// The user's role, such as `org:admin`.
    pub role: Option<String>,
    /// The user's permissions, such as `org:invoices:read`; none if the token has no list.
    pub permissions: Option<Vec<String>>,
}
