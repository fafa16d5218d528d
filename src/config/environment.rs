//! The environment: Herald's own names, and those that people bring from Pusher, soketi and Reverb.

use std::collections::BTreeMap;

/// Names that stand for one of ours; the first one found wins, ours before all.
const FOREIGN: &[(&str, &[&str])] = &[
    ("HERALD_APP_ID", &["PUSHER_APP_ID", "SOKETI_DEFAULT_APP_ID", "REVERB_APP_ID"]),
    ("HERALD_APP_KEY", &["PUSHER_KEY", "PUSHER_APP_KEY", "SOKETI_DEFAULT_APP_KEY", "REVERB_APP_KEY"]),
    ("HERALD_APP_SECRET", &["PUSHER_SECRET", "PUSHER_APP_SECRET", "SOKETI_DEFAULT_APP_SECRET", "REVERB_APP_SECRET"]),
    ("HERALD_CLUSTER_REDIS_URL", &["REDIS_URL"]),
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
    ("HERALD_DATABASE_URL", &["DATABASE_URL", "POSTGRES_URL_NON_POOLING", "POSTGRES_URL"]),
    ("HERALD_DATABASE_SCHEMA", &["HERALD_DB_SCHEMA"]),
    ("HERALD_API_KEYS", &["HERALD_API_KEY"]),
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

/// What the environment says, under Herald's names.
#[derive(Debug, Default)]
pub struct Environment {
    found: BTreeMap<String, Found>,
    /// The DSN of the app's pages, if that is set and no other is.
    pub public_sentry_dsn: Option<Found>,
    /// What somebody who watches the start should know.
    pub notes: Vec<String>,
    /// Files that a variable names and that cannot be read: which variable, and why.
    pub unread: Vec<(String, String)>,
}

impl Environment {
    /// Sorts out the variables of a process; an empty one counts as not set. What ends with `_FILE` names a file with the value of the variable
    /// without that, as secrets of containers are mounted.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self::default();
        let is_foreign = |name: &str| FOREIGN.iter().any(|(_, names)| names.contains(&name));
        let ours = |name: &str| {
            is_foreign(name)
                || name == PUBLIC_SENTRY_DSN
                || ["HERALD_", "PUSHER_", "SOKETI_", "REVERB_"].iter().any(|prefix| name.starts_with(prefix))
        };
        let mut all: BTreeMap<String, String> =
            variables.into_iter().filter(|(name, value)| ours(unfiled(name)) && !value.is_empty()).collect();
        let injected: Vec<String> =
            all.iter().filter(|(name, value)| is_injected(name, value)).map(|(name, _)| name.clone()).collect();
        if !injected.is_empty() {
            environment
                .notes
                .push(format!("ignored, since Kubernetes sets them for its services: {}", injected.join(", ")));
            all.retain(|name, _| !injected.contains(name));
        }
        let from_files = environment.read_files(&mut all);
        let origin = |name: &str| from_files.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let first =
            |names: &[&str]| names.iter().find_map(|name| all.get(*name).map(|value| (value.clone(), origin(name))));
        for (name, foreign) in FOREIGN {
            if !all.contains_key(*name)
                && let Some((value, origin)) = first(foreign)
            {
                environment.notes.push(format!("{origin} is used"));
                environment.found.insert((*name).to_owned(), Found { value, origin });
            }
        }
        if !environment.found.contains_key("HERALD_SENTRY_DSN") && !all.contains_key("HERALD_SENTRY_DSN") {
            environment.public_sentry_dsn = first(&[PUBLIC_SENTRY_DSN]).map(|(value, origin)| Found { value, origin });
        }
        if !all.contains_key("HERALD_LISTEN")
            && let Some(listen) = foreign_address(first(FOREIGN_HOSTS), first(FOREIGN_PORTS))
        {
            environment.notes.push(format!("{} is used", listen.origin));
            environment.found.insert("HERALD_LISTEN".to_owned(), listen);
        }
        let own = all.iter().filter(|(name, _)| name.starts_with("HERALD_") && !is_foreign(name));
        let own = own.map(|(name, value)| (name.clone(), Found { value: value.clone(), origin: origin(name) }));
        environment.found.extend(own.collect::<Vec<_>>());
        environment
    }

    /// Puts what files hold in the place of the variables that name them; which came from which variable.
    fn read_files(&mut self, all: &mut BTreeMap<String, String>) -> BTreeMap<String, String> {
        let filed: Vec<(String, String)> = all.extract_if(.., |name, _| unfiled(name) != name).collect();
        let mut origins = BTreeMap::new();
        for (variable, path) in filed {
            let name = unfiled(&variable).to_owned();
            if all.contains_key(&name) {
                self.unread.push((variable, format!("{name} is set too: one of them")));
                continue;
            }
            match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {
                    self.unread.push((variable, format!("the file {path} is empty")));
                }
                Ok(text) => {
                    all.insert(name.clone(), text.trim().to_owned());
                    origins.insert(name, variable);
                }
                Err(error) => self.unread.push((variable, format!("the file {path} cannot be read: {error}"))),
            }
        }
        origins
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

fn foreign_address(host: Option<(String, String)>, port: Option<(String, String)>) -> Option<Found> {
    let origin = match (&host, &port) {
        (None, None) => return None,
        (Some((_, host)), Some((_, port))) => format!("{host} and {port}"),
        (Some((_, only)), None) | (None, Some((_, only))) => only.clone(),
    };
    let host = match host.map(|(host, _)| host) {
        None => "127.0.0.1".to_owned(),
        Some(name) if name == "localhost" => "127.0.0.1".to_owned(),
        Some(ipv6) if ipv6.contains(':') && !ipv6.starts_with('[') => format!("[{ipv6}]"),
        Some(host) => host,
    };
    let port = port.map_or_else(|| "6001".to_owned(), |(port, _)| port);
    Some(Found { value: format!("{host}:{port}"), origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
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
}
