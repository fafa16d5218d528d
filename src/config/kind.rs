//! Kinds of values: how each is read from the file and the environment, what is allowed, and how it is written back.
//!
//! A kind carries its bounds in its type, so that the message about a wrong value, the documentation and the check cannot differ.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use herald_protocol::Secret;
use herald_protocol::webhook::WebhookKind;
use ipnet::IpNet;
use sentry::types::Dsn;
use toml::Value;
use url::Url;

use super::cloudinary_url::CloudinaryUrl;
use super::database_url::{DatabaseUrl, Pooler};
use super::redis_url::RedisUrl;
use crate::health;
use crate::identity::publishable_key::PublishableKey;
use crate::identity::rules::{MasterKey, Pattern};
use crate::identity::{Algorithm, Key};
use crate::integrations::cloudinary::signature::Digest;
use crate::integrations::crisp::Tier;
use crate::integrations::standard_webhooks::Secrets;
use crate::limits::Quota;
use crate::notifications::topics::TopicPattern;
use crate::seal::{self, KeyRing};
use crate::store::preferences::{Channel, Preference};

/// See the module.
pub trait Kind {
    /// What the program works with.
    type Value;
    /// Whether a value, as it was written, is shown to nobody.
    fn is_secret(_written: &str) -> bool {
        false
    }
    /// What is allowed, as the end of a sentence.
    fn allowed() -> String;
    /// From the file.
    fn read(value: &Value) -> Option<Self::Value>;
    /// From the environment.
    fn parse(text: &str) -> Option<Self::Value>;
    /// As the file would have it; `None` where the option is left out.
    fn write(value: &Self::Value) -> Option<String>;
}

/// A byte in a kibibyte.
pub const KIB: usize = 1024;
/// A byte in a mebibyte.
pub const MIB: usize = 1024 * KIB;
/// Milliseconds in a second.
pub const SECOND: u64 = 1000;
/// Milliseconds in a minute.
pub const MINUTE: u64 = 60 * SECOND;

/// Yes or no.
#[derive(Debug)]
pub struct Flag;

impl Kind for Flag {
    type Value = bool;
    fn allowed() -> String {
        "true or false".to_owned()
    }
    fn read(value: &Value) -> Option<bool> {
        value.as_bool()
    }
    fn parse(text: &str) -> Option<bool> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }
    fn write(value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A number between two bounds.
#[derive(Debug)]
pub struct Count<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Kind for Count<MIN, MAX> {
    type Value = usize;
    fn allowed() -> String {
        format!("a number from {MIN} to {MAX}")
    }
    fn read(value: &Value) -> Option<usize> {
        value.as_integer()?.try_into().ok().filter(|count| (MIN..=MAX).contains(count))
    }
    fn parse(text: &str) -> Option<usize> {
        text.parse().ok().filter(|count| (MIN..=MAX).contains(count))
    }
    fn write(value: &usize) -> Option<String> {
        Some(value.to_string())
    }
}

/// A number of bytes between two bounds.
#[derive(Debug)]
pub struct Size<const MIN: usize, const MAX: usize>;

impl<const MIN: usize, const MAX: usize> Kind for Size<MIN, MAX> {
    type Value = usize;
    fn allowed() -> String {
        format!("bytes from {MIN} to {MAX}, as a number or as text such as \"512KiB\" or \"2MiB\"")
    }
    fn read(value: &Value) -> Option<usize> {
        value.as_str().map_or_else(|| Count::<MIN, MAX>::read(value), Self::parse)
    }
    fn parse(text: &str) -> Option<usize> {
        let (digits, unit) = match text.strip_suffix("KiB") {
            Some(digits) => (digits, KIB),
            None => text.strip_suffix("MiB").map_or((text, 1), |digits| (digits, MIB)),
        };
        let bytes = digits.trim_end().parse::<usize>().ok()?.checked_mul(unit)?;
        (MIN..=MAX).contains(&bytes).then_some(bytes)
    }
    fn write(value: &usize) -> Option<String> {
        Some(value.to_string())
    }
}

/// A span of time between two bounds in milliseconds.
#[derive(Debug)]
pub struct Time<const MIN: u64, const MAX: u64>;

impl<const MIN: u64, const MAX: u64> Kind for Time<MIN, MAX> {
    type Value = Duration;
    fn allowed() -> String {
        let show = |milliseconds| humantime::format_duration(Duration::from_millis(milliseconds)).to_string();
        format!("a span of time from {} to {}, such as \"30s\" or \"5m\"", show(MIN), show(MAX))
    }
    fn read(value: &Value) -> Option<Duration> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<Duration> {
        let span = humantime::parse_duration(text).ok()?;
        (Duration::from_millis(MIN)..=Duration::from_millis(MAX)).contains(&span).then_some(span)
    }
    fn write(value: &Duration) -> Option<String> {
        Some(format!("\"{}\"", humantime::format_duration(*value).to_string().replace(' ', "")))
    }
}

/// An option that may be left out.
#[derive(Debug)]
pub struct Optional<K>(PhantomData<K>);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;
    fn is_secret(written: &str) -> bool {
        K::is_secret(written)
    }
    fn allowed() -> String {
        K::allowed()
    }
    fn read(value: &Value) -> Option<Self::Value> {
        K::read(value).map(Some)
    }
    fn parse(text: &str) -> Option<Self::Value> {
        K::parse(text).map(Some)
    }
    fn write(value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(K::write)
    }
}

