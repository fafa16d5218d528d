//! Accounts that users have connected at Clerk, and what the app keeps with them (section 1.10): tokens that Clerk holds and refreshes itself are
//! asked for when somebody needs one, and kept nowhere here; metadata is merged, never replaced.

use std::time::Duration;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::users::{Unanswered, Users};
use crate::integrations::oauth::is_token;
use crate::outgoing::service::{Answer, CallError, Limits, Retry, Service};
use crate::seal::PlainToken;
use crate::store::time::Timestamp;

const LIMITS: Limits = Limits { within: Duration::from_secs(3), bytes: 256 * 1024 };
/// Numbers above this are milliseconds: seconds would be of the year 5138.
const MOST_SECONDS: f64 = 1e11;
/// What names of providers begin with at the Backend API.
const PREFIX: &str = "oauth_";

/// A token that Clerk holds.
#[derive(Debug)]
pub struct HeldToken {
    /// The user's id at the service, if Clerk says it.
    pub service_user: Option<String>,
    /// What opens the service.
    pub access: PlainToken,
    /// When it expires, if Clerk says that.
    pub expires_at: Option<Timestamp>,
}

/// What Clerk says of a user's tokens of one service.
#[derive(Debug)]
pub enum Held {
    /// These; none where the user has not connected it.
    Tokens(Vec<HeldToken>),
    /// There is one that it cannot refresh: the user has to connect it again.
    Lost,
}

#[derive(Deserialize)]
struct Written {
    token: Option<PlainToken>,
    provider_user_id: Option<String>,
    expires_at: Option<f64>,
}

/// With and without pages.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answered {
    Plain(Vec<Written>),
    Paged { data: Vec<Written> },
}

impl Users {
    /// The tokens that Clerk holds of a user for a service, `oauth_` before its name or not.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn held_tokens(&self, user: &str, service: &str) -> Result<Held, Unanswered> {
        self.admit()?;
        let provider = format!("{PREFIX}{}", service.strip_prefix(PREFIX).unwrap_or(service));
        let url = format!("{}/oauth_access_tokens/{provider}", self.url_of(user));
        let request = |client: &reqwest::Client| client.get(&url).headers(self.headers.clone());
        let answer = self.service.send(request, LIMITS, Retry::Never).await;
        let answer = answer.map_err(|error| Unanswered(error.to_string()))?;
        match answer.status {
            StatusCode::OK => read(&answer.body).map(Held::Tokens),
            // No such user, or no such provider here.
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Ok(Held::Tokens(Vec::new())),
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Held::Lost),
            status => Err(Unanswered(format!("it answers {status}"))),
        }
    }

    /// Merges this into what everybody may know of a user, under the service's name. `service` is whom it counts as a call of.
    ///
    /// # Errors
    /// As for any call; Clerk not being asked too much is one.
    pub async fn merge_metadata(
        &self,
        user: &str,
        of: &str,
        data: &Value,
        service: &Service,
    ) -> Result<Answer, CallError> {
        self.admit().map_err(|_| CallError::Rejected(Duration::from_secs(1)))?;
        let url = format!("{}/metadata", self.url_of(user));
        let body = json!({ "public_metadata": { of: data } }).to_string();
        let request = |client: &reqwest::Client| client.patch(&url).headers(self.headers.clone()).body(body.clone());
        service.send(request, LIMITS, Retry::Never).await
    }
}

fn read(body: &[u8]) -> Result<Vec<HeldToken>, Unanswered> {
    let nonsense = || Unanswered("its answer is no list of tokens".to_owned());
    let (Answered::Plain(written) | Answered::Paged { data: written }) =
        serde_json::from_slice(body).map_err(|_| nonsense())?;
    let token = |written: Written| {
        Ok(HeldToken {
            service_user: written.provider_user_id,
            access: written.token.filter(is_token).ok_or_else(nonsense)?,
            expires_at: written.expires_at.map(moment),
        })
    };
    written.into_iter().map(token).collect()
}

fn moment(number: f64) -> Timestamp {
    let micros = if number > MOST_SECONDS { number * 1e3 } else { number * 1e6 };
    Timestamp::from_micros(micros as i64) // beyond its bounds it is the nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_the_answer_and_both_units_of_time_are_read() {
        let one = r#"{"object":"oauth_access_token","token":"t","provider_user_id":"42","provider":"oauth_google","expires_at":1790000000}"#;
        for body in [format!("[{one}]"), format!(r#"{{"data":[{one}],"total_count":1}}"#)] {
            let tokens = read(body.as_bytes()).unwrap();
            assert_eq!((tokens.len(), tokens[0].access.expose()), (1, "t"), "{body}");
            assert_eq!(tokens[0].service_user.as_deref(), Some("42"));
        }
        let at = Some(Timestamp::from_micros(1_790_000_000_000_000));
        for (expires_at, expected) in [("1790000000", at), ("1790000000000", at), ("null", None)] {
            let body = format!(r#"[{{"token":"t","expires_at":{expires_at}}}]"#);
            assert_eq!(read(body.as_bytes()).unwrap()[0].expires_at, expected, "{expires_at}");
        }
        assert!(read(b"[]").unwrap().is_empty());
        for body in ["", "{}", "[1]", r#"[{"token":null}]"#, r#"[{"token":"a\nb"}]"#, r#"{"data":1}"#] {
            let error = read(body.as_bytes()).unwrap_err().to_string();
            assert_eq!(error, "Clerk: its answer is no list of tokens", "{body}");
        }
    }
}
