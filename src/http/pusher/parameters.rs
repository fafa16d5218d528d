//! What a request says beside its body: the parameters of its query, and what they are called for.

use std::borrow::Cow;

use herald_protocol::json::{JsonError, string};
use serde_json::value::RawValue;

use crate::http::error::ApiError;

/// The parameters of a query that are not about authentication, decoded; names are in lower case.
#[derive(Debug, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Of all parameters those that are not about authentication.
    pub(super) fn new(all: &[(Cow<'_, str>, Cow<'_, str>)]) -> Self {
        let is_about_it = |name: &str| {
            name.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("auth_"))
                || name.eq_ignore_ascii_case("body_md5")
        };
        let own = all.iter().filter(|(name, _)| !is_about_it(name));
        Self(own.map(|(name, value)| (name.to_ascii_lowercase(), value.clone().into_owned())).collect())
    }

    /// The value of a parameter; of several the last counts, as in the signature.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The values of an array: `name[]` or `name[0]`.
    #[must_use]
    pub fn all(&self, name: &str) -> Vec<String> {
        let of = |known: &str| known.split_once('[').is_some_and(|(known, _)| known == name);
        self.0.iter().filter(|(known, _)| of(known)).map(|(_, value)| value.clone()).collect()
    }

    /// The text of a parameter that may stand in the body or in the query; the body wins.
    ///
    /// # Errors
    /// When it stands in the body and is no string.
    pub fn text<'a>(
        &'a self,
        name: &'static str,
        in_body: Option<&'a RawValue>,
    ) -> Result<Option<Cow<'a, str>>, JsonError> {
        match given(in_body) {
            Some(value) => string(name, value).map(Some),
            None => Ok(self.get(name).map(Cow::Borrowed)),
        }
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A member that is there and not `null`.
pub(super) fn given(member: Option<&RawValue>) -> Option<&RawValue> {
    member.filter(|value| value.get() != "null")
}

/// What about a channel is asked for (`info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// Its members.
    UserCount,
    /// Its subscriptions.
    SubscriptionCount,
    /// The event that it keeps.
    Cache,
}

impl Attribute {
    const fn name(self) -> &'static str {
        match self {
            Self::UserCount => "user_count",
            Self::SubscriptionCount => "subscription_count",
            Self::Cache => "cache",
        }
    }
}

/// The attributes that are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info(Vec<Attribute>);

impl Info {
    /// What an event may ask for.
    pub const OF_EVENT: [Attribute; 2] = [Attribute::UserCount, Attribute::SubscriptionCount];
    /// What may be asked about one channel.
    pub const OF_CHANNEL: [Attribute; 3] = [Attribute::UserCount, Attribute::SubscriptionCount, Attribute::Cache];

    /// Reads names separated by commas.
    ///
    /// # Errors
    /// Names those that are not `allowed`.
    pub fn parse(text: &str, allowed: &[Attribute]) -> Result<Self, ApiError> {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match allowed.iter().find(|attribute| attribute.name() == name) {
                Some(attribute) => known.push(*attribute),
                None => unknown.push(name),
            }
        }
        if unknown.is_empty() {
            return Ok(Self(known));
        }
        let allowed: Vec<&str> = allowed.iter().map(|attribute| attribute.name()).collect();
        Err(ApiError::Parameter(format!("`info` must not ask for {unknown:?}; {allowed:?} are allowed")))
    }

    /// Whether the attribute is asked for.
    #[must_use]
    pub fn has(&self, attribute: Attribute) -> bool {
        self.0.contains(&attribute)
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_without_what_authenticates_it() {
        let query = "auth_key=k&Name=e&channels[]=a&channels[1]=b&channel=c&channel=d&body_md5=0&AUTH_version=1.0";
        let all: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let parameters = Parameters::new(&all);
        assert_eq!(parameters.get("name"), Some("e"));
        assert_eq!(parameters.get("channel"), Some("d"));
        assert_eq!(parameters.get("auth_key"), None);
        assert_eq!(parameters.all("channels"), ["a", "b"]);
        assert_eq!(parameters.iter().count(), 5);
    }

    #[test]
    fn info_names_what_it_does_not_know() {
        use Attribute::{SubscriptionCount, UserCount};
        let info = |text| Info::parse(text, &Info::OF_EVENT);
        assert_eq!(info("").unwrap(), Info::default());
        assert_eq!(info(" user_count,subscription_count,").unwrap(), Info(vec![UserCount, SubscriptionCount]));
        let error = info("user_count,cache,x").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"`info` must not ask for ["cache", "x"]; ["user_count", "subscription_count"] are allowed"#
        );
    }
}
