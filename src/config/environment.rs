//! The environment: Herald's own names, and those that people bring from Pusher, soketi, Reverb and the app beside it.
//!
//! Start at [`Environment::new`]: env files below, the process's own variables over them, then the names of `FOREIGN` become ours. Always: a
//! `NEXT_PUBLIC_` name stands for public values only, and only where nothing else is said; no message shows a value.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use url::Url;

/// Names that stand for one of ours; the first one found wins, ours before all.
const FOREIGN: &[(&str, &[&str])] = &[
    ("HERALD_APP_ID", &["PUSHER_APP_ID", "SOKETI_DEFAULT_APP_ID", "REVERB_APP_ID"]),
    ("HERALD_APP_KEY", &["PUSHER_KEY", "PUSHER_APP_KEY", "SOKETI_DEFAULT_APP_KEY", "REVERB_APP_KEY"]),
    ("HERALD_APP_SECRET", &["PUSHER_SECRET", "PUSHER_APP_SECRET", "SOKETI_DEFAULT_APP_SECRET", "REVERB_APP_SECRET"]),
    ("HERALD_CLUSTER_REDIS_URL", &["REDIS_URL", "KV_URL", "UPSTASH_REDIS_URL"]),
    ("HERALD_CLUSTER_REDIS_PASSWORD", &["REDIS_PASSWORD"]),
    ("HERALD_AUTH_JWT_KEY", &["CLERK_JWT_KEY", "CLERK_PEM_PUBLIC_KEY"]),
    ("HERALD_AUTH_PUBLISHABLE_KEY", &["CLERK_PUBLISHABLE_KEY", "NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY"]),
    ("HERALD_AUTH_SECRET_KEY", &["CLERK_SECRET_KEY"]),
    ("HERALD_AUTH_API_URL", &["CLERK_API_URL"]),
    ("HERALD_AUTH_SESSION_RECHECK", &["HERALD_SESSION_RECHECK"]),
    ("HERALD_AUTH_ISSUER", &["HERALD_CLERK_ISSUER"]),
    ("HERALD_AUTH_AUTHORIZED_PARTIES", &["HERALD_CLERK_AUTHORIZED_PARTIES", "NEXT_PUBLIC_APP_URL"]),
    ("HERALD_AUTH_ALLOW_TEMPLATE_TOKENS", &["HERALD_CLERK_ALLOW_TEMPLATE_TOKENS"]),
    ("HERALD_AUTH_ALLOWED_ORIGINS", &["HERALD_ALLOWED_ORIGINS"]),
    ("HERALD_AUTH_WEBHOOK_SECRET", &["CLERK_WEBHOOK_SIGNING_SECRET", "CLERK_WEBHOOK_SECRET"]),
    ("HERALD_AUTH_CLERK_INSTANCE_ID", &["HERALD_CLERK_INSTANCE_ID"]),
    ("HERALD_AUTH_ENCRYPTION_MASTER_KEY", &["PUSHER_ENCRYPTION_MASTER_KEY_BASE64"]),
    ("HERALD_INTEGRATIONS_CLOUDINARY_CLOUD_NAME", &["CLOUDINARY_CLOUD_NAME", "NEXT_PUBLIC_CLOUDINARY_CLOUD_NAME"]),
    ("HERALD_INTEGRATIONS_CLOUDINARY_API_KEY", &["CLOUDINARY_API_KEY", "NEXT_PUBLIC_CLOUDINARY_API_KEY"]),
    ("HERALD_INTEGRATIONS_CLOUDINARY_API_SECRET", &["CLOUDINARY_API_SECRET"]),
    ("HERALD_INTEGRATIONS_CLOUDINARY_URL", &["CLOUDINARY_URL"]),
    (
        "HERALD_INTEGRATIONS_CLOUDINARY_UPLOAD_PRESET",
        &["CLOUDINARY_UPLOAD_PRESET", "NEXT_PUBLIC_CLOUDINARY_UPLOAD_PRESET"],
    ),
    ("HERALD_INTEGRATIONS_CLOUDINARY_WEBHOOK_SECRETS", &["CLOUDINARY_WEBHOOK_SECRETS"]),
    ("HERALD_INTEGRATIONS_CRISP_WEBSITE_ID", &["CRISP_WEBSITE_ID", "NEXT_PUBLIC_CRISP_WEBSITE_ID"]),
    (
        "HERALD_INTEGRATIONS_CRISP_TOKEN_ID",
        &["CRISP_TOKEN_ID", "CRISP_TOKEN_IDENTIFIER", "CRISP_IDENTIFIER", "CRISP_API_IDENTIFIER"],
    ),
    ("HERALD_INTEGRATIONS_CRISP_TOKEN_KEY", &["CRISP_TOKEN_KEY", "CRISP_API_KEY", "CRISP_KEY"]),
    ("HERALD_INTEGRATIONS_CRISP_TIER", &["CRISP_TIER"]),
    ("HERALD_INTEGRATIONS_CRISP_SIGNING_SECRETS", &["CRISP_SIGNING_SECRET", "CRISP_WEBHOOK_SECRET"]),
    ("HERALD_INTEGRATIONS_CRISP_WEBHOOK_KEYS", &["CRISP_WEBHOOK_KEY"]),
    ("HERALD_INTEGRATIONS_CRISP_IDENTITY_SECRET", &["CRISP_IDENTITY_SECRET"]),
    ("HERALD_DATABASE_URL", &["DATABASE_URL", "POSTGRES_URL_NON_POOLING", "POSTGRES_URL"]),
    ("HERALD_DATABASE_SCHEMA", &["HERALD_DB_SCHEMA"]),
    ("HERALD_API_KEYS", &["HERALD_API_KEY"]),
    ("HERALD_LIMITS_RESET", &["HERALD_RATELIMIT_RESET"]),
    ("HERALD_TOKENS_KEYS", &["HERALD_TOKEN_KEYS"]),
    ("HERALD_TOKENS_STRICT", &["HERALD_TOKEN_KEYS_STRICT"]),
    ("HERALD_NOTIFICATIONS_REQUIRE_KNOWN_USERS", &["HERALD_REQUIRE_KNOWN_USERS"]),
    ("HERALD_SENTRY_DSN", &["SENTRY_DSN"]),
    ("HERALD_SENTRY_ENVIRONMENT", &["SENTRY_ENVIRONMENT"]),
    ("HERALD_SENTRY_RELEASE", &["SENTRY_RELEASE"]),
    ("HERALD_SENTRY_TRACES_SAMPLE_RATE", &["SENTRY_TRACES_SAMPLE_RATE"]),
    ("HERALD_SENTRY_SEND_PII", &["SENTRY_SEND_PII"]),
    ("HERALD_APP_CLIENT_EVENTS", &["SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES"]),
    ("HERALD_PATH_PREFIX", &["SOKETI_PATH_PREFIX", "REVERB_SERVER_PATH"]),
    ("HERALD_TLS_CERT", &["SOKETI_SSL_CERT"]),
    ("HERALD_TLS_KEY", &["SOKETI_SSL_KEY"]),
];
/// Names that make up `HERALD_LISTEN`.
const FOREIGN_HOSTS: &[&str] = &["SOKETI_HOST", "REVERB_SERVER_HOST"];
const FOREIGN_PORTS: &[&str] = &["SOKETI_PORT", "REVERB_SERVER_PORT"];
/// One URL for an app's id, key and secret, as Pusher's libraries take it.
const PUSHER_URL: &str = "PUSHER_URL";
/// What a browser connects with: of use where a backend's id and secret are there without it.
const PUBLIC_KEY: &str = "NEXT_PUBLIC_PUSHER_KEY";
/// How much the app's own log says, in its words.
const FOREIGN_LEVELS: &[&str] = &["LOG_LEVEL", "RUST_LOG"];
/// Known, and said to somebody else: to the app's clients, or about what Herald has no use for.
const NOT_NEEDED: &[&str] = &[
    "PUSHER_CLUSTER",
    "NEXT_PUBLIC_PUSHER_CLUSTER",
    "PUSHER_HOST",
    "PUSHER_PORT",
    "PUSHER_SCHEME",
    "PUSHER_USE_TLS",
    "NEXT_PUBLIC_PUSHER_HOST",
    "NEXT_PUBLIC_PUSHER_PORT",
    "NEXT_PUBLIC_CLERK_PROXY_URL",
    "SUPABASE_URL",
    "NEXT_PUBLIC_SUPABASE_URL",
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_SECRET_KEY",
    "SUPABASE_ANON_KEY",
    "SUPABASE_PUBLISHABLE_KEY",
    "NEXT_PUBLIC_SUPABASE_ANON_KEY",
    "NEXT_PUBLIC_SUPABASE_PUBLISHABLE_KEY",
    "POSTGRES_PRISMA_URL",
];
/// Whose variables are looked at for secrets with a public name, and the words that say what is a secret.
const VENDORS: &[&str] = &[
    "HERALD_",
    "PUSHER_",
    "CLERK_",
    "SUPABASE_",
    "CLOUDINARY_",
    "CRISP_",
    "SENTRY_",
    "DATABASE_",
    "POSTGRES_",
    "REDIS_",
    "UPSTASH_",
    "KV_",
];
const SECRET_WORDS: &[&str] = &[
    "SECRET",
    "PASSWORD",
    "SERVICE_ROLE",
    "TOKEN_KEY",
    "WEBHOOK_KEY",
    "CRISP_API_KEY",
    "CRISP_KEY",
    "AUTH_TOKEN",
    "REST_TOKEN",
    "MASTER_KEY",
    "API_KEYS",
    "DATABASE_URL",
    "POSTGRES_URL",
    "POSTGRES_PRISMA_URL",
    "PUSHER_URL",
    "REDIS_URL",
    "KV_URL",
    "CLOUDINARY_URL",
];

