//! Clerk: what its webhooks say ([`webhook`]), what it knows of a user ([`user`]), how it is asked for one ([`users`]), and whether sessions
//! still live ([`sessions`]).
//!
//! Not here: whether a session token is Clerk's (`identity`).

pub mod sessions;
pub mod user;
pub mod users;
pub mod webhook;
