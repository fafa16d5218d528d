//! Conversations with the support at Crisp, and whose they are (section 3.3, rule 2). One becomes a user's only by a proof: an address that Crisp has
//! verified and that exactly one user has. It ceases to be when Crisp takes that back, when the visitor gives another address, or with the
//! conversation.
//!
//! Hooks come late and out of order: of those that say whose a conversation is, an older one than the last that counted changes nothing.

use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use super::people::Inbound;
use super::tasks::NewTask;
use super::time::Timestamp;

/// How often Crisp is asked about one conversation.
pub const ASK_AGAIN: Duration = Duration::from_secs(60);

/// What a hook says of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SupportEvent {
    /// Which, by Crisp's id.
    pub session: String,
    /// When, in Unix milliseconds.
    pub at: i64,
    /// What has changed.
    pub change: SupportChange,
}

/// See [`SupportEvent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SupportChange {
    /// The visitor has these addresses: Crisp has verified them. None if it does not say which.
    Proven(Vec<String>),
    /// It is not verified any more who the visitor is.
    Unproven,
    /// The visitor says to have this address, and anybody may say that.
    Email(String),
    /// How far it is, such as `resolved`.
    State(String),
    /// It is gone.
    Removed,
    /// Nothing that is kept but that it goes on.
    Nothing,
}

/// Whose a conversation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// This user's.
    Users(String),
    /// Nobody's: Crisp has been asked.
    Nobodys,
    /// Crisp was asked, too short a time ago to be asked again.
    AskedLately(Duration),
    /// Whoever gets this answer is to ask Crisp.
    Ask,
}

/// See the module. Conversations are those of one website each.
#[async_trait]
pub trait Support {
    /// Notes a hook and does what follows from it, in one transaction; one that was noted before changes nothing. `task` is noted if the
    /// conversation is nobody's then. Returns whose it is, after a repetition too: what is told of it may not have been.
    async fn apply_to_support(
        &self,
        website: &str,
        inbound: &Inbound<'_>,
        event: &SupportEvent,
        task: Option<&NewTask<'_>>,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError>;

    /// Whose the conversation is, where an answer of Crisp's as of before `since` says nothing.
    async fn whose_support(
        &self,
        website: &str,
        session: &str,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Whose, StoreError>;

    /// Crisp was asked at `asked`, and knows these to be the visitor's addresses. Returns whose the conversation is. It becomes nobody's anew
    /// where a hook has told something newer.
    async fn support_answered(
        &self,
        website: &str,
        session: &str,
        emails: &[String],
        asked: Timestamp,
        now: Timestamp,
    ) -> Result<Option<String>, StoreError>;

    /// The user's conversation: of several the one in which something has happened last.
    async fn support_of(&self, website: &str, user: &str) -> Result<Option<String>, StoreError>;
}

/// What is kept of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SupportSession {
    /// Whose it is.
    pub user: Option<String>,
    /// When that changed by a hook, by Crisp's clock in Unix milliseconds.
    pub changed_at: i64,
    /// When a hook has told last of who the visitor is.
    pub told_at: Option<Timestamp>,
    /// When Crisp was asked last.
    pub asked_at: Option<Timestamp>,
    /// As of when it has answered last.
    pub answered_at: Option<Timestamp>,
}

impl SupportSession {
    /// Whose it is, or what is to be done to know it.
    #[must_use]
    pub fn whose(&self, since: Timestamp, now: Timestamp) -> Whose {
        if let Some(user) = &self.user {
            return Whose::Users(user.clone());
        }
        if self.answered_at.is_some_and(|at| at >= since) {
            return Whose::Nobodys;
        }
        let again = self.asked_at.map(|at| at.after(ASK_AGAIN)).filter(|again| *again > now);
        // A clock that was put back does not keep it waiting for longer than that.
        let left = again.map(|again| u64::try_from(again.as_micros() - now.as_micros()).unwrap_or_default());
        left.map_or(Whose::Ask, |left| Whose::AskedLately(Duration::from_micros(left).min(ASK_AGAIN)))
    }

    /// What a hook makes of it. `proven` is the only user who has one of the addresses that it proves, `is_of_user` whether the address that it
    /// names is that of the user whose it is.
    #[must_use]
    pub fn told(self, event: &SupportEvent, proven: Option<String>, is_of_user: bool, now: Timestamp) -> Self {
        let is_old = event.at < self.changed_at;
        let told_at = Some(now);
        match &event.change {
            SupportChange::State(_) | SupportChange::Nothing => self,
            // A proof that does not say of what leaves the question to whoever asks Crisp.
            SupportChange::Proven(emails) if emails.is_empty() => Self { told_at, ..self },
            _ if is_old => Self { told_at, ..self },
            SupportChange::Proven(_) => Self { user: proven, changed_at: event.at, told_at, ..self },
            SupportChange::Unproven | SupportChange::Removed => {
                Self { user: None, changed_at: event.at, told_at, ..self }
            }
            // Its proof may be of the same moment, and come before or after it.
            SupportChange::Email(_) => Self { user: self.user.filter(|_| is_of_user), told_at, ..self },
        }
    }