/// The DSN of the app's pages, which counts where it is asked to.
const PUBLIC_SENTRY_DSN: &str = "NEXT_PUBLIC_SENTRY_DSN";

/// A value, and where it stood.
#[derive(Clone, Debug)]
pub struct Found {
    /// The text.
    pub value: String,
    /// The variable or variables that it came from.
    pub origin: String,
}

/// The variables of an env file.
#[derive(Debug)]
pub struct EnvFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub variables: Vec<(String, String)>,
}

/// What the environment says, under Herald's names.
#[derive(Debug, Default)]
pub struct Environment {
    found: BTreeMap<String, Found>,
    /// Whether the app beside it says that it runs in production (`NODE_ENV`).
    pub is_production: bool,
    /// The DSN of the app's pages, if that is set and no other is.
    pub public_sentry_dsn: Option<Found>,
    /// Where that app is (`NEXT_PUBLIC_APP_URL`).
    pub app_url: Option<String>,
    /// What somebody who watches the start should know.
    pub notes: Vec<String>,
    /// What is likely a mistake.
    pub warnings: Vec<String>,
    /// Variables that cannot be used, or whose file cannot be read: which, and why.
    pub unread: Vec<(String, String)>,
}

impl Environment {
    /// Sorts out the variables of a process, over those of `files`, a later file over an earlier one; an empty variable counts as not set.
    /// What ends with `_FILE` names a file with the value of the variable without that, as secrets of containers are mounted.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (String, String)>, files: &[EnvFile]) -> Self {
        let mut environment = Self::default();
        let mut all = layers(variables, files);
        environment.is_production = all.get("NODE_ENV").is_some_and(|found| found.value == "production");
        environment.app_url = all.get("NEXT_PUBLIC_APP_URL").map(|found| found.value.clone());
        environment.look_at_others(&all);
        let is_foreign = |name: &str| FOREIGN.iter().any(|(_, names)| names.contains(&name));
        let ours = |name: &str| {
            is_foreign(name)
                || FOREIGN_LEVELS.contains(&name)
                || name == PUBLIC_KEY
                || name == PUBLIC_SENTRY_DSN
                || ["HERALD_", "PUSHER_", "SOKETI_", "REVERB_"].iter().any(|prefix| name.starts_with(prefix))
        };
        all.retain(|name, _| ours(unfiled(name)));
        let injected: Vec<String> =
            all.iter().filter(|(name, found)| is_injected(name, &found.value)).map(|(name, _)| name.clone()).collect();
        if !injected.is_empty() {
            environment
                .notes
                .push(format!("ignored, since Kubernetes sets them for its services: {}", injected.join(", ")));
            all.retain(|name, _| !injected.contains(name));
        }
        environment.read_files(&mut all);
        for (name, foreign) in FOREIGN {
            if !all.contains_key(*name)
                && let Some(found) = first(&all, foreign)
            {
                environment.take(name, found);
            }
        }
        if !environment.found.contains_key("HERALD_SENTRY_DSN") && !all.contains_key("HERALD_SENTRY_DSN") {
            environment.public_sentry_dsn = first(&all, &[PUBLIC_SENTRY_DSN]);
        }
        if !all.contains_key("HERALD_LISTEN")
            && let Some(listen) = foreign_address(first(&all, FOREIGN_HOSTS), first(&all, FOREIGN_PORTS))
        {
            environment.take("HERALD_LISTEN", listen);
        }
        if !all.contains_key("HERALD_LOG_LEVEL") {
            environment.take_level(&all);
        }
        let own = all.iter().filter(|(name, _)| name.starts_with("HERALD_") && !is_foreign(name));
        environment.found.extend(own.map(|(name, found)| (name.clone(), found.clone())).collect::<Vec<_>>());
        environment.complete_app(&all);
        for Found { value, origin } in environment.found.values() {
            if value.contains("${") {
                environment
                    .warnings
                    .push(format!("{origin} contains ${{…}}, which is taken as it is: nothing is expanded"));
            }
        }
        environment
    }

    /// Puts what files hold in the place of the variables that name them.
    fn read_files(&mut self, all: &mut BTreeMap<String, Found>) {
        let filed: Vec<(String, Found)> = all.extract_if(.., |name, _| unfiled(name) != name).collect();
        for (variable, Found { value: path, origin }) in filed {
            let name = unfiled(&variable).to_owned();
            if all.contains_key(&name) {
                self.unread.push((origin, format!("{name} is set too: one of them")));
                continue;
            }
            match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {
                    self.unread.push((origin, format!("the file {path} is empty")));
                }
                Ok(text) => {
                    all.insert(name, Found { value: text.trim().to_owned(), origin });
                }
                Err(error) => self.unread.push((origin, format!("the file {path} cannot be read: {error}"))),
            }
        }
    }

    fn take(&mut self, name: &str, found: Found) {
        self.notes.push(format!("{} is used", found.origin));
        self.found.insert(name.to_owned(), found);
    }

    /// What the app's own log is told. Others know more levels than Herald, and none of them stops the start.
    fn take_level(&mut self, all: &BTreeMap<String, Found>) {
        for found in FOREIGN_LEVELS.iter().filter_map(|name| all.get(*name)) {
            match level(&found.value) {
                Some(level) => {
                    return self.take("HERALD_LOG_LEVEL", Found { value: level.to_owned(), ..found.clone() });
                }
                None => self.notes.push(format!("{} is ignored: it names no level", found.origin)),
            }
        }
    }

    /// The credentials that are still missing, from `PUSHER_URL` and from what browsers are given.
    fn complete_app(&mut self, all: &BTreeMap<String, Found>) {
        const CREDENTIALS: [&str; 3] = ["HERALD_APP_ID", "HERALD_APP_KEY", "HERALD_APP_SECRET"];
        if let Some(url) = all.get(PUSHER_URL)
            && CREDENTIALS.iter().any(|name| !self.found.contains_key(*name))
        {
            match credentials(&url.value) {
                Some(credentials) => {
                    self.notes.push(format!("{} is used", url.origin));
                    for (name, value) in CREDENTIALS.into_iter().zip(credentials) {
                        self.found.entry(name.to_owned()).or_insert(Found { value, origin: url.origin.clone() });
                    }
                }
                None => {
                    let message = "the value is not allowed; it must be http://KEY:SECRET@HOST/apps/APP_ID".to_owned();
                    self.unread.push((url.origin.clone(), message));
                }
            }
        }
        let [id, key, secret] = CREDENTIALS.map(|name| self.found.contains_key(name));
        match all.get(PUBLIC_KEY) {
            Some(public) if !key && (id || secret) => self.take("HERALD_APP_KEY", public.clone()),
            Some(public) if !key => {
                self.notes.push(format!("{} is ignored: there is no app id and no secret for it", public.origin));
            }
            _ => {}
        }
    }

    /// What is said about variables that are nobody's option.
    fn look_at_others(&mut self, all: &BTreeMap<String, Found>) {
        let not_needed: Vec<&str> = NOT_NEEDED.iter().copied().filter(|name| all.contains_key(*name)).collect();
        if !not_needed.is_empty() {
            self.notes.push(format!("known and not needed: {}", not_needed.join(", ")));
        }
        for (name, Found { origin, .. }) in all {
            if let Some(secret) = name.strip_prefix("NEXT_PUBLIC_")
                && VENDORS.iter().any(|vendor| secret.starts_with(vendor))
                && SECRET_WORDS.iter().any(|word| secret.contains(word))
            {
                self.warnings.push(format!(
                    "{origin} is a secret, and Next.js ships what begins with NEXT_PUBLIC_ to every browser; it is not read. Change that \
                     secret, and name it {secret}"
                ));
            }
        }
        let is_said = |name: &str| {
            let foreign = FOREIGN.iter().find(|(ours, _)| *ours == name).map_or(&[][..], |(_, names)| *names);
            std::iter::once(&name).chain(foreign).any(|name| all.keys().any(|set| unfiled(set) == *name))
        };
        if let Some(rest) = all.get("UPSTASH_REDIS_REST_URL").filter(|_| !is_said("HERALD_CLUSTER_REDIS_URL")) {
            self.warnings.push(format!(
                "{} is HTTP, which joins no nodes: this node is alone. UPSTASH_REDIS_URL (rediss://…) would join them",
                rest.origin
            ));
        }
        if let Some(supabase) = first(all, &["SUPABASE_URL", "NEXT_PUBLIC_SUPABASE_URL"])
            && !is_said("HERALD_DATABASE_URL")
        {
            self.warnings.push(format!(
                "{} is no address of a Postgres, so notifications are kept in a file; DATABASE_URL says where Supabase's Postgres is",
                supabase.origin
            ));
        }
        if let Some(version) = all.get("CLERK_API_VERSION").filter(|version| version.value != "v1") {
            self.warnings.push(format!("{} is ignored: Herald speaks v1", version.origin));
        }
    }

    /// The value of one of our names.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Found> {
        self.found.get(name)
    }

    /// The names that are set.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.found.keys().map(String::as_str)
    }
}

