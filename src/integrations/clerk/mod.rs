//! Clerk: what its webhooks say ([`webhook`]) and what it knows of a user ([`user`]).
//!
//! Not here: whether a session token is Clerk's (`identity`).

pub mod user;
pub mod webhook;
