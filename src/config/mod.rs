//! What can be configured: sections of `herald.toml`, and the environment over them.
//!
//! Start at [`Sources::load`]. Every option is declared once, in [`options`]; [`kind`] says how a value is read and what is allowed,
//! [`section`] gathers everything that is wrong before anybody is told, [`environment`] knows the names that people bring from elsewhere,
//! [`env_file`] reads an app's `.env`, [`document`] writes the pages. Nothing else in Herald reads the environment.

pub mod cloudinary_url;
mod database_url;
pub mod document;
pub mod env_file;
pub mod environment;
pub mod kind;
pub mod options;
pub mod redis_url;
mod secrets;
pub mod section;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use herald_protocol::Secret;
use toml::Table;

pub use database_url::{DatabaseUrl, Pooler};
use kind::SentryDsn;
pub use kind::{AuthDefault, Listen, LogFormat, ResetForm, WhenUnreachable, is_type_pattern};
pub use options::{
    AppOptions, AuthOptions, CloudinaryOptions, ClusterOptions, Config, ConnectionOptions, CrispOptions,
    DatabaseOptions, DispatchOptions, IntegrationOptions, KeyPair, LimitOptions, Limits, LogOptions,
    NotificationOptions, OauthOptions, QueueOptions, RuleOptions, SentryOptions, ServerOptions, ShutdownOptions,
    TlsOptions, TokenOptions, WebhookOptions,
};
pub use redis_url::{RedisKind, RedisUrl};
pub use section::Written;

use crate::integrations::cloudinary::Account;
use environment::{EnvFile, Environment};
use section::{Place, Problem, Reader, Section as _, nearest};

/// The file that is read if it exists and no other is named.
const DEFAULT_FILE: &str = "herald.toml";
/// The newcomer's credentials, for this machine only.
const NEWCOMER: [&str; 3] = ["app-id", "app-key", "app-secret"];

/// A configuration that can be run, and what is worth telling about it.
#[derive(Debug)]
pub struct Loaded {
    /// What is in effect.
    pub config: Config,
    /// What somebody who watches the start should know.
    pub notes: Vec<String>,
    /// What is likely a mistake, though nothing that prevents the start.
    pub warnings: Vec<String>,
    /// How it was written.
    pub written: Written,
    /// Every value that is shown to nobody, and its parts: what must not leave the process by any way.
    pub secrets: Vec<Secret>,
    /// Whether no app was configured, so that the newcomer's credentials are in effect.
    pub is_newcomer: bool,
    /// Whether the app beside it says that it runs in production (`NODE_ENV`).
    pub is_production: bool,
    /// Where that app is (`NEXT_PUBLIC_APP_URL`).
    pub app_url: Option<String>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the configuration cannot be used: {one}"),
            several => {
                write!(f, "the configuration cannot be used, it has {} problems:", several.len())?;
                several.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

/// Where a configuration is read, at the start and on every SIGHUP after it.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The process's own variables.
    pub variables: Vec<(String, String)>,
    /// The file of `--config`; without it that of `HERALD_CONFIG`, else `herald.toml` in the working directory if there is one.
    pub file: Option<PathBuf>,
    /// Files of further variables (`--env-file`), a later one over an earlier one.
    pub env_files: Vec<PathBuf>,
}

impl Sources {
    /// Reads the file, and the environment over it.
    ///
    /// # Errors
    /// All problems at once; each names the option, where its value came from, what it was (unless secret) and what is allowed.
    pub fn load(&self) -> Result<Loaded, Problems> {
        let mut early = Vec::new();
        let files: Vec<EnvFile> = self.env_files.iter().filter_map(|path| read_env_file(path, &mut early)).collect();
        let environment = Environment::new(self.variables.iter().cloned(), &files);
        load(&environment, self.file.clone(), early)
    }
}

fn read_env_file(path: &Path, problems: &mut Vec<Problem>) -> Option<EnvFile> {
    let mut problem = |message| {
        problems.push(Problem { option: path.display().to_string(), origin: "--env-file".to_owned(), message });
    };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let (variables, unreadable) = env_file::parse(&text);
            unreadable.iter().for_each(|wrong| problem(format!("line {}: {}", wrong.line, wrong.message)));
            Some(EnvFile { path: path.to_owned(), variables })
        }
        Err(error) => {
            problem(format!("the file cannot be read: {error}"));
            None
        }
    }
}