/// The variable whose value a file holds, if this names one; else the same.
fn unfiled(name: &str) -> &str {
    name.strip_suffix("_FILE").unwrap_or(name)
}

/// Kubernetes tells every container where every service is: `X_PORT=tcp://…`, `X_SERVICE_HOST`, `X_PORT_80_TCP_ADDR`.
fn is_injected(name: &str, value: &str) -> bool {
    let port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let mut parts = rest.splitn(3, '_');
        parts.next().is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
            && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    });
    let names_port =
        name.ends_with("_PORT") && ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    port || names_port || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

/// What counts of all that is said: without what is empty, and without what a layer above says too, by itself or by a file.
fn layers(variables: impl IntoIterator<Item = (String, String)>, files: &[EnvFile]) -> BTreeMap<String, Found> {
    let in_file = |file: &EnvFile| -> BTreeMap<String, Found> {
        let found = |(name, value): &(String, String)| {
            let origin = format!("{name} in {}", file.path.display());
            (name.clone(), Found { value: value.trim().to_owned(), origin })
        };
        file.variables.iter().map(found).collect()
    };
    let of_process = |(name, value): (String, String)| {
        let value = unquoted(value.trim()).to_owned();
        (name.clone(), Found { value, origin: name })
    };
    let mut all = BTreeMap::new();
    for mut layer in files.iter().map(in_file).chain([variables.into_iter().map(of_process).collect()]) {
        layer.retain(|_, found| !found.value.is_empty());
        let said: BTreeSet<&str> = layer.keys().map(|name| unfiled(name)).collect();
        all.retain(|name: &String, _| !said.contains(unfiled(name)));
        all.extend(layer);
    }
    all
}

