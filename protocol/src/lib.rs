//! The Pusher Channels protocol as Herald speaks it.
