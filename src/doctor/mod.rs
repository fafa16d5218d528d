//! `herald doctor`: looks at everything from outside in, and says what is wrong and how to mend it.
//!
//! Start at [`examine`]: each of `CHECKS` looks at one thing of a [`Patient`] and returns [`Finding`]s; all at once, each for [`WITHIN`] at
//! most. A further third party is a file here and a line there.
//!
//! Always: nothing is changed by looking, and no finding holds a secret.

mod certificate;
mod clerk;
mod cloudinary;
mod crisp;
mod database;
mod oauth;
mod redis;
mod sentry;
mod server;

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, StatusCode, header};
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use serde::Serialize;
use url::{Host, Url};

use crate::config::{Config, Loaded};
use crate::outgoing::address::NamedBy;
use crate::outgoing::{self, Outgoing};

/// How long a check may take.
pub const WITHIN: Duration = Duration::from_secs(5);
/// How long one of its requests may take.
const ANSWER: Duration = Duration::from_secs(4);
/// How much is read of an answer.
const MAX_BYTES: usize = 1024 * 1024;

/// What is looked at, by its name.
const CHECKS: &[(&str, Check)] = &[
    ("configuration", |patient| Box::pin(configuration(patient))),
    ("server", |patient| Box::pin(server::here(patient))),
    ("public address", |patient| Box::pin(server::public(patient))),
    ("proxies", |patient| Box::pin(server::proxies(patient))),
    ("origins", |patient| Box::pin(server::origins(patient))),
    ("certificate", |patient| Box::pin(certificate::files(patient))),
    ("redis", |patient| Box::pin(redis::check(patient))),
    ("database", |patient| Box::pin(database::check(patient))),
    ("clerk", |patient| Box::pin(clerk::check(patient))),
    ("oidc", |patient| Box::pin(clerk::oidc(patient))),
    ("cloudinary", |patient| Box::pin(cloudinary::check(patient))),
    ("crisp", |patient| Box::pin(crisp::check(patient))),
    ("sentry", |patient| Box::pin(sentry::check(patient))),
    ("oauth", |patient| Box::pin(oauth::check(patient))),
];

type Check = for<'a> fn(&'a Patient) -> BoxFuture<'a, Findings>;

/// How it is with something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Worth a look.
    Hint,
    /// It has to be mended.
    Wrong,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub state: State,
    /// What was seen.
    pub text: String,
    /// What to do about it.
    pub mend: Option<String>,
}

/// What one check finds.
#[derive(Debug, Default)]
struct Findings(Vec<(State, String, Option<String>)>);

impl Findings {
    fn ok(&mut self, text: impl Into<String>) {
        self.0.push((State::Ok, text.into(), None));
    }

    fn hint(&mut self, text: impl Into<String>, mend: impl Into<String>) {
        self.0.push((State::Hint, text.into(), Some(mend.into())));
    }

    fn wrong(&mut self, text: impl Into<String>, mend: impl Into<String>) {
        self.0.push((State::Wrong, text.into(), Some(mend.into())));
    }
}

/// What is examined.
#[derive(Debug)]
pub struct Patient {
    loaded: Loaded,
    /// Where the world reaches it, by the command line or the configuration.
    public: Option<Url>,
    client: reqwest::Client,
    /// For those who have their own way to ask.
    outgoing: Outgoing,
    /// By how many seconds the clocks of others are ahead.
    clocks: Mutex<BTreeMap<String, i64>>,
}

/// An answer, as far as it is looked at.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
    /// The server's certificate, as DER.
    certificate: Option<Vec<u8>>,
}

impl Patient {
    /// A server with this configuration, which is looked at from `url` too.
    ///
    /// # Errors
    /// When the machine's certificates cannot be read.
    pub fn new(loaded: Loaded, url: Option<Url>) -> anyhow::Result<Self> {
        let client = outgoing::builder(NamedBy::Operator).timeout(ANSWER).tls_info(true).build()?;
        let configured = loaded.config.server.public_url.as_deref();
        let public = url.or_else(|| configured.and_then(|url| url.parse().ok()));
        Ok(Self { loaded, public, client, outgoing: Outgoing::new()?, clocks: Mutex::default() })
    }

    fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// Whether people depend on it: the app says so, or it is for more than this machine.
    fn is_in_production(&self) -> bool {
        self.loaded.is_production || self.public.as_ref().is_some_and(|url| !is_local(url))
    }

    /// Asks, and notes what time it is there. The error tells no address.
    async fn get(&self, url: &str, headers: HeaderMap) -> Result<Answer, String> {
        let sent = SystemTime::now();
        let mut answer = self.client.get(url).headers(headers).send().await.map_err(|error| reason(&error))?;
        if let Some(there) = answer.headers().get(header::DATE).and_then(|date| date.to_str().ok())
            && let Ok(there) = jiff::fmt::rfc2822::parse(there).map(|there| there.timestamp().as_second())
            && let Some(host) = answer.url().host_str()
        {
            let seconds = |time: SystemTime| {
                i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or_default()
            };
            // It answered somewhen in between.
            let ahead = there - there.clamp(seconds(sent), seconds(SystemTime::now()));
            self.clocks.lock().insert(host.to_owned(), ahead);
        }
        let certificate = answer.extensions().get::<reqwest::tls::TlsInfo>();
        let certificate = certificate.and_then(|info| info.peer_certificate()).map(<[u8]>::to_vec);
        let (status, headers, mut body) = (answer.status(), answer.headers().clone(), Vec::new());
        while let Some(part) = answer.chunk().await.map_err(|error| reason(&error))? {
            body.extend_from_slice(&part);
            if body.len() > MAX_BYTES {
                return Err("its answer does not end".to_owned());
            }
        }
        Ok(Answer { status, headers, body, certificate })
    }
}

/// Looks at everything.
pub async fn examine(patient: &Patient) -> Vec<Finding> {
    let looked = CHECKS.iter().map(|(name, check)| async move {
        let found = tokio::time::timeout(WITHIN, check(patient)).await.unwrap_or_else(|_| {
            let mut findings = Findings::default();
            findings.wrong(format!("no answer within {WITHIN:?}"), "look whether a firewall drops what is sent there");
            findings
        });
        (*name, found)
    });
    let mut all = join_all(looked).await;
    all.push(("clocks", clocks(patient)));
    let finding = |check| move |(state, text, mend)| Finding { check, state, text, mend };
    all.into_iter().flat_map(|(name, found)| found.0.into_iter().map(finding(name))).collect()
}

/// What a configuration with problems is found to be: nothing else can be looked at then.
#[must_use]
pub fn misconfigured(problems: &crate::config::Problems) -> Vec<Finding> {
    let mend = || Some("docs/configuration.md, config/herald.toml".to_owned());
    let wrong = |text| Finding { check: "configuration", state: State::Wrong, text, mend: mend() };
    problems.0.iter().map(|problem| wrong(problem.to_string())).collect()
}

async fn configuration(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    for warning in &patient.loaded.warnings {
        findings.hint(warning.clone(), "docs/configuration.md");
    }
    if patient.loaded.is_newcomer {
        let text = "no app is configured: the credentials that everybody knows are in effect, on this machine only";
        findings.hint(text, "set HERALD_APP_ID, HERALD_APP_KEY and HERALD_APP_SECRET");
    }
    findings.ok("it can be used");
    findings
}

/// Tokens live a minute: clocks that differ end them early, or before they begin.
fn clocks(patient: &Patient) -> Findings {
    let mut findings = Findings::default();
    let allowed = patient.config().auth.clock_skew.as_secs();
    let clocks = patient.clocks.lock();
    for (host, ahead) in clocks.iter().filter(|(_, ahead)| ahead.unsigned_abs() > allowed + 1) {
        let which = if *ahead > 0 { "behind" } else { "ahead of" };
        findings.wrong(
            format!("this machine's clock is {} s {which} that of {host}", ahead.unsigned_abs()),
            format!("keep it by NTP (timedatectl set-ntp true): {allowed} s are allowed (auth.clock_skew)"),
        );
    }
    if findings.0.is_empty() && !clocks.is_empty() {
        let hosts: Vec<&str> = clocks.keys().map(String::as_str).collect();
        findings.ok(format!("as at {}", hosts.join(", ")));
    }
    findings
}

/// Whether only this machine gets there.
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => true,
    }
}

/// The innermost cause, which says most and names no address; of a certificate what is wrong with it.
fn reason(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