/// Docker's env files leave the quotes on: one matching pair goes.
fn unquoted(value: &str) -> &str {
    let between = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    between('"').or_else(|| between('\'')).map_or(value, str::trim)
}

fn first(all: &BTreeMap<String, Found>, names: &[&str]) -> Option<Found> {
    names.iter().find_map(|name| all.get(*name).cloned())
}

/// Id, key and secret of `http(s)://KEY:SECRET@HOST[:PORT]/apps/APP_ID`.
fn credentials(text: &str) -> Option<[String; 3]> {
    let url: Url = text.parse().ok()?;
    let id = url.path().strip_prefix("/apps/")?.trim_end_matches('/');
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().ok().map(String::from);
    let credentials = [decoded(id)?, decoded(url.username())?, decoded(url.password()?)?];
    let is_whole = matches!(url.scheme(), "http" | "https") && credentials.iter().all(|part| !part.is_empty());
    is_whole.then_some(credentials)
}

/// Our word for a level: of the words of others, or of what a list such as `warn,herald=debug` says about Herald.
fn level(text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    let directives = || text.split(',').map(str::trim);
    let ours = directives().find_map(|directive| directive.strip_prefix("herald="));
    Some(match ours.or_else(|| directives().find(|directive| !directive.contains('=')))? {
        "error" | "fatal" | "critical" | "silent" | "off" => "error",
        "warn" | "warning" => "warn",
        "info" | "notice" | "log" | "http" => "info",
        "debug" | "verbose" => "debug",
        "trace" | "silly" => "trace",
        _ => return None,
    })
}

