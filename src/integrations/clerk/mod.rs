//! Clerk: what its webhooks say ([`webhook`]), what it knows of a user ([`user`]), how it is asked for one ([`users`]), for tokens of other services
//! ([`accounts`]), and whether sessions still live ([`sessions`]).
//!
//! Not here: whether a session token is Clerk's (`identity`).

pub mod accounts;
pub mod sessions;
pub mod user;
pub mod users;
pub mod webhook;
