//! Where the database is: a file of SQLite, or a Postgres and who Herald is there.
//!
//! Always: a user, a password and what is no such URL are shown to nobody.

use std::fmt;
use std::path::PathBuf;

use url::Url;

/// See the module. Shown without the user, the password and the parameters.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file of this machine.
    Sqlite(PathBuf),
    /// A server.
    Postgres(Url),
}

/// What stands between Herald and its Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooler {
    /// Port 6543 is taken for a transaction pooler, as Supabase's is; else nothing.
    Auto,
    /// Nothing, or what gives a connection a session of its own.
    Session,
    /// What gives each transaction any session.
    Transaction,
}

impl DatabaseUrl {
    /// `None` where it is not one of the forms that the documentation names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            // Without a file there is nothing that is kept; parameters are not Herald's to take.
            let is_file = !path.is_empty() && !path.starts_with(':') && !path.contains(['?', '\0']);
            return is_file.then(|| Self::Sqlite(path.into()));
        }
        let url: Url = text.parse().ok()?;
        let is_postgres = matches!(url.scheme(), "postgres" | "postgresql");
        // A socket's folder stands in the parameters.
        let has_host = url.host_str().is_some_and(|host| !host.is_empty())
            || url.query_pairs().any(|(name, value)| name == "host" && !value.is_empty());
        (is_postgres && has_host).then_some(Self::Postgres(url))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => {
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_and_what_is_shown_of_them() {
        for (text, shown) in [
            ("sqlite:herald.db", Some("sqlite:herald.db")),
            ("sqlite:///var/lib/herald.db", Some("sqlite:/var/lib/herald.db")),
            ("sqlite://data/herald.db", Some("sqlite:data/herald.db")),
            ("postgres://ann:hunter2@db:5432/app?sslmode=require", Some("postgres://db:5432/app")),
            ("postgresql://ann:hunter2@[::1]/app", Some("postgresql://[::1]/app")),
            ("postgres:///app?host=/run/postgresql&password=hunter2", Some("postgres:///app")),
            ("sqlite:", None),
            ("sqlite::memory:", None),
            ("sqlite:a.db?mode=ro", None),
            ("mysql://ann@db/app", None),
            ("file:./dev.db", None),
            ("postgres:///app", None),
            ("hunter2", None),
        ] {
            let url = DatabaseUrl::parse(text);
            assert_eq!(url.as_ref().map(ToString::to_string).as_deref(), shown, "{text}");
            assert!(!format!("{url:?}").contains("hunter2"));
        }
    }
}