    /// What an answer of Crisp's makes of it, who was asked at that moment: nothing if a hook has told something since. By Herald's own clock:
    /// Crisp's may be another.
    #[must_use]
    pub fn answered(self, user: Option<String>, asked: Timestamp) -> Self {
        let is_overtaken = self.told_at.is_some_and(|told| told > asked);
        Self { user: if is_overtaken { self.user } else { user }, answered_at: Some(asked), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crisp_is_asked_once_a_minute_and_answers_for_all_that_came_before() {
        let at = |seconds| Timestamp::EPOCH.after(Duration::from_secs(seconds));
        let known = |asked: Option<u64>, answered: Option<u64>| SupportSession {
            asked_at: asked.map(at),
            answered_at: answered.map(at),
            ..SupportSession::default()
        };
        let left = |seconds| Whose::AskedLately(Duration::from_secs(seconds));
        for (session, since, now, expected) in [
            (known(None, None), 5, 5, Whose::Ask),
            (known(Some(10), None), 5, 12, left(58)),
            (known(Some(10), None), 5, 70, Whose::Ask),
            (known(Some(10), Some(10)), 10, 11, Whose::Nobodys),
            (known(Some(10), Some(10)), 11, 11, left(59)),
            (known(Some(10), Some(10)), 11, 70, Whose::Ask),
            (known(Some(500), None), 5, 10, left(60)),
            (
                SupportSession { user: Some("user_ann".to_owned()), ..known(None, None) },
                5,
                5,
                Whose::Users("user_ann".to_owned()),
            ),
        ] {
            assert_eq!(session.whose(at(since), at(now)), expected, "{session:?}, a hook at {since}, now {now}");
        }
    }

    #[test]
    fn what_hooks_say_counts_in_the_order_in_which_it_happened() {
        let (ann, bob) = (|| Some("user_ann".to_owned()), || Some("user_bob".to_owned()));
        let now = Timestamp::EPOCH.after(Duration::from_secs(9));
        let known = || SupportSession { user: ann(), changed_at: 5, ..SupportSession::default() };
        let told = |change, at, proven, is_of_user| {
            known().told(&SupportEvent { session: String::new(), at, change }, proven, is_of_user, now)
        };
        let (proof, email) = (SupportChange::Proven(vec![String::new()]), SupportChange::Email(String::new()));
        for (change, at, proven, is_of_user, user, why) in [
            (proof.clone(), 5, bob(), false, bob(), "it is another's"),
            (proof.clone(), 4, bob(), false, ann(), "it was another's before"),
            (proof, 6, None, false, None, "it is nobody's of whom is known"),
            (SupportChange::Proven(Vec::new()), 6, None, false, ann(), "it does not say whose it is"),
            (SupportChange::Unproven, 4, None, false, ann(), "it was not proven before"),
            (SupportChange::Unproven, 6, None, false, None, "it is not proven any more"),
            (SupportChange::Removed, 6, None, false, None, "it is gone"),
            (email.clone(), 4, None, false, ann(), "the proof came after it"),
            (email.clone(), 6, None, true, ann(), "it is the same"),
            (email, 6, None, false, None, "somebody else is there"),
            (SupportChange::State("resolved".to_owned()), 6, None, false, ann(), "it says nothing of that"),
        ] {
            assert_eq!(told(change, at, proven, is_of_user).user, user, "{why}");
        }
    }

    #[test]
    fn an_address_and_its_proof_come_in_any_order_and_an_answer_is_of_when_it_was_asked_for() {
        let ann = || Some("user_ann".to_owned());
        let at = |seconds| Timestamp::EPOCH.after(Duration::from_secs(seconds));
        let event = |at, change| SupportEvent { session: String::new(), at, change };
        let named = SupportSession::default();
        let named = named.told(&event(7_001, SupportChange::Email(String::new())), None, false, at(7));
        let proof = event(7_000, SupportChange::Proven(vec![String::new()]));
        assert_eq!(named.clone().told(&proof, ann(), false, at(8)).user, ann(), "the proof was a moment earlier");
        let (late, early) = (named.clone().answered(ann(), at(7)), named.answered(ann(), at(6)));
        assert_eq!((late.user, late.answered_at), (ann(), Some(at(7))));
        assert_eq!((early.user, early.answered_at), (None, Some(at(6))), "another address may have been meant");
    }
}