/// Several of a kind: an array in the file, separated by commas in the environment.
#[derive(Debug)]
pub struct Several<K>(PhantomData<K>);

impl<K: Kind> Kind for Several<K> {
    type Value = Vec<K::Value>;
    fn is_secret(written: &str) -> bool {
        K::is_secret(written)
    }
    fn allowed() -> String {
        format!("a list, each {}", K::allowed())
    }
    fn read(value: &Value) -> Option<Self::Value> {
        value.as_array()?.iter().map(K::read).collect()
    }
    fn parse(text: &str) -> Option<Self::Value> {
        text.split(',').map(|part| K::parse(part.trim())).collect()
    }
    fn write(value: &Self::Value) -> Option<String> {
        let parts: Vec<String> = value.iter().filter_map(K::write).collect();
        Some(format!("[{}]", parts.join(", ")))
    }
}

/// Declares a kind that is a piece of text.
macro_rules! text_kind {
    ($(#[$doc:meta])* $name:ident: $value:ty, $allowed:literal, $parse:expr, $show:expr $(, hidden if $is_secret:expr)?) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;

        impl Kind for $name {
            type Value = $value;
            fn allowed() -> String {
                $allowed.to_owned()
            }
            $(fn is_secret(written: &str) -> bool {
                $is_secret(written)
            })?
            fn read(value: &Value) -> Option<$value> {
                Self::parse(value.as_str()?)
            }
            fn parse(text: &str) -> Option<$value> {
                let parse: fn(&str) -> Option<$value> = $parse;
                parse(text)
            }
            fn write(value: &$value) -> Option<String> {
                let show: fn(&$value) -> String = $show;
                Some(Value::from(show(value)).to_string())
            }
        }
    };
}

text_kind! { /// Where to listen.
Address: Listen, "ADDRESS:PORT (port 0 takes a free one; an IPv6 address stands in brackets) or unix:/PATH",
|text| match text.strip_prefix("unix:") {
    Some(path) => path.starts_with('/').then(|| Listen::Unix(path.into())),
    None => text.parse().ok().map(Listen::Tcp),
}, Listen::to_string }

text_kind! { /// Where to listen, or not at all.
AddressOrOff: Option<SocketAddr>, "ADDRESS:PORT (port 0 takes a free one) or \"off\"",
|text| if text == "off" { Some(None) } else { text.parse().ok().map(Some) },
|address| address.map_or_else(|| "off".to_owned(), |address| address.to_string()) }

text_kind! { /// How often something may be asked, or without a limit.
QuotaOrOff: Option<Quota>, "a number and a window of s, min, h or d, such as 300/min, or \"off\"",
|text| if text == "off" { Some(None) } else { Quota::parse(text).map(Some) },
|quota| quota.map_or_else(|| "off".to_owned(), |quota| quota.to_string()) }

text_kind! { /// How a moment is written in a header.
Reset: ResetForm, "unix or iso", |text| match text {
    "unix" => Some(ResetForm::Unix),
    "iso" => Some(ResetForm::Iso),
    _ => None,
}, |form| format!("{form:?}").to_ascii_lowercase() }

text_kind! { /// What health checks look at.
HealthService: health::Service,
"one of pusher, clerk, cloudinary, crisp, sentry, database and redis",
|text| health::Service::ALL.into_iter().find(|service| service.as_str() == text), |service| service.as_str().to_owned() }

text_kind! { /// A file or folder.
File: PathBuf, "a path", |text| (!text.is_empty()).then(|| text.into()), |path| path.display().to_string() }

text_kind! { /// A network or a single address.
Network: IpNet, "an IP address or a network such as 10.0.0.0/8",
|text| text.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::IpAddr| address.into())), IpNet::to_string }

