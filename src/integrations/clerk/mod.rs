//! Clerk: what its webhooks say ([`webhook`]) what it knows of a user ([`user`]), and how it is asked for
//! one ([`users`]).
//!
//! Not here: whether a session token is Clerk's (`identity`).

pub mod user;
pub mod users;
pub mod webhook;