fn foreign_address(host: Option<Found>, port: Option<Found>) -> Option<Found> {
    let origin = match (&host, &port) {
        (None, None) => return None,
        (Some(host), Some(port)) => format!("{} and {}", host.origin, port.origin),
        (Some(only), None) | (None, Some(only)) => only.origin.clone(),
    };
    let host = match host.map(|host| host.value) {
        None => "127.0.0.1".to_owned(),
        Some(name) if name == "localhost" => "127.0.0.1".to_owned(),
        Some(ipv6) if ipv6.contains(':') && !ipv6.starts_with('[') => format!("[{ipv6}]"),
        Some(host) => host,
    };
    let port = port.map_or_else(|| "6001".to_owned(), |port| port.value);
    Some(Found { value: format!("{host}:{port}"), origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(files: &[EnvFile], variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())), files)
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        over(&[], variables)
    }

    #[test]
    fn the_first_found_wins() {
        let all = ["HERALD_APP_ID", "PUSHER_APP_ID", "SOKETI_DEFAULT_APP_ID", "REVERB_APP_ID"];
        for skipped in 0..all.len() {
            let set: Vec<_> = all.iter().skip(skipped).map(|name| (*name, *name)).collect();
            assert_eq!(environment(&set).get("HERALD_APP_ID").unwrap().value, all[skipped]);
        }
        assert!(environment(&[("PUSHER_KEY", "k")]).notes.contains(&"PUSHER_KEY is used".to_owned()));
    }

    #[test]
    fn a_file_holds_the_value_of_the_variable_that_it_is_named_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (secret, empty) = (file("secret", " hush \n"), file("empty", "\n"));
        let found = environment(&[("PUSHER_SECRET_FILE", &secret), ("HERALD_API_KEYS_FILE", &secret)]);
        for (name, origin) in [("HERALD_APP_SECRET", "PUSHER_SECRET_FILE"), ("HERALD_API_KEYS", "HERALD_API_KEYS_FILE")]
        {
            let found = found.get(name).unwrap();
            assert_eq!((found.value.as_str(), found.origin.as_str()), ("hush", origin));
        }
        assert!(found.unread.is_empty() && found.names().count() == 2);
        for (variables, why) in [
            (&[("HERALD_APP_SECRET_FILE", "/no/such/file")][..], "/no/such/file cannot be read"),
            (&[("HERALD_APP_SECRET_FILE", empty.as_str())], "is empty"),
            (
                &[("HERALD_APP_SECRET_FILE", secret.as_str()), ("HERALD_APP_SECRET", "x")],
                "HERALD_APP_SECRET is set too",
            ),
        ] {
            let unread = environment(variables).unread;
            assert!(unread[0].0 == "HERALD_APP_SECRET_FILE" && unread[0].1.contains(why), "{unread:?}");
        }
    }

    #[test]
    fn hosts_and_ports_of_others_make_an_address() {
        for (set, address) in [
            (&[("SOKETI_PORT", "7000")][..], "127.0.0.1:7000"),
            (&[("SOKETI_PORT", "7000"), ("SOKETI_HOST", "0.0.0.0")], "0.0.0.0:7000"),
            (&[("REVERB_SERVER_PORT", "8080"), ("REVERB_SERVER_HOST", "::")], "[::]:8080"),
            (&[("SOKETI_PORT", "7000"), ("REVERB_SERVER_PORT", "8080")], "127.0.0.1:7000"),
            (&[("SOKETI_PORT", "7000"), ("HERALD_LISTEN", "127.0.0.1:1")], "127.0.0.1:1"),
        ] {
            assert_eq!(environment(set).get("HERALD_LISTEN").unwrap().value, address, "{set:?}");
        }
    }

    #[test]
    fn what_kubernetes_injects_is_ignored_with_a_line() {
        for (name, value) in [
            ("HERALD_PORT", "tcp://10.0.0.1:6001"),
            ("HERALD_PORT_6001_TCP", "tcp://10.0.0.1:6001"),
            ("HERALD_PORT_6001_TCP_ADDR", "10.0.0.1"),
            ("HERALD_SERVICE_HOST", "10.0.0.1"),
            ("HERALD_SERVICE_PORT_HTTP", "6001"),
            ("SOKETI_PORT", "tcp://10.0.0.1:6001"),
            ("REVERB_SERVER_PORT", "tcp://10.0.0.1:6001"),
        ] {
            let environment = environment(&[(name, value)]);
            assert_eq!(environment.names().count(), 0, "{name}");
            assert!(environment.notes.iter().any(|note| note.contains(name)), "{name}");
        }
    }

    #[test]
    fn values_are_trimmed_and_lose_one_pair_of_quotes() {
        for (value, expected) in [
            (" k ", Some("k")),
            ("\"k\"", Some("k")),
            ("'k'", Some("k")),
            ("\"'k'\"", Some("'k'")),
            ("\"k'", Some("\"k'")),
            ("\"", Some("\"")),
            ("  ", None),
            ("\"\"", None),
        ] {
            let environment = environment(&[("PUSHER_KEY", value)]);
            let found = environment.get("HERALD_APP_KEY").map(|found| found.value.as_str());
            assert_eq!(found, expected, "{value:?}");
        }
    }

    #[test]
    fn the_real_environment_is_over_the_files_and_a_later_file_over_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "from-file").unwrap();
        let secret = secret.to_str().unwrap();
        let file = |path: &str, variables: &[(&str, &str)]| EnvFile {
            path: path.into(),
            variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let first = [("PUSHER_KEY", "a"), ("PUSHER_APP_ID", "a"), ("PUSHER_SECRET", "a"), ("PUSHER_KEY", "b")];
        let files = [file("a.env", &first), file("b.env", &[("PUSHER_APP_ID", "b"), ("PUSHER_KEY", "")])];
        let found = over(&files, &[("PUSHER_SECRET_FILE", secret), ("PUSHER_APP_ID", " ")]);
        for (name, value, origin) in [
            ("HERALD_APP_ID", "b", "PUSHER_APP_ID in b.env"),
            ("HERALD_APP_KEY", "b", "PUSHER_KEY in a.env"),
            ("HERALD_APP_SECRET", "from-file", "PUSHER_SECRET_FILE"),
        ] {
            let found = found.get(name).unwrap();
            assert_eq!((found.value.as_str(), found.origin.as_str()), (value, origin), "{name}");
        }
        assert!(found.unread.is_empty(), "{:?}", found.unread);
    }

    #[test]
    fn one_url_stands_for_an_app_where_nothing_else_does() {
        let credentials = |variables: &[(&str, &str)]| {
            let environment = environment(variables);
            let get = |name: &str| environment.get(name).map(|found| found.value.clone()).unwrap_or_default();
            [get("HERALD_APP_ID"), get("HERALD_APP_KEY"), get("HERALD_APP_SECRET")].join(" ")
        };
        let url = ("PUSHER_URL", "https://k%2B:s%40@api-eu.pusher.com:443/apps/42");
        assert_eq!(credentials(&[url]), "42 k+ s@");
        assert_eq!(credentials(&[url, ("PUSHER_KEY", "other"), ("NEXT_PUBLIC_PUSHER_KEY", "public")]), "42 other s@");
        assert_eq!(credentials(&[url, ("NEXT_PUBLIC_PUSHER_KEY", "public")]), "42 k+ s@");
        for wrong in
            ["k:s@h/apps/1", "http://k@h/apps/1", "http://k:s@h/app/1", "http://k:s@h/apps/", "ftp://k:s@h/apps/1"]
        {
            let unread = environment(&[("PUSHER_URL", wrong)]).unread;
            assert!(unread[0].0 == "PUSHER_URL" && !unread[0].1.contains("k:s@h"), "{unread:?}");
        }
        let all = [("PUSHER_URL", "?"), ("PUSHER_APP_ID", "1"), ("PUSHER_KEY", "k"), ("PUSHER_SECRET", "s")];
        assert!(environment(&all).unread.is_empty(), "it is not needed");
    }

    #[test]
    fn a_public_name_completes_and_is_nothing_alone() {
        let public = ("NEXT_PUBLIC_PUSHER_KEY", "k");
        let alone = environment(&[public]);
        assert!(alone.get("HERALD_APP_KEY").is_none());
        assert!(alone.notes[0].contains("NEXT_PUBLIC_PUSHER_KEY is ignored"), "{:?}", alone.notes);
        let whole = environment(&[public, ("PUSHER_APP_ID", "1"), ("PUSHER_SECRET", "s")]);
        assert_eq!(whole.get("HERALD_APP_KEY").unwrap().value, "k");
        let ours = environment(&[public, ("PUSHER_APP_ID", "1"), ("PUSHER_KEY", "own")]);
        assert_eq!(ours.get("HERALD_APP_KEY").unwrap().value, "own");
    }

    #[test]
    fn a_secret_with_a_public_name_is_warned_of_and_not_read() {
        for name in [
            "NEXT_PUBLIC_CLERK_SECRET_KEY",
            "NEXT_PUBLIC_PUSHER_SECRET",
            "NEXT_PUBLIC_CLOUDINARY_API_SECRET",
            "NEXT_PUBLIC_SUPABASE_SERVICE_ROLE_KEY",
            "NEXT_PUBLIC_CRISP_TOKEN_KEY",
            "NEXT_PUBLIC_DATABASE_URL",
        ] {
            let environment = environment(&[(name, "hush")]);
            assert_eq!(environment.names().count(), 0, "{name}");
            let [warning] = environment.warnings.as_slice() else { panic!("{name}: {:?}", environment.warnings) };
            assert!(warning.contains(name) && !warning.contains("hush"), "{warning}");
        }
        let plain = ["NEXT_PUBLIC_CLERK_PUBLISHABLE_KEY", "NEXT_PUBLIC_SENTRY_DSN", "NEXT_PUBLIC_SECRET_SANTA"];
        for name in plain.into_iter().chain(["CLERK_SECRET_KEY"]) {
            assert!(environment(&[(name, "x")]).warnings.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_told_and_what_is_another_programs_is_left_alone() {
        for (name, value, warning) in [
            ("UPSTASH_REDIS_REST_URL", "https://x.upstash.io", "is HTTP"),
            ("NEXT_PUBLIC_SUPABASE_URL", "https://x.supabase.co", "is no address of a Postgres"),
            ("CLERK_API_VERSION", "v2", "is ignored"),
            ("PUSHER_SECRET", "${OTHER}", "nothing is expanded"),
        ] {
            let warnings = environment(&[(name, value)]).warnings;
            assert!(
                warnings.len() == 1 && warnings[0].starts_with(name) && warnings[0].contains(warning),
                "{warnings:?}"
            );
        }
        let others = [("PORT", "3000"), ("HOST", "0.0.0.0"), ("HOSTNAME", "abc"), ("PUSHER_CLUSTER", "eu")];
        for set in [
            &[("UPSTASH_REDIS_REST_URL", "https://x.upstash.io"), ("KV_URL", "redis://r")][..],
            &[("SUPABASE_URL", "https://x.supabase.co"), ("POSTGRES_URL", "postgres://d/a")],
            &[("SUPABASE_URL", "https://x.supabase.co"), ("DATABASE_URL_FILE", "/dev/null")],
            &[("CLERK_API_VERSION", "v1")],
            &others,
        ] {
            let environment = environment(set);
            assert!(environment.warnings.is_empty(), "{:?}", environment.warnings);
            assert!(environment.get("HERALD_LISTEN").is_none());
        }
    }

    #[test]
    fn levels_of_others_are_understood() {
        for (set, expected) in [
            (&[("LOG_LEVEL", "WARNING")][..], Some("warn")),
            (&[("LOG_LEVEL", "verbose"), ("RUST_LOG", "error")], Some("debug")),
            (&[("RUST_LOG", "warn,hyper=error,herald=trace")], Some("trace")),
            (&[("RUST_LOG", "hyper=error,info")], Some("info")),
            (&[("RUST_LOG", "hyper=error")], None),
            (&[("LOG_LEVEL", "30"), ("RUST_LOG", "debug")], Some("debug")),
            (&[("LOG_LEVEL", "debug"), ("HERALD_LOG_LEVEL", "error")], Some("error")),
        ] {
            let environment = environment(set);
            assert_eq!(environment.get("HERALD_LOG_LEVEL").map(|found| found.value.as_str()), expected, "{set:?}");
        }
    }
}
