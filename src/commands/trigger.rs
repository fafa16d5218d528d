//! `herald trigger CHANNEL EVENT DATA`: the smallest backend.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Args;
use herald::config::Sources;
use herald::outgoing::address::NamedBy;
use herald_protocol::signature::{body_md5, request_string};

use super::{Target, runtime, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Such as my-channel
    channel: String,
    /// Such as my-event
    event: String,
    /// What subscribers get, JSON or any text
    data: String,
    #[command(flatten)]
    target: Target,
}

pub(crate) fn run(sources: &Sources, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let server = arguments.target.find(sources)?;
    let body = serde_json::json!({ "name": arguments.event, "channel": arguments.channel, "data": arguments.data })
        .to_string();
    let mut url = server.url.clone();
    url.path_segments_mut().map_err(|()| anyhow::anyhow!("--url: it cannot have a path"))?.pop_if_empty().extend([
        "apps",
        &server.app.id,
        "events",
    ]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().to_string();
    let md5 = body_md5(body.as_bytes());
    let parameters =
        [("auth_key", server.app.key.as_str()), ("auth_timestamp", &now), ("auth_version", "1.0"), ("body_md5", &md5)];
    let signature = server.app.secret.sign(request_string("POST", url.path(), parameters).as_bytes());
    url.query_pairs_mut().extend_pairs(parameters).append_pair("auth_signature", &signature);

    runtime(1)?.block_on(async {
        let request = herald::outgoing::client(NamedBy::Operator)?
            .post(url)
            .header("content-type", "application/json")
            .body(body);
        let answer = request.send().await.map_err(reqwest::Error::without_url).with_context(|| {
            format!("the server cannot be reached at {}; is it running? --url says where it is", server.url)
        })?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        anyhow::ensure!(status.is_success(), "the server answered {status}: {}", text.trim());
        say(&format!("sent {} to {}", arguments.event, arguments.channel));
        Ok(ExitCode::SUCCESS)
    })
}
