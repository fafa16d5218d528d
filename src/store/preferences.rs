//! What users want to hear of, and when (section 8.8).

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::time::Timestamp;
use super::{Inbox, StoreError};

/// A way to a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// The inbox.
    InApp,
    /// A phone.
    Push,
    /// Mail.
    Email,
    /// A text message.
    Sms,
    /// A chat program.
    Chat,
}

impl Channel {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::InApp, Self::Push, Self::Email, Self::Sms, Self::Chat];

    /// Its name, as it is stored and sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InApp => "in_app",
            Self::Push => "push",
            Self::Email => "email",
            Self::Sms => "sms",
            Self::Chat => "chat",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|channel| channel.as_str() == name)
    }
}

/// Whether a user wants notifications of a kind by a way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Preference {
    /// A type, a prefix with `.*`, or `*`.
    #[serde(rename = "type")]
    pub kind: String,
    /// By which way.
    pub channel: Channel,
    /// Whether.
    pub enabled: bool,
}

/// When a user is not to be disturbed, and how often to be written to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Settings {
    /// A zone of the IANA database.
    pub timezone: Option<String>,
    /// By weekday, spans of time; checked.
    #[schema(value_type = Option<Object>, example = json!({ "mon": [["22:00", "24:00"]] }))]
    pub quiet_hours: Option<Value>,
    /// Nothing but the inbox until then.
    pub paused_until: Option<Timestamp>,
    /// How often.
    pub digest: Digest,
}

/// See [`Settings::digest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    /// Each at once.
    #[default]
    Instant,
    /// At each full hour.
    Hourly,
    /// At 8 in the morning.
    Daily,
    /// On Mondays at 8 in the morning.
    Weekly,
}

impl Digest {
    /// Its name, as it is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instant => "instant",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Instant, Self::Hourly, Self::Daily, Self::Weekly].into_iter().find(|digest| digest.as_str() == name)
    }
}

/// What is kept of it.
#[async_trait]
pub trait Preferences {
    /// What a user has said, sorted by type and channel.
    async fn preferences(&self, inbox: Inbox<'_>) -> Result<Vec<Preference>, StoreError>;

    /// Replaces these pairs of type and channel. False, and nothing is kept, for a user that was deleted.
    async fn put_preferences(
        &self,
        inbox: Inbox<'_>,
        preferences: &[Preference],
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// A user's settings; those of one who has said nothing are the default.
    async fn settings(&self, inbox: Inbox<'_>) -> Result<Settings, StoreError>;

    /// Replaces them, and has what waits for the user looked at again. False, and nothing is kept, for a user that was deleted.
    async fn put_settings(&self, inbox: Inbox<'_>, settings: &Settings, now: Timestamp) -> Result<bool, StoreError>;
}