fn load(environment: &Environment, named: Option<PathBuf>, mut early: Vec<Problem>) -> Result<Loaded, Problems> {
    let named = match named {
        Some(path) => Some((path, "--config")),
        None => environment.get("HERALD_CONFIG").map(|found| (PathBuf::from(&found.value), "HERALD_CONFIG")),
    };
    let mut notes = environment.notes.clone();
    let (path, file) = match named {
        Some((path, by)) => {
            let file = read(&path, by).unwrap_or_else(|problem| {
                early.push(problem);
                Table::new()
            });
            (path, file)
        }
        None if Path::new(DEFAULT_FILE).exists() => {
            notes.push(format!("{DEFAULT_FILE} in the working directory is used"));
            let file = read(Path::new(DEFAULT_FILE), DEFAULT_FILE).unwrap_or_else(|problem| {
                early.push(problem);
                Table::new()
            });
            (DEFAULT_FILE.into(), file)
        }
        None => (DEFAULT_FILE.into(), Table::new()),
    };

    let mut reader = Reader::new(environment, path.display().to_string());
    reader.problems = early;
    for (variable, message) in &environment.unread {
        reader.problem(variable, String::new(), message.clone());
    }
    let root = Place { file, environment: Some("HERALD_".to_owned()), ..Place::default() };
    let mut config = Config::read(root, &mut reader);
    let is_newcomer = apps_of_environment(environment, &mut config, &mut reader);
    if let Some(url) = &mut config.cluster.redis.url
        && url.password.as_deref().unwrap_or_default().is_empty()
        && let Some(password) = &config.cluster.redis.password
    {
        url.password = Some(password.expose().to_owned());
    }
    public_dsn(environment, &mut config, &mut reader, &mut notes);
    browsers_token(&mut config.integrations.crisp, &reader, &mut notes);
    reader.known.insert("HERALD_CONFIG".to_owned());
    let unknown = environment.names().filter(|name| !reader.known.contains(*name));
    let warnings = unknown.map(|name| {
        let nearest = nearest(name, reader.known.iter().map(String::as_str));
        let hint = match name {
            "HERALD_PORT" | "HERALD_HOST" => Some("HERALD_LISTEN"),
            _ => nearest,
        };
        format!(
            "{name} is no option of Herald{}",
            hint.map(|hint| format!("; did you mean {hint}?")).unwrap_or_default()
        )
    });
    let mut warnings: Vec<String> = warnings.collect();
    warnings.extend(environment.warnings.iter().cloned());
    warnings.extend(likely_mistakes(&config.auth));
    check(&config, is_newcomer, &mut reader);
    let Reader { problems, written, secrets, .. } = reader;
    if problems.is_empty() {
        Ok(Loaded {
            config,
            notes,
            warnings,
            written,
            secrets,
            is_newcomer,
            is_production: environment.is_production,
            app_url: environment.app_url.clone(),
        })
    } else {
        Err(Problems(problems))
    }
}

fn read(path: &Path, named_by: &str) -> Result<Table, Problem> {
    let problem = |message| Problem { option: path.display().to_string(), origin: named_by.to_owned(), message };
    let text = std::fs::read_to_string(path).map_err(|error| problem(format!("the file cannot be read: {error}")))?;
    text.parse().map_err(|error: toml::de::Error| {
        // The parser's full text quotes the line, which may hold a secret: only what is wrong and where is told.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        problem(format!(
            "line {}: {}",
            before.lines().count().max(1),
            error.message().lines().next().unwrap_or_default()
        ))
    })
}

/// Adds the app of the environment, or the newcomer's if there is no other; true for the latter.
fn apps_of_environment(environment: &Environment, config: &mut Config, reader: &mut Reader<'_>) -> bool {
    const CREDENTIALS: [&str; 3] = ["HERALD_APP_ID", "HERALD_APP_KEY", "HERALD_APP_SECRET"];
    let place = Place { path: "apps".to_owned(), environment: Some("HERALD_APP_".to_owned()), ..Place::default() };
    let app = AppOptions::read(place, reader);
    let missing: Vec<&str> = CREDENTIALS.into_iter().filter(|name| environment.get(name).is_none()).collect();
    if missing.is_empty() {
        config.apps.retain(|known| known.id != app.id);
        let replaced = format!(", apps {:?}", app.id);
        reader.origins.retain(|(_, which), _| *which != replaced);
        config.apps.push(app);
        return false;
    }
    if missing.len() < CREDENTIALS.len() {
        let set: Vec<&str> =
            CREDENTIALS.iter().filter_map(|name| environment.get(name)).map(|found| found.origin.as_str()).collect();
        let message =
            format!("{} is set but not {}; the three belong together", set.join(" and "), missing.join(" and "));
        reader.problem("apps", String::new(), message);
        return false;
    }
    let others = environment.names().filter(|name| name.starts_with("HERALD_APP_"));
    if !config.apps.is_empty() {
        for name in others.filter(|name| reader.known.contains(*name)).map(str::to_owned).collect::<Vec<_>>() {
            let message = "it is for the app of HERALD_APP_ID, HERALD_APP_KEY and HERALD_APP_SECRET, which are not set; an app of the file is configured there";
            reader.problem(&name, String::new(), message.to_owned());
        }
        return false;
    }
    let [id, key, secret] = NEWCOMER;
    config.apps.push(AppOptions { id: id.to_owned(), key: key.to_owned(), secret: Secret::new(secret), ..app });
    true
}

