//! `herald listen CHANNEL`: the smallest client. Prints events as they come; signs for itself where a channel needs it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures_util::{SinkExt as _, StreamExt as _};
use herald::config::Sources;
use herald_protocol::signature::channel_string;
use herald_protocol::{ChannelName, SocketId};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Server, Target, complain, runtime, say};

/// How often the server hears from us at least.
const PING: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Such as my-channel; private and presence channels too
    channel: String,
    /// One JSON object a line, for programs: {"channel":…,"event":…,"data":…}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(sources: &Sources, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let server = arguments.target.find(sources)?;
    runtime(1)?.block_on(listen(&server, arguments))
}

async fn listen(server: &Server, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    herald::outgoing::install_crypto();
    let base = server.url.as_str().trim_end_matches('/').replacen("http", "ws", 1);
    let address =
        format!("{base}/app/{}?protocol=7&client=herald&version={}", server.app.key, env!("CARGO_PKG_VERSION"));
    let connected = tokio_tungstenite::connect_async(address).await;
    let (mut socket, _) = connected.with_context(|| {
        format!("the server cannot be reached at {}; is it running? --url says where it is", server.url)
    })?;
    let mut pings = tokio::time::interval(PING);
    loop {
        let message = tokio::select! {
            message = socket.next() => message.context("the server has closed the connection")?.context("the connection broke")?,
            _ = pings.tick() => {
                socket.send(Message::text(r#"{"event":"pusher:ping","data":{}}"#)).await?;
                continue;
            }
        };
        let text = match &message {
            Message::Text(text) => text.as_str(),
            Message::Close(Some(why)) => {
                anyhow::bail!("the server has closed the connection: {} {}", why.code, why.reason)
            }
            _ => continue,
        };
        let message: Value = serde_json::from_str(text).context("the server sent something that is no JSON")?;
        let event = message["event"].as_str().unwrap_or_default();
        let data = message["data"].as_str().unwrap_or_default();
        match event {
            "pusher:connection_established" => {
                let hello: Value = serde_json::from_str(data).unwrap_or_default();
                let socket_id =
                    hello["socket_id"].as_str().unwrap_or_default().parse().context("the server gave no socket id")?;
                socket.send(Message::text(subscribe(server, &arguments.channel, socket_id)?)).await?;
            }
            "pusher_internal:subscription_succeeded" => complain(&format!("subscribed to {}", arguments.channel)),
            "pusher:pong" => {}
            "pusher:subscription_error" => anyhow::bail!("{} cannot be subscribed to: {data}", arguments.channel),
            "pusher:error" => complain(&message["data"]["message"].to_string()),
            _ => {
                let line = if arguments.json {
                    json!({ "channel": message["channel"], "event": event, "data": message["data"] }).to_string()
                } else {
                    format!("{} {event} {data}", message["channel"].as_str().unwrap_or_default())
                };
                if !say(&line) {
                    return Ok(ExitCode::SUCCESS); // whoever read along has enough
                }
            }
        }
    }
}

fn subscribe(server: &Server, channel: &str, socket_id: SocketId) -> anyhow::Result<String> {
    let name = ChannelName::parse(channel, server.app.limits.channel_name);
    let kind = name.with_context(|| format!("{channel:?} cannot be subscribed to"))?.kind();
    let mut data = json!({ "channel": channel });
    if kind.needs_authorization() {
        let member = kind.is_presence().then(|| json!({ "user_id": format!("herald-listen-{socket_id}") }).to_string());
        let signed = channel_string(socket_id, channel, member.as_deref());
        data["auth"] = format!("{}:{}", server.app.key, server.app.secret.sign(signed.as_bytes())).into();
        if let Some(member) = member {
            data["channel_data"] = member.into();
        }
    }
    Ok(json!({ "event": "pusher:subscribe", "data": data }).to_string())
}