text_kind! { /// What stands in front of a path.
Prefix: String, "empty, or a path that begins with / and does not end with it, of letters, digits, ., _, - and /",
|text| {
    let text = text.trim_end_matches('/');
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte)) && !text.contains("//");
    (text.is_empty() || text.starts_with('/') && plain).then(|| text.to_owned())
}, String::clone }

text_kind! { /// An app's id.
AppId: String, "1 to 64 letters, digits, _ and -", |text| is_word(text, b"_-").then(|| text.to_owned()), String::clone }

text_kind! { /// An app's public key.
AppKey: String, "1 to 64 letters, digits, _, -, . and =", |text| is_word(text, b"_-.=").then(|| text.to_owned()), String::clone }

text_kind! { /// Pages that may connect, written as browsers write them: small, without a default port, international names in ASCII.
Origin: String, "an origin such as https://example.com or *.example.com",
|text| {
    let host = match text.strip_prefix("*.") {
        Some(domain) => domain,
        None => text.split_once("://").filter(|(scheme, _)| !scheme.is_empty())?.1,
    };
    if host.is_empty() || host.contains(['/', ' ', '*', '?', '#', '@']) {
        return None;
    }
    if text.starts_with("*.") {
        let address: Url = format!("https://{host}").parse().ok()?;
        return address.host_str().filter(|_| !host.contains(':')).map(|domain| format!("*.{domain}"));
    }
    let address: Url = text.parse().ok()?;
    Some(if address.origin().is_tuple() { address.origin().ascii_serialization() } else { text.to_ascii_lowercase() })
}, String::clone }

text_kind! { /// Part of a channel's name.
NamePart: String, "up to 200 of the characters of a channel's name", |text| {
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-=@,.;#".contains(&byte));
    (plain && text.len() <= 200).then(|| text.to_owned())
}, String::clone }

/// Where webhooks go; what it holds of credentials (a name, a password, parameters) is not shown.
#[derive(Debug)]
pub struct WebAddress;

impl Kind for WebAddress {
    type Value = Option<Url>;
    fn allowed() -> String {
        "an http:// or https:// URL".to_owned()
    }
    fn is_secret(written: &str) -> bool {
        written.contains(['@', '?'])
    }
    fn read(value: &Value) -> Option<Self::Value> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<Self::Value> {
        text.parse().ok().filter(|url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host()).map(Some)
    }
    fn write(url: &Self::Value) -> Option<String> {
        Some(Value::from(url.as_ref().map(shown).unwrap_or_default()).to_string())
    }
}

text_kind! { /// An address of the app's own; what it holds of credentials is not shown.
AppAddress: Url, "the https:// URL of an address of the app's own",
|text| WebAddress::parse(text).flatten(), |url| shown(url), hidden if WebAddress::is_secret }

