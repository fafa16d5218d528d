//! The Pusher Channels protocol as Herald speaks it: names, messages, signatures, close codes, limits.
//!
//! No I/O, no async, no clock: bytes and values in, bytes and values out, each rule with its test.

pub mod signature;
pub mod socket_id;

pub use signature::Secret;
pub use socket_id::SocketId;
