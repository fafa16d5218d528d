//! `herald doctor`: what is wrong, and how to mend it. Exit code 1 if something is.

use std::process::ExitCode;

use clap::Args;
use herald::config::Sources;
use herald::doctor::{Finding, Patient, State, examine, misconfigured};

use super::{runtime, say};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the world reaches the server, such as https://realtime.example.com; without it server.public_url
    #[arg(long)]
    url: Option<url::Url>,
    /// A list of objects, for programs: [{"check":…,"state":"ok"|"hint"|"wrong","text":…,"mend":…}]
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(sources: &Sources, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let findings = match sources.load() {
        Err(problems) => misconfigured(&problems),
        Ok(loaded) => {
            let patient = Patient::new(loaded, arguments.url.clone())?;
            runtime(1)?.block_on(examine(&patient))
        }
    };
    if arguments.json {
        say(&serde_json::to_string_pretty(&findings)?);
    } else {
        findings.iter().for_each(|finding| _ = say(&line(finding)));
    }
    let is_well = findings.iter().all(|finding| finding.state != State::Wrong);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(finding: &Finding) -> String {
    let state = match finding.state {
        State::Ok => "ok",
        State::Hint => "hint",
        State::Wrong => "WRONG",
    };
    let mend = finding.mend.as_ref().map(|mend| format!("\n{:24}-> {mend}", "")).unwrap_or_default();
    format!("{state:7} {:15} {}{mend}", finding.check, finding.text)
}