/// A URL without what it holds of credentials.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Neither can fail: it has one already.
    if !url.username().is_empty() {
        _ = url.set_username("***");
    }
    if url.password().is_some() {
        _ = url.set_password(Some("***"));
    }
    if url.query().is_some() {
        url.set_query(Some("***"));
    }
    url.into()
}

/// Where a Redis is; what it holds of credentials is not shown.
#[derive(Debug)]
pub struct RedisAddress;

impl Kind for RedisAddress {
    type Value = RedisUrl;
    fn allowed() -> String {
        "redis://USER:PASSWORD@HOST:PORT/DATABASE, redis-sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/DATABASE?master=NAME \
         or redis-cluster://USER:PASSWORD@HOST:PORT,HOST:PORT, with rediss instead of redis for TLS; only the hosts and the \
         master's name must be there"
            .to_owned()
    }
    fn is_secret(_written: &str) -> bool {
        true // what is no URL may be a password in the wrong place
    }
    fn read(value: &Value) -> Option<RedisUrl> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<RedisUrl> {
        RedisUrl::parse(text)
    }
    fn write(url: &RedisUrl) -> Option<String> {
        Some(Value::from(url.to_string()).to_string())
    }
}

text_kind! { /// Clerk's publishable key.
Publishable: PublishableKey, "pk_test_… or pk_live_…, as Clerk's dashboard shows it", |text| PublishableKey::parse(text).ok(), ToString::to_string }

text_kind! { /// The exact origin of pages.
Party: String, "an http:// or https:// URL, whose origin counts",
|text| {
    let url: Url = text.parse().ok()?;
    (matches!(url.scheme(), "http" | "https") && url.host_str().is_some()).then(|| url.origin().ascii_serialization())
}, String::clone }

text_kind! { /// Who signs tokens.
Issuer: String, "an https:// URL without a slash at its end, exactly as tokens have it",
|text| {
    let url: Url = text.parse().ok()?;
    (matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && !text.ends_with('/')).then(|| text.to_owned())
}, String::clone }

text_kind! { /// Who signs tokens, where that is not Clerk.
OidcIssuer: String, "an https:// URL, exactly as `iss` in tokens has it",
|text| {
    let url: Url = text.parse().ok()?;
    (matches!(url.scheme(), "http" | "https") && url.host_str().is_some()).then(|| text.to_owned())
}, String::clone }

text_kind! { /// Where a service refreshes tokens; parameters are not shown.
TokenAddress: Url, "the https:// URL of a token endpoint, without a name and a password",
|text| {
    let is_plain = |url: &Url| url.username().is_empty() && url.password().is_none();
    WebAddress::parse(text).flatten().filter(is_plain)
}, |url| shown(url), hidden if WebAddress::is_secret }

text_kind! { /// A client of a service.
ClientId: String, "1 to 255 printable ASCII characters", |text| {
    ((1..=255).contains(&text.len()) && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))).then(|| text.to_owned())
}, String::clone }

text_kind! { /// Where something is found, to put a path behind.
PublicAddress: String, "an https:// URL without a slash at its end, without parameters, a name and a password",
|text| {
    let url: Url = text.parse().ok()?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    (matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain && !text.ends_with('/') && !text.contains('&'))
        .then(|| text.to_owned())
}, String::clone }

text_kind! { /// An account of Cloudinary's.
CloudName: String, "1 to 64 letters, digits, _ and -", |text| is_word(text, b"_-").then(|| text.to_owned()), String::clone }

text_kind! { /// A named set of rules for uploads.
PresetOrOff: Option<String>, "1 to 64 letters, digits, spaces, _, - and ., or \"off\"",
|text| if text == "off" { Some(None) } else { is_word(text, b"_-. ").then(|| Some(text.to_owned())) },
|preset| preset.clone().unwrap_or_else(|| "off".to_owned()) }

text_kind! { /// What the name of a file ends with.
FileEnding: String, "an ending such as jpg, 1 to 64 letters and digits", |text| is_word(text, b"").then(|| text.to_owned()), String::clone }

