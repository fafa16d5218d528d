//! The app's own word about channels (section 1.8): where no rule speaks, the app is asked, with the identity that Herald has verified. It
//! says yes or no; the signature that lets the client in stays Herald's.
//!
//! The request is signed as webhooks are, so that any Pusher server library tells the app that it is Herald who asks.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;

use crate::apps::App;
use crate::identity::Identity;
use crate::outgoing::Outgoing;
use crate::outgoing::service::{Limits, Retry, Service};

/// The largest answer that is read.
const MAX_BYTES: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Authorizer {
    url: Url,
    within: Duration,
    service: Arc<Service>,
}

/// What the app has said.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// The client may come in; on a presence channel others see this of the user.
    Yes(Option<Map<String, Value>>),
    /// It may not.
    No,
}

/// The app does not answer, or not as it should. The text is for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the app's authorizer: {0}")]
pub struct NoWord(String);

#[derive(Deserialize)]
struct Answer {
    user_info: Option<Map<String, Value>>,
}

impl Authorizer {
    /// The app at this address, which may take so long.
    #[must_use]
    pub fn new(url: Url, within: Duration, outgoing: &Outgoing) -> Self {
        Self { url, within, service: outgoing.service("authorizer") }
    }

    /// Asks whether this identity may subscribe.
    ///
    /// # Errors
    /// [`NoWord`]: nobody is let in then, and nobody refused for good.
    pub async fn ask(&self, app: &App, identity: &Identity, socket_id: &str, channel: &str) -> Result<Word, NoWord> {
        let org = identity.org.as_ref();
        let body = json!({
            "socket_id": socket_id,
            "channel_name": channel,
            "user_id": identity.user,
            "session_id": identity.session,
            "org_id": org.map(|org| &org.id),
            "org_role": org.and_then(|org| org.role.as_ref()),
            "claims": identity.claims,
        })
        .to_string();
        let (key, signature) = app.sign(body.as_bytes());
        let request = |client: &reqwest::Client| {
            client
                .post(self.url.clone())
                .header("content-type", "application/json")
                .header("x-pusher-key", &key)
                .header("x-pusher-signature", &signature)
                .body(body.clone())
        };
        let limits = Limits { within: self.within, bytes: MAX_BYTES };
        let answer =
            self.service.send(request, limits, Retry::Never).await.map_err(|error| NoWord(error.to_string()))?;
        match answer.status.as_u16() {
            200 if answer.body.is_empty() => Ok(Word::Yes(None)),
            // A page for people is no answer: a sign-in page, for instance, is sent with 200 too.
            200 => {
                let answer: Answer = serde_json::from_slice(&answer.body).map_err(|_| {
                    NoWord("it answers 200 with something else than nothing or a JSON object".to_owned())
                })?;
                Ok(Word::Yes(answer.user_info))
            }
            401 | 403 | 404 => Ok(Word::No),
            status => Err(NoWord(format!("it answers {status}; 200 means yes, 403 means no"))),
        }
    }
}
