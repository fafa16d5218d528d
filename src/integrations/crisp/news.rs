//! What a user hears of a conversation with the support: a reply (`support.message`), or that it is settled (`support.resolved`); each once, however
//! often Crisp tells of it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::notifications::Notifications;
use crate::notifications::wish::{Recipients, Wish};
use crate::store::StoreError;
use crate::store::notification::Draft;
use crate::store::time::Timestamp;

/// The longest message, name and address of a picture: those of every notification.
const MAX_MESSAGE: usize = 10_000;
const MAX_NAME: usize = 255;
const MAX_URL: usize = 2_048;

/// Something to be told to whoever the conversation belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct News {
    /// The conversation.
    pub session: String,
    /// The same whenever it is told.
    pub transaction_id: String,
    /// What has happened.
    pub what: What,
}

/// See [`News`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// A reply.
    Message {
        /// Of which kind.
        kind: MessageKind,
        /// What it says, if it says anything.
        text: Option<String>,
        /// Who has written it.
        operator: Operator,
    },
    /// The conversation is settled.
    Resolved,
}

/// Messages that users are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageKind {
    /// Text.
    Text,
    /// A file, which has a name.
    File,
    /// A voice.
    Audio,
    /// A question with answers to choose from.
    Picker,
    /// A question with an answer to write.
    Field,
    /// Several things to look at.
    Carousel,
}

/// Who has written a message, as far as visitors see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Operator {
    /// The name to show.
    pub nickname: Option<String>,
    /// A picture.
    pub avatar: Option<String>,
}

impl MessageKind {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Text, Self::File, Self::Audio, Self::Picker, Self::Field, Self::Carousel];

    /// Its name, as Crisp knows it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::File => "file",
            Self::Audio => "audio",
            Self::Picker => "picker",
            Self::Field => "field",
            Self::Carousel => "carousel",
        }
    }

    /// What a message with this content says, as far as a notification can hold it.
    #[must_use]
    pub fn text(self, content: &Value) -> Option<String> {
        let text = match self {
            Self::Text => content,
            Self::File => &content["name"],
            Self::Audio => return Some("Voice message".to_owned()),
            Self::Picker | Self::Field | Self::Carousel => &content["text"],
        };
        let text = plain(text.as_str()?, MAX_MESSAGE);
        (!text.is_empty()).then_some(text)
    }
}

fn plain(text: &str, most: usize) -> String {
    text.chars().filter(|char| *char != '\0').take(most).collect()
}

impl News {
    /// The notification. Replies in one conversation are one item that grows while it is not read; that it is settled is another, since an item
    /// keeps its type.
    #[must_use]
    pub fn draft(&self) -> Draft {
        let group = format!("crisp:{}", self.session);
        let object = Some(json!({ "type": "conversation", "id": self.session }));
        match &self.what {
            What::Message { kind, text, operator } => {
                let avatar = operator.avatar.as_deref();
                let avatar = avatar.filter(|url| url.starts_with("https://") && url.len() <= MAX_URL);
                let actor = operator.nickname.as_deref().map(|name| {
                    let mut actor = json!({ "name": plain(name, MAX_NAME) });
                    if let Some(url) = avatar {
                        actor["image_url"] = url.into();
                    }
                    actor
                });
                Draft {
                    kind: "support.message".to_owned(),
                    title: "New reply from support".to_owned(),
                    message: text.clone(),
                    actor,
                    object,
                    data: Some(json!({ "message_type": kind.as_str() })),
                    group_key: Some(group),
                    ..Draft::default()
                }
            }
            What::Resolved => Draft {
                kind: "support.resolved".to_owned(),
                title: "Your conversation with support was resolved".to_owned(),
                object,
                group_key: Some(format!("{group}:state")),
                ..Draft::default()
            },
        }
    }
}

/// Tells a user of the app, who may have been told before.
///
/// # Errors
/// When the store does not answer; nobody was told then.
pub async fn tell(
    notifications: &Notifications,
    app: &str,
    user: &str,
    news: &News,
    now: Timestamp,
) -> Result<(), StoreError> {
    let wish = Wish {
        to: Recipients::Users(vec![user.to_owned()]),
        draft: news.draft(),
        transaction_id: Some(news.transaction_id.clone()),
        hash: "crisp".to_owned(), // what is told twice need not be told in the same words
        deliver_at: None,
    };
    match notifications.create(app, &wish, &news.transaction_id, now).await {
        Ok(_) => tracing::debug!(transaction_id = news.transaction_id, "a conversation's user is told"),
        Err(error @ (StoreError::Conflict | StoreError::Cancelled)) => {
            tracing::warn!(%error, transaction_id = news.transaction_id, "a conversation's user is not told");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_message_says_something() {
        for (kind, content, expected) in [
            (MessageKind::Text, json!("Hi\0!"), Some("Hi!")),
            (MessageKind::Text, json!(""), None),
            (MessageKind::Text, json!({ "text": "Hi" }), None),
            (MessageKind::File, json!({ "name": "invoice.pdf", "url": "https://x" }), Some("invoice.pdf")),
            (MessageKind::Audio, json!({ "url": "https://x", "duration": 3 }), Some("Voice message")),
            (MessageKind::Picker, json!({ "id": "p", "text": "Which?", "choices": [] }), Some("Which?")),
            (MessageKind::Field, json!({ "id": "f", "text": "Your number?" }), Some("Your number?")),
            (MessageKind::Carousel, json!({ "text": "Look", "targets": [] }), Some("Look")),
        ] {
            assert_eq!(kind.text(&content).as_deref(), expected, "{kind:?} {content}");
        }
        let long = MessageKind::Text.text(&json!("ü".repeat(20_000))).unwrap();
        assert_eq!(long.chars().count(), MAX_MESSAGE);
    }

    #[test]
    fn an_item_keeps_its_type_so_the_two_do_not_grow_into_each_other() {
        let news = |what| News { session: "s".to_owned(), transaction_id: "t".to_owned(), what };
        let operator = Operator {
            nickname: Some("Jane".to_owned()),
            avatar: Some("http://not-encrypted.example/x.png".to_owned()),
        };
        let reply = news(What::Message { kind: MessageKind::Text, text: Some("Hi".to_owned()), operator }).draft();
        let resolved = news(What::Resolved).draft();
        assert_eq!((reply.group_key.as_deref(), reply.actor), (Some("crisp:s"), Some(json!({ "name": "Jane" }))));
        assert_ne!(reply.group_key, resolved.group_key);
    }
}