text_kind! { /// What is made of a file.
Transformations: String, "transformations such as c_thumb,w_200, with | between, without & and spaces",
|text| {
    let is_one = (1..=1_024).contains(&text.len()) && !text.chars().any(|char| char == '&' || char.is_whitespace() || char.is_control());
    is_one.then(|| text.to_owned())
}, String::clone }

text_kind! { /// The digest of an account's signatures.
SignatureAlgorithm: Digest, "sha1 or sha256",
|text| Digest::ALL.into_iter().find(|digest| digest.as_str() == text), |digest| digest.as_str().to_owned() }

text_kind! { /// A website of Crisp's.
WebsiteId: String, "1 to 64 letters, digits and -", |text| is_word(text, b"-").then(|| text.to_owned()), String::clone }

text_kind! { /// Whose token it is.
TokenTier: Tier, "one of plugin, website and user",
|text| Tier::ALL.into_iter().find(|tier| tier.as_str() == text), |tier| tier.as_str().to_owned() }

/// An account of Cloudinary's with its secret; never shown.
#[derive(Debug)]
pub struct CloudinaryAddress;

impl Kind for CloudinaryAddress {
    type Value = CloudinaryUrl;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "cloudinary://API_KEY:API_SECRET@CLOUD_NAME, as Cloudinary's console shows it".to_owned()
    }
    fn read(value: &Value) -> Option<CloudinaryUrl> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<CloudinaryUrl> {
        CloudinaryUrl::parse(text)
    }
    fn write(_: &CloudinaryUrl) -> Option<String> {
        Some("\"***\"".to_owned())
    }
}

text_kind! { /// Where keys are published.
KeysAddress: String, "the https:// URL of a JSON Web Key Set",
|text| {
    let url: Url = text.parse().ok()?;
    (matches!(url.scheme(), "http" | "https") && url.host_str().is_some()).then(|| text.to_owned())
}, String::clone }

text_kind! { /// Names of channels.
ChannelPattern: Pattern, "the name after its type prefix, where * stands for any and {user_id}, {org_id}, {org_role} and {claims.NAME} for the user's own",
|text| Pattern::parse(text), ToString::to_string }

text_kind! { /// What holds where nothing else is said.
Otherwise: AuthDefault, "one of deny and allow", |text| match text {
    "deny" => Some(AuthDefault::Deny),
    "allow" => Some(AuthDefault::Allow),
    _ => None,
}, |default| format!("{default:?}").to_ascii_lowercase() }

text_kind! { /// An instance of Clerk.
InstanceId: String, "ins_ and what Clerk's dashboard shows behind it", |text| {
    (text.starts_with("ins_") && is_word(text, b"_")).then(|| text.to_owned())
}, String::clone }

text_kind! { /// A role in an organization.
Role: String, "1 to 128 characters such as org:admin", |text| {
    let is_name = (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned())
}, String::clone }

text_kind! { /// What stands in front of keys.
KeyPrefix: String, "1 to 64 letters, digits, _, - and .", |text| is_word(text, b"_-.").then(|| text.to_owned()), String::clone }

text_kind! { /// What a trigger does while the cluster cannot be reached.
Unreachable: WhenUnreachable, "reject or deliver-locally", |text| match text {
    "reject" => Some(WhenUnreachable::Reject),
    "deliver-locally" => Some(WhenUnreachable::DeliverLocally),
    _ => None,
}, |when| match when {
    WhenUnreachable::Reject => "reject".to_owned(),
    WhenUnreachable::DeliverLocally => "deliver-locally".to_owned(),
} }

text_kind! { /// A kind of webhook.
Webhook: WebhookKind,
"one of channel_occupied, channel_vacated, member_added, member_removed, client_event, cache_miss and subscription_count",
|text| text.parse().ok(), |kind| kind.as_str().to_owned() }