/// The DSN of the app's pages is another project's: it counts only if that is asked for.
fn public_dsn(environment: &Environment, config: &mut Config, reader: &mut Reader<'_>, notes: &mut Vec<String>) {
    let Some(found) = environment.public_sentry_dsn.as_ref().filter(|_| config.sentry.dsn.is_none()) else { return };
    if config.sentry.use_public_dsn {
        config.sentry.dsn = reader.value::<SentryDsn>("sentry.dsn", found);
        notes.push(format!("{} is used", found.origin));
    } else {
        notes.push(format!(
            "{} is left to the app's pages; with HERALD_SENTRY_USE_PUBLIC_DSN=true Herald reports there too",
            found.origin
        ));
    }
}

/// `CRISP_TOKEN_ID` without a key is what a page calls the chat's session by: nothing that opens the REST API.
fn browsers_token(crisp: &mut CrispOptions, reader: &Reader<'_>, notes: &mut Vec<String>) {
    let origin = reader.origins.get(&("integrations.crisp.token_id".to_owned(), String::new()));
    let variable = origin.and_then(|origin| origin.split(' ').next());
    if crisp.token_key.is_none()
        && let Some(variable @ ("CRISP_TOKEN_ID" | "CRISP_TOKEN_ID_FILE")) = variable
        && crisp.token_id.take().is_some()
    {
        notes.retain(|note| !note.starts_with(&format!("{variable} ")));
        notes.push(format!(
            "{variable} is left to the app's pages: without CRISP_TOKEN_KEY it is no token of Crisp's REST API"
        ));
    }
}

/// What is allowed in who users are, and yet seldom meant.
fn likely_mistakes(auth: &AuthOptions) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_on = auth.is_clerk();
    if is_on && auth.authorized_parties.is_empty() {
        warnings.push(
            "auth.authorized_parties is empty: tokens that were made for other pages of the same Clerk instance are accepted; \
             set HERALD_CLERK_AUTHORIZED_PARTIES to your app's origin"
                .to_owned(),
        );
    }
    if is_on && auth.default == AuthDefault::Allow {
        warnings.push(
            "auth.default is allow: every signed-in user may subscribe to every private and presence channel about which no rule speaks"
                .to_owned(),
        );
    }
    warnings
}

/// What is missing where Crisp is configured by half.
fn half_of_crisp(crisp: &CrispOptions, source: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, String)> {
    let from = |option: &str| {
        let origin = source(option).map(|origin| format!(" (from {origin})")).unwrap_or_default();
        format!("integrations.crisp.{option} is set{origin}")
    };
    let missing = |variable: &str, set: &str| format!("it is missing ({variable} in the environment); {}", from(set));
    let mut problems = Vec::new();
    match (&crisp.token_id, &crisp.token_key) {
        (Some(_), None) => problems.push(("token_key", missing("CRISP_TOKEN_KEY", "token_id"))),
        (None, Some(_)) => problems.push(("token_id", missing("CRISP_TOKEN_ID", "token_key"))),
        _ => {}
    }
    let ways = [
        ("token_id", crisp.token_id.is_some()),
        ("token_key", crisp.token_key.is_some()),
        ("signing_secrets", !crisp.signing_secrets.is_empty()),
        ("webhook_keys", !crisp.webhook_keys.is_empty()),
        ("identity_secret", crisp.identity_secret.is_some()),
    ];
    match (&crisp.website_id, ways.iter().find(|(_, is_set)| *is_set)) {
        (None, Some((set, _))) => problems.push(("website_id", missing("CRISP_WEBSITE_ID", set))),
        // What a browser knows anyway says nothing of whether it is to be on.
        (Some(_), None) if !source("website_id").is_some_and(|origin| origin.starts_with("NEXT_PUBLIC_")) => {
            let message = "one of these is missing beside it: token_id with token_key, signing_secrets, webhook_keys, identity_secret \
                (CRISP_TOKEN_ID with CRISP_TOKEN_KEY, CRISP_SIGNING_SECRET, CRISP_WEBHOOK_KEY, CRISP_IDENTITY_SECRET in the \
                environment)";
            problems.push(("website_id", message.to_owned()));
        }
        _ => {}
    }
    problems
}

