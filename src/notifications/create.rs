//! The creation of notifications, from a checked request to its commit (section 8.5): for users who are named at once, for an audience that
//! is larger than one transaction as a job.

use uuid::Uuid;

use super::Notifications;
use super::wish::{Recipients, Wish};
use crate::config::NotificationOptions;
use crate::metrics;
use crate::store::StoreError;
use crate::store::jobs::{NewJob, Template};
use crate::store::notification::{Draft, Severity};
use crate::store::preferences::{Channel, Preference};
use crate::store::sending::{Create, Created, MAX_RECIPIENTS, Wanted};
use crate::store::time::Timestamp;

/// How a creation went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everybody has it.
    Done(Created),
    /// It is a job now.
    Queued,
}

/// What the application says about preferences.
#[derive(Clone, Debug, Default)]
pub struct Defaults {
    mandatory: Vec<String>,
    preferences: Vec<Preference>,
    only_known: bool,
}

impl Defaults {
    /// As they are configured.
    #[must_use]
    pub fn new(options: &NotificationOptions) -> Self {
        Self {
            mandatory: options.mandatory.clone(),
            preferences: options.defaults.clone(),
            only_known: options.require_known_users,
        }
    }

    /// Whether users who are not known get nothing.
    #[must_use]
    pub const fn only_known(&self) -> bool {
        self.only_known
    }

    /// Whether it reaches everybody, whatever the preferences are.
    #[must_use]
    pub fn is_mandatory(&self, draft: &Draft) -> bool {
        draft.severity == Severity::Critical
            || patterns(&draft.kind).iter().any(|pattern| self.mandatory.contains(pattern))
    }

    /// What holds for users who have said nothing.
    #[must_use]
    pub fn otherwise(&self, patterns: &[String], channel: Channel) -> bool {
        said(&self.preferences, patterns, channel).unwrap_or(true)
    }

    /// What the users' preferences have to be asked for; `None` if they are not.
    #[must_use]
    pub fn wanted<'a>(&self, draft: &Draft, patterns: &'a [String]) -> Option<Wanted<'a>> {
        let otherwise = self.otherwise(patterns, Channel::InApp);
        (!self.is_mandatory(draft)).then_some(Wanted { patterns, otherwise })
    }
}

/// What these preferences say of a channel for the longest of the patterns of which they speak.
#[must_use]
pub fn said(preferences: &[Preference], patterns: &[String], channel: Channel) -> Option<bool> {
    let of = |pattern: &String| preferences.iter().find(|one| one.kind == *pattern && one.channel == channel);
    patterns.iter().find_map(of).map(|one| one.enabled)
}

/// A type and its prefixes, from long to short: what preferences may speak of it as.
#[must_use]
pub fn patterns(kind: &str) -> Vec<String> {
    let dots = kind.match_indices('.').map(|(at, _)| at).rev();
    let prefixes = dots.filter_map(|at| kind.get(..at)).map(|prefix| format!("{prefix}.*"));
    std::iter::once(kind.to_owned()).chain(prefixes).chain(["*".to_owned()]).collect()
}

impl Notifications {
    /// Creates what is wished for. Returns after the commit; what is not done by then is a job that outlives a restart.
    ///
    /// # Errors
    /// See [`StoreError`]; nothing was created then.
    pub async fn create(
        &self,
        app: &str,
        wish: &Wish,
        transaction_id: &str,
        now: Timestamp,
    ) -> Result<Outcome, StoreError> {
        let recipients = match &wish.to {
            Recipients::Users(users) => users.clone(),
            Recipients::Audience { audience, excluded } => {
                let mut users = self.store.audience(app, audience, "", MAX_RECIPIENTS + 1).await?;
                if users.len() > MAX_RECIPIENTS {
                    let template =
                        Template { draft: wish.draft.clone(), deliver_at: wish.deliver_at, excluded: excluded.clone() };
                    let job = NewJob {
                        id: Uuid::now_v7(),
                        app,
                        transaction_id,
                        request_hash: &wish.hash,
                        audience,
                        template: &template,
                    };
                    self.store.begin_job(&job, now).await?;
                    self.jobs_wait();
                    return Ok(Outcome::Queued);
                }
                users.retain(|user| !excluded.contains(user));
                users
            }
        };
        let patterns = patterns(&wish.draft.kind);
        let create = Create {
            app,
            transaction_id,
            request_hash: &wish.hash,
            recipients: &recipients,
            draft: &wish.draft,
            deliver_at: wish.deliver_at,
            only_known: self.defaults.only_known(),
            wanted: self.defaults.wanted(&wish.draft, &patterns),
            job: None,
        };
        let created = self.store.create(&create, now).await?;
        self.committed();
        metrics::NOTIFICATIONS_CREATED.increment(created.created);
        Ok(Outcome::Done(created))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pattern_speaks_first() {
        assert_eq!(patterns("a.b-c.d"), ["a.b-c.d", "a.b-c.*", "a.*", "*"]);
        assert_eq!(patterns("a"), ["a", "*"]);
        let preference = |kind: &str, channel, enabled| Preference { kind: kind.to_owned(), channel, enabled };
        let defaults = Defaults {
            mandatory: vec!["security.*".to_owned()],
            preferences: vec![
                preference("*", Channel::InApp, false),
                preference("comment.*", Channel::InApp, true),
                preference("comment.mentioned", Channel::Email, false),
            ],
            only_known: false,
        };
        for (kind, channel, enabled) in [
            ("comment.mentioned", Channel::InApp, true),
            ("comment.mentioned", Channel::Email, false),
            ("comment.new", Channel::Email, true),
            ("order.paid", Channel::InApp, false),
        ] {
            assert_eq!(defaults.otherwise(&patterns(kind), channel), enabled, "{kind} {channel:?}");
        }
        let draft = |kind: &str, severity| Draft { kind: kind.to_owned(), severity, ..Draft::default() };
        assert!(defaults.is_mandatory(&draft("security.login", Severity::Normal)));
        assert!(defaults.is_mandatory(&draft("comment.new", Severity::Critical)));
        assert!(!defaults.is_mandatory(&draft("securityx.login", Severity::High)));
    }
}
