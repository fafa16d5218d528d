//! Herald: a realtime notification and presence server that speaks the Pusher protocol.
//!
//! Follow a message: [`connection`] and [`http`] receive it and decide whether it may pass, [`cluster`] hands it to every node,
//! [`hub`] fans it out on this one, each connection's queue hands it to its socket. [`server`] builds and ends all of that; [`config`] says how.

pub mod accounts;
pub mod answers;
pub mod apps;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod doctor;
pub mod due;
pub mod health;
pub mod http;
pub mod hub;
pub mod identity;
pub mod integrations;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod notifications;
pub mod outgoing;
pub mod parts;
pub mod process;
pub mod reload;
pub mod rotation;
pub mod seal;
pub mod server;
pub mod sessions;
pub mod store;
pub mod tls;
pub mod transport;
pub mod webhooks;
pub mod work;
