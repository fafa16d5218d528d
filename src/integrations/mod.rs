//! Third parties, a small room each: what comes from them is verified and parsed here, what goes to them is built here.
//!
//! Not here: what follows from it (`http::inbound`), how a request leaves the process (`outgoing`).

pub mod authorizer;
pub mod clerk;
pub mod cloudinary;
pub mod crisp;
pub mod jwks;
pub mod oauth;
pub mod provider;
pub mod sentry;
pub mod standard_webhooks;