text_kind! { /// From which level on the log is written.
Level: tracing::Level, "one of error, warn, info, debug and trace", |text| match text {
    "error" | "warn" | "info" | "debug" | "trace" => text.parse().ok(),
    _ => None,
}, |level| level.to_string().to_ascii_lowercase() }

text_kind! { /// How the log is written.
Format: LogFormat, "one of auto, text and json", |text| match text {
    "auto" => Some(LogFormat::Auto),
    "text" => Some(LogFormat::Text),
    "json" => Some(LogFormat::Json),
    _ => None,
}, |format| format!("{format:?}").to_ascii_lowercase() }

/// What signs; never shown.
#[derive(Debug)]
pub struct SecretText;

impl Kind for SecretText {
    type Value = Secret;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "text of 1 to 512 bytes".to_owned()
    }
    fn read(value: &Value) -> Option<Secret> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<Secret> {
        (1..=512).contains(&text.len()).then(|| Secret::new(text))
    }
    fn write(secret: &Secret) -> Option<String> {
        Some(if secret.is("") { "\"\"" } else { "\"***\"" }.to_owned())
    }
}

/// What a backend presents; never shown.
#[derive(Debug)]
pub struct ApiKey;

impl Kind for ApiKey {
    type Value = Secret;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "text of 16 to 512 bytes, such as `openssl rand -base64 32` makes".to_owned()
    }
    fn read(value: &Value) -> Option<Secret> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<Secret> {
        (16..=512).contains(&text.len()).then(|| Secret::new(text))
    }
    fn write(secret: &Secret) -> Option<String> {
        SecretText::write(secret)
    }
}

/// Where a database is; what it holds of credentials is not shown.
#[derive(Debug)]
pub struct DatabaseAddress;

impl Kind for DatabaseAddress {
    type Value = DatabaseUrl;
    fn allowed() -> String {
        "postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:PATH".to_owned()
    }
    fn is_secret(_written: &str) -> bool {
        true // what is no URL may be a password in the wrong place
    }
    fn read(value: &Value) -> Option<DatabaseUrl> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<DatabaseUrl> {
        DatabaseUrl::parse(text)
    }
    fn write(url: &DatabaseUrl) -> Option<String> {
        Some(Value::from(url.to_string()).to_string())
    }
}

text_kind! { /// A name in a database that needs no quotes.
Identifier: String, "1 to 63 small letters, digits and _, no digit first",
|text| {
    let plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    let first = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    (plain && first && text.len() <= 63).then(|| text.to_owned())
}, String::clone }

text_kind! { /// What stands between Herald and its Postgres.
BetweenDatabase: Pooler, "one of auto, session and transaction", |text| match text {
    "auto" => Some(Pooler::Auto),
    "session" => Some(Pooler::Session),
    "transaction" => Some(Pooler::Transaction),
    _ => None,
}, |pooler| format!("{pooler:?}").to_ascii_lowercase() }

text_kind! { /// Types of notifications.
TypePattern: String, "a type such as comment.mentioned, a prefix such as comment.*, or *",
|text| is_type_pattern(text).then(|| text.to_owned()), String::clone }

text_kind! { /// What users want who have said nothing.
DefaultPreference: Preference, "TYPE:CHANNEL=on or TYPE:CHANNEL=off, such as marketing.*:email=off; the type may be a prefix or *, the \
channel is one of in_app, push, email, sms and chat",
|text| {
    let (about, state) = text.split_once('=')?;
    let (kind, channel) = about.rsplit_once(':')?;
    let enabled = match state {
        "on" => true,
        "off" => false,
        _ => return None,
    };
    let channel = Channel::parse(channel)?;
    is_type_pattern(kind).then(|| Preference { kind: kind.to_owned(), channel, enabled })
},
|preference| {
    let state = if preference.enabled { "on" } else { "off" };
    format!("{}:{}={state}", preference.kind, preference.channel.as_str())
} }

text_kind! { /// Topics that users may follow.
FollowedTopic: TopicPattern, "1 to 200 characters, where * stands for any and {user_id} and {org_id} for the user's own",
TopicPattern::parse, TopicPattern::to_string }

