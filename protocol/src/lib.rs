//! The Pusher Channels protocol as Herald speaks it: names, messages, signatures, close codes.
//!
//! No I/O, no async, no clock: bytes and values in, bytes and values out, each rule with its test. Start at [`client`] (what clients
//! send) and [`server`] (what they get); [`webhook`] is what backends are told.

pub mod channel;
pub mod client;
pub mod close;
pub mod json;
pub mod segment;
pub mod server;
pub mod signature;
pub mod socket_id;
pub mod user;
pub mod webhook;

pub use channel::{ChannelKind, ChannelName, InvalidChannelName};
pub use close::CloseReason;
pub use signature::Secret;
pub use socket_id::SocketId;
pub use user::UserId;
