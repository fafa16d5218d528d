//! What a server says about a channel when a backend asks.

use anyhow::Context as _;
use serde_json::Value;

use crate::backend::Backend;
use crate::target::Site;

/// What is counted on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// Each connection that is subscribed.
    Subscriptions,
    /// Each user that is there, over however many connections; on presence channels.
    Users,
}

impl Counted {
    const fn name(self) -> &'static str {
        match self {
            Self::Subscriptions => "subscription_count",
            Self::Users => "user_count",
        }
    }
}

/// How many there are. On a channel where nobody is, servers may leave the count out.
pub(crate) fn count(backend: &mut Backend, site: &Site, channel: &str, counted: Counted) -> anyhow::Result<u64> {
    let endpoint = format!("channels/{channel}");
    let request = site.app.request(site.address, "GET", &endpoint, &[("info", counted.name())], "");
    parse(backend.ask_for(&request)?, counted)
}

fn parse(answer: &str, counted: Counted) -> anyhow::Result<u64> {
    let answer: Value = serde_json::from_str(answer)?;
    match answer[counted.name()].as_u64() {
        Some(count) => Ok(count),
        None if answer["occupied"] == false => Ok(0),
        None => Err(anyhow::anyhow!("{answer}")).with_context(|| format!("the server tells no {}", counted.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_and_nobody_is_nobody() {
        let counted = Counted::Subscriptions;
        assert_eq!(parse(r#"{"occupied":true,"subscription_count":42}"#, counted).unwrap(), 42);
        assert_eq!(parse(r#"{"occupied":false}"#, counted).unwrap(), 0);
        assert!(parse(r#"{"occupied":true,"user_count":1}"#, counted).is_err(), "another count is no answer");
    }
}