/// Whether it is a type of notifications, a prefix with `.*`, or `*`.
#[must_use]
pub fn is_type_pattern(text: &str) -> bool {
    text == "*" || crate::store::notification::is_type(text.strip_suffix(".*").unwrap_or(text))
}

text_kind! { /// The name of a claim, or the value of one.
Claim: String, "1 to 255 printable characters", |text| {
    let is_one = (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
    is_one.then(|| text.to_owned())
}, String::clone }

text_kind! { /// How tokens are signed.
Signing: Algorithm, "one of RS256, PS256, ES256 and EdDSA",
|text| Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == text), |algorithm| algorithm.as_str().to_owned() }

/// The public key of an identity provider. It is no secret, and yet shown to nobody: whoever mixes variables up may have put one there.
#[derive(Debug)]
pub struct Pem;

impl Kind for Pem {
    type Value = Vec<Key>;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "the PEM of an RSA public key, line breaks as such or as \\n, or several behind each other".to_owned()
    }
    fn read(value: &Value) -> Option<Vec<Key>> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<Vec<Key>> {
        let mut pems: Vec<&str> = text.split_inclusive("-----END PUBLIC KEY-----").collect();
        // What is behind the last one may be a line break or a comma, but no key that was cut.
        pems.pop_if(|rest| !rest.contains("-----"));
        pems.iter().map(|pem| Key::from_pem(pem).ok()).collect::<Option<Vec<Key>>>().filter(|keys| !keys.is_empty())
    }
    fn write(_: &Vec<Key>) -> Option<String> {
        Some("\"***\"".to_owned())
    }
}

/// What stored tokens are encrypted with; never shown.
#[derive(Debug)]
pub struct TokenKeys;

impl Kind for TokenKeys {
    type Value = KeyRing;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "ID:KEY, the key 32 bytes in base64, or several with commas between, each with an id of its own".to_owned()
    }
    fn read(value: &Value) -> Option<KeyRing> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<KeyRing> {
        KeyRing::parse(text).ok()
    }
    fn write(_: &KeyRing) -> Option<String> {
        Some("\"***\"".to_owned())
    }
}

text_kind! { /// How stored tokens are encrypted.
Encryption: seal::Algorithm, "xc20p or a256gcm",
|text| seal::Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == text), |algorithm| algorithm.as_str().to_owned() }

/// What webhooks are signed with; never shown.
#[derive(Debug)]
pub struct WebhookSecret;

impl Kind for WebhookSecret {
    type Value = Secrets;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "whsec_ and base64, or several with commas between".to_owned()
    }
    fn read(value: &Value) -> Option<Secrets> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<Secrets> {
        Secrets::parse(text).ok()
    }
    fn write(_: &Secrets) -> Option<String> {
        Some("\"***\"".to_owned())
    }
}

/// Where a project of Sentry is. It is no secret, and yet shown to nobody: with it anybody could report.
#[derive(Debug)]
pub struct SentryDsn;

impl Kind for SentryDsn {
    type Value = Dsn;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "a project's DSN, such as https://KEY@o1.ingest.sentry.io/2".to_owned()
    }
    fn read(value: &Value) -> Option<Dsn> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<Dsn> {
        text.trim().parse().ok()
    }
    fn write(_: &Dsn) -> Option<String> {
        Some("\"***\"".to_owned())
    }
}

text_kind! { /// How a release or an environment is called in Sentry.
ReportName: String, "text of 1 to 200 characters without line breaks, tabs, / and \\",
|text| {
    let plain = |character: char| !character.is_control() && !matches!(character, '/' | '\\');
    let text = text.trim();
    ((1..=200).contains(&text.chars().count()) && text.chars().all(plain)).then(|| text.to_owned())
}, String::clone }

/// A part of a whole.
#[derive(Debug)]
pub struct Share;

