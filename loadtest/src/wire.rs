//! The bytes that go over the wire, made before anything is measured: both servers get the same requests and send the same event.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use herald_protocol::signature::{body_md5, request_string};
use herald_protocol::{ChannelName, Secret, server};

/// The application that Herald serves on loopback when none is configured.
const APP_ID: &str = "app-id";
pub(crate) const APP_KEY: &str = "app-key";
pub(crate) const APP_SECRET: &str = "app-secret";

const EVENT: &str = "measured";
/// The channel that every subscriber is on where there is one.
pub(crate) const CHANNEL: &str = "load";
/// The key of every handshake: what is measured does not depend on it.
pub(crate) const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The client's half of the WebSocket handshake.
pub(crate) fn upgrade_request(address: SocketAddr) -> String {
    format!(
        "GET /app/{APP_KEY}?protocol=7&client=loadtest&version=1.0 HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\r\n"
    )
}

/// The frame with which a client subscribes; masked, as the protocol demands, with zeros, which change nothing.
pub(crate) fn subscribe_frame(channel: &str) -> Vec<u8> {
    let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":""}}}}"#);
    const MASKED: u8 = 0x80;
    let mut frame = frame_header(text.len());
    if let Some(length) = frame.get_mut(1) {
        *length |= MASKED;
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// The frame that every subscriber of a channel must get for every event, byte for byte.
pub(crate) fn event_frame(channel: &ChannelName, bytes: usize) -> Vec<u8> {
    text_frame(&server::event(EVENT, channel, &data_token(bytes)))
}

/// A server's text frame.
pub(crate) fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = frame_header(text.len());
    frame.extend(text.as_bytes());
    frame
}

/// A backend's signed request that triggers one event of `bytes` on a channel. It may be sent again and again for ten minutes.
pub(crate) fn trigger_request(address: SocketAddr, channel: &str, bytes: usize) -> String {
    let body = format!(r#"{{"name":"{EVENT}","channels":["{channel}"],"data":{}}}"#, data_token(bytes));
    signed_request(address, "events", &body)
}

/// A backend's signed POST to an endpoint of its app.
pub(crate) fn signed_request(address: SocketAddr, endpoint: &str, body: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()).to_string();
    let md5 = body_md5(body.as_bytes());
    let path = format!("/apps/{APP_ID}/{endpoint}");
    let parameters = [("auth_key", APP_KEY), ("auth_timestamp", &now), ("auth_version", "1.0"), ("body_md5", &md5)];
    let signature = Secret::new(APP_SECRET).sign(request_string("POST", &path, parameters).as_bytes());
    let query = parameters.map(|(name, value)| format!("{name}={value}")).join("&");
    format!(
        "POST {path}?{query}&auth_signature={signature} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn data_token(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes))
}

/// Final text frame of up to 64 KiB, which is more than any event here has.
fn frame_header(length: usize) -> Vec<u8> {
    const FINAL_TEXT: u8 = 0x81;
    match u16::try_from(length).unwrap_or(u16::MAX) {
        short @ 0..=125 => vec![FINAL_TEXT, short as u8],
        medium => [&[FINAL_TEXT, 126], medium.to_be_bytes().as_slice()].concat(),
    }
}
