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
    ("HERALD_APP_CLIENT_EVENTS", &["SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES"]),
    ("HERALD_PATH_PREFIX", &["SOKETI_PATH_PREFIX", "REVERB_SERVER_PATH"]),
    ("HERALD_TLS_CERT", &["SOKETI_SSL_CERT"]),
    ("HERALD_TLS_KEY", &["SOKETI_SSL_KEY"]),
];
/// Names that make up `HERALD_LISTEN`.
const FOREIGN_HOSTS: &[&str] = &["SOKETI_HOST", "REVERB_SERVER_HOST"];
const FOREIGN_PORTS: &[&str] = &["SOKETI_PORT", "REVERB_SERVER_PORT"];

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
    /// What somebody who watches the start should know.
    pub notes: Vec<String>,
}

impl Environment {
    /// Sorts out the variables of a process; an empty one counts as not set.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut environment = Self::default();
        let is_foreign = |name: &str| FOREIGN.iter().any(|(_, names)| names.contains(&name));
        let ours = |name: &str| {
            is_foreign(name)
                || ["HERALD_", "PUSHER_", "SOKETI_", "REVERB_"].iter().any(|prefix| name.starts_with(prefix))
        };
        let mut all: BTreeMap<String, String> =
            variables.into_iter().filter(|(name, value)| ours(name) && !value.is_empty()).collect();
        let injected: Vec<String> =
            all.iter().filter(|(name, value)| is_injected(name, value)).map(|(name, _)| name.clone()).collect();
        if !injected.is_empty() {
            environment
                .notes
                .push(format!("ignored, since Kubernetes sets them for its services: {}", injected.join(", ")));
            all.retain(|name, _| !injected.contains(name));
        }
        let first = |names: &[&str]| {
            names.iter().find_map(|name| all.get(*name).map(|value| (value.clone(), (*name).to_owned())))
        };
        for (name, foreign) in FOREIGN {
            if !all.contains_key(*name)
                && let Some((value, origin)) = first(foreign)
            {
                environment.notes.push(format!("{origin} is used"));
                environment.found.insert((*name).to_owned(), Found { value, origin });
            }
        }
        if !all.contains_key("HERALD_LISTEN")
            && let Some(listen) = foreign_address(first(FOREIGN_HOSTS), first(FOREIGN_PORTS))
        {
            environment.notes.push(format!("{} is used", listen.origin));
            environment.found.insert("HERALD_LISTEN".to_owned(), listen);
        }
        let own = all.into_iter().filter(|(name, _)| name.starts_with("HERALD_") && !is_foreign(name));
        environment.found.extend(own.map(|(name, value)| (name.clone(), Found { value, origin: name })));
        environment
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