/// What no single option can tell.
fn check(config: &Config, is_newcomer: bool, reader: &mut Reader<'_>) {
    // A value that could not be read was told as such; that it is missing now is no news.
    let told = reader.problems.clone();
    let is_told = |option: &str, place: &str| {
        let of_place = |origin: &str| origin.contains(place) || !origin.contains(", apps ");
        told.iter().any(|problem| problem.option == option && of_place(&problem.origin))
    };
    let origins = reader.origins.clone();
    let source = |option: &str, place: &str| origins.get(&(option.to_owned(), place.to_owned())).cloned();
    let from = |option: &str| source(option, "").map(|origin| format!(" (from {origin})")).unwrap_or_default();
    let together = |missing: &str, set: &str| {
        (!is_told(missing, ""))
            .then(|| format!("it is missing; {set} is set{}, and the two belong together", from(set)))
    };
    let tls = match (&config.tls.cert, &config.tls.key) {
        (Some(_), None) => together("tls.key", "tls.cert").map(|message| ("tls.key", String::new(), message)),
        (None, Some(_)) => together("tls.cert", "tls.key").map(|message| ("tls.cert", String::new(), message)),
        (Some(_), Some(_)) if matches!(config.server.listen, Listen::Unix(_)) => {
            let message = "a unix socket is not encrypted; leave tls out or listen on an address".to_owned();
            Some(("tls.cert", source("tls.cert", "").unwrap_or_default(), message))
        }
        _ => None,
    };
    if let Some((option, origin, message)) = tls {
        reader.problem(option, origin, message);
    }
    if config.auth.session_recheck.is_some()
        && config.auth.secret_key.is_none()
        && let Some(message) = together("auth.secret_key", "auth.session_recheck")
    {
        reader.problem("auth.secret_key", String::new(), message);
    }
    let missing = match (&config.dispatch.url, &config.dispatch.secret) {
        (Some(_), None) => Some(("dispatch.secret", "dispatch.url")),
        (None, Some(_)) => Some(("dispatch.url", "dispatch.secret")),
        _ => None,
    };
    if let Some((missing, set)) = missing
        && let Some(message) = together(missing, set)
    {
        reader.problem(missing, String::new(), message);
    }
    let cloudinary = &config.integrations.cloudinary;
    if Account::of(cloudinary).is_none() {
        let options = [
            ("integrations.cloudinary.cloud_name", "CLOUDINARY_CLOUD_NAME", cloudinary.cloud_name.is_some()),
            ("integrations.cloudinary.api_key", "CLOUDINARY_API_KEY", cloudinary.api_key.is_some()),
            ("integrations.cloudinary.api_secret", "CLOUDINARY_API_SECRET", cloudinary.api_secret.is_some()),
            (
                "integrations.cloudinary.webhook_secrets",
                "CLOUDINARY_WEBHOOK_SECRETS",
                !cloudinary.webhook_secrets.is_empty(),
            ),
        ];
        // What a browser knows anyway says nothing of whether it is to be on.
        let is_public = |option: &str| source(option, "").is_some_and(|origin| origin.starts_with("NEXT_PUBLIC_"));
        let private = options.iter().find(|(option, _, is_set)| *is_set && !is_public(option));
        if let Some((set, _, _)) = private
            && !is_told("integrations.cloudinary.url", "")
        {
            for (option, variable, _) in
                options.iter().take(3).filter(|(option, _, is_set)| !is_set && !is_told(option, ""))
            {
                let message = format!("it is missing ({variable} in the environment); {set} is set{}", from(set));
                reader.problem(option, String::new(), message);
            }
        }
    }
    if !told.iter().any(|problem| problem.option.starts_with("integrations.crisp.")) {
        let source = |option: &str| source(&format!("integrations.crisp.{option}"), "");
        for (option, message) in half_of_crisp(&config.integrations.crisp, source) {
            let origin = source(option).unwrap_or_default();
            reader.problem(&format!("integrations.crisp.{option}"), origin, message);
        }
    }
    for (name, oauth) in &config.integrations.oauth {
        let option = |end: &str| format!("integrations.oauth.{name}.{end}");
        let options = [
            (option("token_url"), oauth.token_url.is_some()),
            (option("client_id"), oauth.client_id.is_some()),
            (option("client_secret"), oauth.client_secret.is_some()),
        ];
        for (missing, _) in options.iter().filter(|(option, is_set)| !is_set && !is_told(option, "")) {
            let message = format!(
                "it is missing (HERALD_{} in the environment); token_url, client_id and client_secret belong together",
                missing.to_uppercase().replace(['.', '-'], "_")
            );
            reader.problem(missing, String::new(), message);
        }
    }
    if let Some(app) = &config.integrations.app
        && config.apps.iter().all(|known| known.id != *app)
    {
        let ids: Vec<&str> = config.apps.iter().map(|app| app.id.as_str()).collect();
        let message = format!("{app:?} is no app's id; there are {}", ids.join(", "));
        let origin = source("integrations.app", "").unwrap_or_default();
        reader.problem("integrations.app", origin, message);
    }
    let (heartbeat, node_timeout) = (config.cluster.heartbeat, config.cluster.node_timeout);
    if node_timeout < 3 * heartbeat {
        let origin = source("cluster.node_timeout", "").or_else(|| source("cluster.heartbeat", "")).unwrap_or_default();
        let message = format!(
            "{node_timeout:?} is less than three times cluster.heartbeat ({heartbeat:?}): a node that misses one sign of life would count as dead"
        );
        reader.problem("cluster.node_timeout", origin, message);
    }
    if config.auth.oidc.issuer.is_some() {
        let clerk = [
            ("auth.jwt_key", config.auth.jwt_key.is_some()),
            ("auth.publishable_key", config.auth.publishable_key.is_some()),
        ];
        let origin = source("auth.oidc.issuer", "").unwrap_or_default();
        if let Some((option, _)) = clerk.iter().find(|(_, is_set)| *is_set) {
            let message = format!("{option}{} is set too: users are Clerk's, or another issuer's", from(option));
            reader.problem("auth.oidc.issuer", origin.clone(), message);
        }
        if config.auth.oidc.audiences.is_empty() && !is_told("auth.oidc.audiences", "") {
            let message =
                "it is missing: without it tokens that the issuer made for others would be accepted".to_owned();
            reader.problem("auth.oidc.audiences", origin, message);
        }
    }
    let (mut ids, mut keys) = (HashMap::new(), HashMap::new());
    for (position, app) in config.apps.iter().enumerate() {
        let which = if app.id.is_empty() { (position + 1).to_string() } else { format!("{:?}", app.id) };
        let (name, place) = (format!("app {which}"), format!(", apps {which}"));
        let file = reader.origin_of(&place);
        let mut problem = |option: &str, message: String| {
            let value = source(option, &place).or_else(|| source(option, ""));
            let origin = if is_newcomer { String::new() } else { value.unwrap_or_else(|| file.clone()) };
            reader.problem(option, origin, message);
        };
        for (option, missing) in
            [("apps.id", app.id.is_empty()), ("apps.key", app.key.is_empty()), ("apps.secret", app.secret.is(""))]
        {
            if missing && !is_told(option, &place) {
                problem(option, format!("{name} needs one"));
            }
        }
        if !app.id.is_empty() && ids.insert(&app.id, position).is_some() {
            problem("apps.id", format!("{:?} is the id of two apps; each needs its own", app.id));
        }
        for pair in &app.keys {
            let is_told = ["apps.keys.key", "apps.keys.secret"].iter().any(|option| is_told(option, &place));
            if (pair.key.is_empty() || pair.secret.is("")) && !is_told {
                problem("apps.keys", format!("each pair of {name} needs a key and a secret"));
            }
        }
        for key in std::iter::once(&app.key).chain(app.keys.iter().map(|pair| &pair.key)).filter(|key| !key.is_empty())
        {
            if keys.insert(key, position).is_some() {
                problem("apps.key", format!("{key:?} is used twice; a key belongs to one app and one pair"));
            }
        }
        for webhook in &app.webhooks {
            if webhook.url.is_none() && !is_told("apps.webhooks.url", &place) {
                problem("apps.webhooks.url", format!("each webhook of {name} needs one"));
            }
        }
        let [_, _, secret] = NEWCOMER;
        if !config.server.listen.is_local()
            && (app.secret.is(secret) || app.keys.iter().any(|pair| pair.secret.is(secret)))
        {
            let message = format!(
                "{name} has credentials that everybody knows, which are accepted on addresses of this machine only, not on {}{}: \
                 set HERALD_APP_ID, HERALD_APP_KEY and HERALD_APP_SECRET, or an app of the file",
                config.server.listen,
                from("server.listen")
            );
            problem("apps.secret", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::integrations::crisp::Crisp;

    fn load_file(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources = Sources { variables: variables.collect(), file: Some(file.path().into()), ..Sources::default() };
        sources.load().map_err(|problems| problems.to_string())
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let text = r#"
            listne = 1
            [server]
            listen = "nowhere"
            max_conections = 5
            [connection]
            activity_timeout = "soon"
            [[apps]]
            id = "shop"
            key = "k"
            secret = 17171717
            [apps.limits]
            event_name = 0
            [[apps.webhooks]]
            url = "ftp://x"
            events = ["channel_ocupied"]
        "#;
        let error = load_file(text, &[("HERALD_METRICS_LISTEN", "x"), ("HERALD_LISTEN", "y")]).unwrap_err();
        for part in [
            "listne (from ",
            r#"server.listen (from HERALD_LISTEN): "y" is not allowed; it must be ADDRESS:PORT"#,
            r#""nowhere" is not allowed"#,
            "server.max_conections",
            "did you mean max_connections?",
            r#"connection.activity_timeout"#,
            r#""soon" is not allowed; it must be a span of time from 1s to 1h"#,
            r#"metrics.listen (from HERALD_METRICS_LISTEN): "x""#,
            r#"apps.secret"#,
            r#", apps "shop"): 0 is not allowed; it must be a number from 1 to 1000"#,
            r#""ftp://x" is not allowed; it must be an http:// or https:// URL"#,
            "channel_vacated",
        ] {
            assert!(error.contains(part), "{part}\n{error}");
        }
        assert!(!error.contains("17171717"), "{error}");
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_refused() {
        let app = "[[apps]]\nid = \"a\"\nkey = \"k\"\nsecret = \"s\"\nallowed_origins = [";
        for origin in
            ["example.com", "*.example.com:8443", "*.", "https://", "https://me@example.com", "https://a/b", "null"]
        {
            let error = load_file(&format!("{app}\"{origin}\"]\n"), &[]).unwrap_err();
            assert!(error.contains("an origin such as"), "{origin}: {error}");
        }
    }

    #[test]
    fn a_broken_file_is_named_with_its_line_and_without_its_text() {
        let error = load_file("[[apps]]\nsecret = \"hush\" x\n", &[]).unwrap_err();
        assert!(error.contains("line 2") && !error.contains("hush"), "{error}");
        let sources = Sources { file: Some("/no/such/file".into()), ..Sources::default() };
        assert!(sources.load().unwrap_err().to_string().contains("/no/such/file"));
    }

    #[test]
    fn an_app_of_the_environment_joins_or_replaces() {
        let file = "[[apps]]\nid = \"a\"\nkey = \"ka\"\nsecret = \"sa\"\n";
        let app = |id| [("HERALD_APP_ID", id), ("PUSHER_KEY", "kb"), ("REVERB_APP_SECRET", "sb")];
        let ids = |loaded: Loaded| loaded.config.apps.into_iter().map(|app| (app.id, app.key)).collect::<Vec<_>>();
        let pair = |id: &str, key: &str| (id.to_owned(), key.to_owned());
        assert_eq!(ids(load_file(file, &app("b")).unwrap()), [pair("a", "ka"), pair("b", "kb")]);
        assert_eq!(ids(load_file(file, &app("a")).unwrap()), [pair("a", "kb")]);
        let error = load_file(file, &[("HERALD_APP_ID", "b")]).unwrap_err();
        assert!(error.contains("HERALD_APP_KEY and HERALD_APP_SECRET"), "{error}");
        assert!(load_file(file, &[("HERALD_APP_CLIENT_EVENTS", "false")]).is_err());
    }

    #[test]
    fn nothing_configured_is_for_this_machine_only() {
        let loaded = load_file("", &[]).unwrap();
        assert!(loaded.is_newcomer);
        assert_eq!(loaded.config.server.listen.to_string(), "127.0.0.1:6001");
        assert!(loaded.config.apps[0].client_events);
        for listen in ["0.0.0.0:6001", "[::]:6001", "192.0.2.1:6001"] {
            let error = load_file("", &[("HERALD_LISTEN", listen)]).unwrap_err();
            assert!(error.contains("HERALD_APP_ID, HERALD_APP_KEY and HERALD_APP_SECRET"), "{error}");
        }
        for listen in ["127.0.0.2:0", "[::1]:0", "unix:/tmp/x", "[::ffff:127.0.0.1]:0"] {
            assert!(load_file("", &[("HERALD_LISTEN", listen)]).is_ok(), "{listen}");
        }
    }

    #[test]
    fn an_unknown_variable_is_one_warning() {
        let loaded = load_file("", &[("HERALD_LISTNE", "x"), ("HERALD_LOG_LEVEL", "debug")]).unwrap();
        assert_eq!(loaded.warnings, ["HERALD_LISTNE is no option of Herald; did you mean HERALD_LISTEN?"]);
        assert_eq!(loaded.config.log.level, tracing::Level::DEBUG);
    }

    #[test]
    fn cloudinary_is_on_whole_or_not_at_all() {
        let account = |variables: &[(&str, &str)]| {
            let options = load_file("", variables).map(|loaded| loaded.config.integrations.cloudinary);
            options.map(|options| Account::of(&options).map(|account| account.cloud_name))
        };
        let (cloud, key, secret) =
            (("CLOUDINARY_CLOUD_NAME", "demo"), ("CLOUDINARY_API_KEY", "12"), ("CLOUDINARY_API_SECRET", "hush17"));
        let url = ("CLOUDINARY_URL", "cloudinary://1:hush17@other");
        let public = [
            ("NEXT_PUBLIC_CLOUDINARY_CLOUD_NAME", "demo"),
            ("NEXT_PUBLIC_CLOUDINARY_UPLOAD_PRESET", "p"),
            ("NEXT_PUBLIC_CLOUDINARY_API_KEY", "1"),
        ];
        for (variables, expected) in [
            (&[][..], None),
            (&[cloud, key, secret], Some("demo")),
            (&[url], Some("other")),
            (&[url, cloud], Some("demo")),
            (&public, None),
            (&[public[0], key, secret], Some("demo")),
            (&[public[0], public[2], secret], Some("demo")),
            (&[public[0], url], Some("demo")),
        ] {
            assert_eq!(account(variables).unwrap().as_deref(), expected, "{variables:?}");
        }
        for (variables, missing) in [
            (&[cloud][..], &["CLOUDINARY_API_KEY", "CLOUDINARY_API_SECRET"][..]),
            (&[key, secret], &["CLOUDINARY_CLOUD_NAME"]),
            (&[cloud, secret], &["CLOUDINARY_API_KEY"]),
            (&[public[0], key], &["CLOUDINARY_API_SECRET"]),
            (&[public[0], public[2], ("CLOUDINARY_WEBHOOK_SECRETS", "hush17")], &["CLOUDINARY_API_SECRET"]),
            (&[("CLOUDINARY_URL", "https://1:hush17@demo")], &["cloudinary://API_KEY:API_SECRET@CLOUD_NAME"]),
        ] {
            let error = account(variables).unwrap_err();
            assert!(missing.iter().all(|name| error.contains(name)), "{variables:?}: {error}");
            assert!(!error.contains("hush17"), "{error}");
        }
        let options = load_file("", &[cloud, key, secret, public[1]]).unwrap().config.integrations.cloudinary;
        assert_eq!((options.upload_preset.as_deref(), options.max_file_bytes), (Some("p"), 10_000_000));
        let file =
            "[integrations.cloudinary]\nupload_preset = \"off\"\nallowed_formats = []\nmax_file_bytes = \"5MiB\"\n";
        let options = load_file(file, &[]).unwrap().config.integrations.cloudinary;
        assert_eq!((options.upload_preset, options.max_file_bytes), (None, 5 * 1024 * 1024));
    }

    #[test]
    fn crisp_is_on_whole_or_not_at_all() {
        let outgoing = crate::outgoing::Outgoing::new().unwrap();
        let website = |variables: &[(&str, &str)]| {
            let options = load_file("", variables).map(|loaded| loaded.config.integrations.crisp);
            options.map(|options| Crisp::of(&options, &outgoing).map(|crisp| crisp.website_id))
        };
        let (own, public) = (("CRISP_WEBSITE_ID", "own-1"), ("NEXT_PUBLIC_CRISP_WEBSITE_ID", "public-1"));
        let (id, key) = (("CRISP_TOKEN_ID", "t1"), ("CRISP_TOKEN_KEY", "hush17"));
        let hidden = [
            ("CRISP_SIGNING_SECRET", "hush17"),
            ("CRISP_WEBHOOK_SECRET", "hush17"),
            ("CRISP_WEBHOOK_KEY", "hush17"),
            ("CRISP_IDENTITY_SECRET", "hush17"),
        ];
        for (variables, expected) in [
            (&[][..], None),
            (&[public], None),
            (&[id], None),
            (&[public, id], None),
            (&[own, id, key], Some("own-1")),
            (&[own, public, id, key], Some("own-1")),
            (&[public, id, key], Some("public-1")),
            (&[own, ("CRISP_TOKEN_IDENTIFIER", "t"), ("CRISP_API_KEY", "hush17")], Some("own-1")),
            (&[own, ("CRISP_IDENTIFIER", "t"), ("CRISP_KEY", "hush17")], Some("own-1")),
            (&[own, ("CRISP_API_IDENTIFIER", "t"), key], Some("own-1")),
            (&[own, id, hidden[0]], Some("own-1")),
            (&[public, hidden[1]], Some("public-1")),
            (&[own, hidden[2]], Some("own-1")),
            (&[own, hidden[3]], Some("own-1")),
        ] {
            assert_eq!(website(variables).unwrap().as_deref(), expected, "{variables:?}");
        }
        let lone = load_file("", &[own, id, hidden[0]]).unwrap();
        assert!(lone.config.integrations.crisp.token_id.is_none());
        let said =
            |part: &str| lone.notes.iter().any(|note| note.starts_with("CRISP_TOKEN_ID ") && note.contains(part));
        assert!(said("left to the app's pages") && !said("is used"), "{:?}", lone.notes);
        for (variables, missing) in [
            (
                &[own][..],
                &[
                    "website_id",
                    "CRISP_TOKEN_KEY",
                    "CRISP_SIGNING_SECRET",
                    "CRISP_WEBHOOK_KEY",
                    "CRISP_IDENTITY_SECRET",
                ][..],
            ),
            (&[own, id], &["CRISP_SIGNING_SECRET"]),
            (&[own, key], &["integrations.crisp.token_id", "CRISP_TOKEN_ID"]),
            (&[public, key], &["integrations.crisp.token_id", "CRISP_TOKEN_ID"]),
            (&[own, ("CRISP_TOKEN_IDENTIFIER", "t")], &["integrations.crisp.token_key", "CRISP_TOKEN_KEY"]),
            (&[own, ("HERALD_INTEGRATIONS_CRISP_TOKEN_ID", "t"), hidden[0]], &["CRISP_TOKEN_KEY"]),
            (&[id, key], &["integrations.crisp.website_id", "CRISP_WEBSITE_ID", "token_id"]),
            (&hidden[..1], &["CRISP_WEBSITE_ID", "signing_secrets"]),
            (&hidden[2..3], &["CRISP_WEBSITE_ID", "webhook_keys"]),
            (&hidden[3..], &["CRISP_WEBSITE_ID", "identity_secret"]),
            (&[own, id, key, ("CRISP_TIER", "premium")], &["one of plugin, website and user"]),
        ] {
            let error = website(variables).unwrap_err();
            assert!(missing.iter().all(|name| error.contains(name)), "{variables:?}: {error}");
            assert!(!error.contains("hush17"), "{error}");
        }
        let both = load_file("", &[own, ("CRISP_SIGNING_SECRET", "old, new")]).unwrap();
        let secrets = &both.config.integrations.crisp.signing_secrets;
        assert!(secrets.len() == 2 && secrets[0].is("old") && secrets[1].is("new"));
    }

    #[test]
    fn services_that_refresh_tokens_have_names_of_ones_own_in_file_and_environment() {
        let file = |name: &str| {
            format!(
                "[integrations.oauth.{name}]\ntoken_url = \"https://a/t\"\nclient_id = \"i\"\nclient_secret = \"hush17\"\n"
            )
        };
        let names = |loaded: Result<Loaded, String>| -> Vec<(String, Option<String>)> {
            let named = loaded.unwrap().config.integrations.oauth;
            named.into_iter().map(|(name, options)| (name, options.client_id)).collect()
        };
        let prefixed = |end: &str| format!("HERALD_INTEGRATIONS_OAUTH_{end}");
        let variables = |name: &str| {
            ["TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "OTHER_CLIENT_SECRET"]
                .map(|end| prefixed(&format!("{name}_{end}")))
        };
        let said = |name: &str| {
            variables(name).into_iter().map(|variable| (variable, "https://e/t".to_owned())).collect::<Vec<_>>()
        };
        let load_said = |file: &str, said: &[(String, String)]| {
            let said: Vec<(&str, &str)> = said.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            load_file(file, &said)
        };
        let id = |name: &str, id: &str| (name.to_owned(), Some(id.to_owned()));
        assert_eq!(names(load_said(&file("google"), &[])), [id("google", "i")]);
        let both = names(load_said(&file("google"), &said("MY_MAIL")));
        assert_eq!(both, [id("google", "i"), id("my_mail", "https://e/t")]);
        // A name that no variable can have as it is, and the environment is over the file.
        let over = [(prefixed("GOOGLE_DRIVE_CLIENT_ID"), "other".to_owned())];
        assert_eq!(names(load_said(&file("google-drive"), &over)), [id("google-drive", "other")]);
        for (file, said, part) in [
            (
                String::new(),
                &over[..],
                "integrations.oauth.google_drive.token_url: it is missing (HERALD_INTEGRATIONS_OAUTH_GOOGLE_DRIVE_TOKEN_URL",
            ),
            (
                file("google").replace("client_secret", "other_client_secret"),
                &[],
                "integrations.oauth.google.client_secret: it is missing",
            ),
            (file("Google"), &[], "integrations.oauth.Google (from"),
            (file("google").replace("client_id", "client_idd"), &[], "did you mean client_id?"),
            ("[integrations]\noauth = 1\n".to_owned(), &[], "such as [integrations.oauth.name]"),
            (
                "[integrations.oauth]\ngoogle = \"hush17\"\n".to_owned(),
                &[],
                "it must be a section, [integrations.oauth.google]",
            ),
            (file("google").replace("https://", "https://me:hush17@"), &[], "the https:// URL of a token endpoint"),
        ] {
            let error = load_said(&file, said).unwrap_err();
            assert!(error.contains(part) && !error.contains("\"hush17"), "{part}: {error}");
        }
        let loaded = load_said(&file("google"), &said("MY_MAIL")).unwrap();
        assert!(loaded.warnings.iter().all(|warning| !warning.contains("OAUTH")), "{:?}", loaded.warnings);
        assert!(loaded.secrets.iter().any(|secret| secret.is("hush17")));
        let shown = document::effective(&loaded.config);
        assert!(shown.contains("[integrations.oauth.google]") && !shown.contains("hush17"), "{shown}");
    }

    #[test]
    fn an_app_and_a_key_belong_to_one() {
        let app = |id: &str, key: &str| format!("[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"s\"\n");
        assert!(load_file(&(app("a", "k") + &app("a", "l")), &[]).unwrap_err().contains("id of two apps"));
        assert!(load_file(&(app("a", "k") + &app("b", "k")), &[]).unwrap_err().contains("used twice"));
    }
}