impl Kind for Share {
    type Value = f64;
    fn allowed() -> String {
        "a number from 0 to 1".to_owned()
    }
    fn read(value: &Value) -> Option<f64> {
        let share = value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64))?;
        (0.0..=1.0).contains(&share).then_some(share)
    }
    fn parse(text: &str) -> Option<f64> {
        Self::read(&Value::Float(text.trim().parse().ok()?))
    }
    fn write(share: &f64) -> Option<String> {
        Some(Value::Float(*share).to_string())
    }
}

/// 32 bytes that only Herald and the app's backends know.
#[derive(Debug)]
pub struct MasterKeyText;

impl Kind for MasterKeyText {
    type Value = MasterKey;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "32 bytes in base64, such as `openssl rand -base64 32` makes".to_owned()
    }
    fn read(value: &Value) -> Option<MasterKey> {
        Self::parse(value.as_str()?)
    }
    fn parse(text: &str) -> Option<MasterKey> {
        MasterKey::parse(text)
    }
    fn write(_: &MasterKey) -> Option<String> {
        Some("\"***\"".to_owned())
    }
}

/// Headers that are sent along; their values are never shown, since tokens stand in them.
#[derive(Debug)]
pub struct Headers;

impl Kind for Headers {
    type Value = BTreeMap<String, String>;
    fn is_secret(_written: &str) -> bool {
        true
    }
    fn allowed() -> String {
        "a table of header names and texts; Content-Type, Content-Length, Host, User-Agent, X-Pusher-… and X-Herald-… are set by Herald".to_owned()
    }
    fn read(value: &Value) -> Option<Self::Value> {
        let header = |(name, value): (&String, &Value)| {
            let name = name.parse::<reqwest::header::HeaderName>().ok()?;
            let value = value.as_str()?;
            value.parse::<reqwest::header::HeaderValue>().ok()?;
            let ours = matches!(
                name.as_str(),
                "content-type" | "content-length" | "transfer-encoding" | "host" | "user-agent"
            ) || name.as_str().starts_with("x-pusher-")
                || name.as_str().starts_with("x-herald-");
            (!ours).then(|| (name.to_string(), value.to_owned()))
        };
        value.as_table()?.iter().map(header).collect()
    }
    fn parse(_text: &str) -> Option<Self::Value> {
        None
    }
    fn write(headers: &Self::Value) -> Option<String> {
        let shown: Vec<String> =
            headers.keys().map(|name| format!("{} = \"***\"", Value::from(name.as_str()))).collect();
        Some(if shown.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", shown.join(", ")) })
    }
}

/// Where Herald listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and port; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// How `X-RateLimit-Reset` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetForm {
    /// In seconds since 1970.
    Unix,
    /// As text.
    Iso,
}

/// What a trigger does while the cluster cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnreachable {
    /// Answers that it cannot.
    Reject,
    /// Reaches the clients of the node that got it.
    DeliverLocally,
}

/// Who may subscribe to a channel about which no rule says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthDefault {
    /// Nobody.
    Deny,
    /// Everybody who has signed in.
    Allow,
}

fn is_word(text: &str, others: &[u8]) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dsn_is_read_as_sentry_does() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/sentry_dsn.json")).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(cases.len() >= 13, "{cases:?}");
        for case in cases {
            let (text, expected) = (case["dsn"].as_str().unwrap(), &case["expect"]);
            let found = SentryDsn::parse(text);
            assert_eq!(found.is_some(), expected["ok"].as_bool().unwrap(), "{text}");
            let Some(dsn) = found else { continue };
            for (member, value) in [
                ("envelope_url", dsn.envelope_api_url().to_string()),
                ("host", dsn.host().to_owned()),
                ("path", dsn.path().to_owned()),
                ("project_id", dsn.project_id().to_string()),
                ("public_key", dsn.public_key().to_owned()),
                ("scheme", dsn.scheme().to_string()),
            ] {
                assert_eq!(expected[member], value.as_str(), "{member} of {text}");
            }
            assert_eq!(expected["port"], dsn.port(), "{text}");
            assert_eq!(expected["secret_key"].as_str(), dsn.secret_key(), "{text}");
        }
    }
}
