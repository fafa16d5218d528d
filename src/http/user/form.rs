//! What an auth endpoint is asked, as a form (pusher-js) or as JSON (section 1.8). Everything is checked before anything is signed: a
//! socket id with a colon in it would make two different strings sign alike.

use axum::body::Body;
use axum::http::{header, request};
use herald_protocol::SocketId;
use serde_json::{Map, Value};

use crate::http::fault::{Fault, read_body};
use crate::parts::Parts;

/// The largest body.
const MAX_BYTES: usize = 64 * 1024;
/// The most channels of one request.
const MAX_CHANNELS: usize = 100;
/// What is read.
const READ: &str = "application/x-www-form-urlencoded or application/json";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Form {
    /// The connection that the answer is for.
    pub socket_id: SocketId,
    /// The channels that it wants to subscribe to.
    pub channels: Channels,
    /// The app, if the request says which.
    pub app: Option<String>,
}

/// Names as they were written.
#[derive(Debug, PartialEq, Eq)]
pub enum Channels {
    /// None.
    None,
    /// One: it is answered by itself.
    One(String),
    /// Several, which the npm plugin `pusher-js-auth` collects: each is answered under its name.
    Several(Vec<String>),
}

impl Channels {
    /// All of them.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

/// Reads a request's body.
///
/// # Errors
/// See [`Form::parse`].
pub async fn read(parts: &Parts, head: &request::Parts, body: Body) -> Result<Form, Fault> {
    let body = read_body(parts, head, body, MAX_BYTES).await?;
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    Form::parse(content_type, &body)
}

impl Form {
    /// Reads a body of this content type.
    ///
    /// # Errors
    /// [`Fault::MediaType`] and [`Fault::Invalid`].
    pub fn parse(content_type: &str, body: &[u8]) -> Result<Self, Fault> {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let fields = match kind.as_str() {
            "application/x-www-form-urlencoded" => Fields::of_form(body)?,
            "application/json" => Fields::of_json(body)?,
            _ => return Err(Fault::MediaType(READ)),
        };
        let socket_id = fields.socket_id.ok_or_else(|| missing("socket_id"))?;
        let socket_id = socket_id.parse().map_err(|error| Fault::Invalid(format!("`socket_id`: {error}")))?;
        if let Channels::Several(names) = &fields.channels
            && !(1..=MAX_CHANNELS).contains(&names.len())
        {
            return Err(Fault::Invalid(format!(
                "`channel_name` has {} names, 1 to {MAX_CHANNELS} are allowed",
                names.len()
            )));
        }
        Ok(Self { socket_id, channels: fields.channels, app: fields.app })
    }
}

fn missing(name: &str) -> Fault {
    Fault::Invalid(format!("`{name}` is missing"))
}

struct Fields {
    socket_id: Option<String>,
    channels: Channels,
    app: Option<String>,
}

impl Fields {
    fn of_form(body: &[u8]) -> Result<Self, Fault> {
        let mut fields = Self { socket_id: None, channels: Channels::None, app: None };
        let put = |name: &str, field: &mut Option<String>, value: String| match field.replace(value) {
            None => Ok(()),
            Some(_) => Err(Fault::Invalid(format!("`{name}` stands there twice"))),
        };
        let mut single = None;
        let mut several = Vec::new();
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "socket_id" => put("socket_id", &mut fields.socket_id, value.into_owned())?,
                "channel_name" => put("channel_name", &mut single, value.into_owned())?,
                "app" => put("app", &mut fields.app, value.into_owned())?,
                name if is_indexed(name) => several.push(value.into_owned()),
                _ => {}
            }
        }
        fields.channels = match (single, several.is_empty()) {
            (Some(_), false) => {
                return Err(Fault::Invalid("`channel_name` is one name or a list, not both".to_owned()));
            }
            (Some(name), true) => Channels::One(name),
            (None, false) => Channels::Several(several),
            (None, true) => Channels::None,
        };
        Ok(fields)
    }

    fn of_json(body: &[u8]) -> Result<Self, Fault> {
        let object: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
            Fault::Invalid("the body must be a JSON object with `socket_id` and `channel_name`".to_owned())
        })?;
        let text = |name: &str| match object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Fault::Invalid(format!("`{name}` must be a string"))),
        };
        let channels = match object.get("channel_name") {
            Some(Value::Array(names)) => {
                let names = names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>();
                Channels::Several(
                    names.ok_or_else(|| Fault::Invalid("`channel_name` must be a list of strings".to_owned()))?,
                )
            }
            _ => text("channel_name")?.map_or(Channels::None, Channels::One),
        };
        Ok(Self { socket_id: text("socket_id")?, channels, app: text("app")? })
    }
}

/// `channel_name[]` or `channel_name[7]`.
fn is_indexed(name: &str) -> bool {
    let index = name.strip_prefix("channel_name[").and_then(|rest| rest.strip_suffix(']'));
    index.is_some_and(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "application/x-www-form-urlencoded; charset=UTF-8";

    #[test]
    fn what_clients_send_is_read() {
        let one = |name: &str| Channels::One(name.to_owned());
        let several = |names: &[&str]| Channels::Several(names.iter().map(|name| (*name).to_owned()).collect());
        for (content_type, body, channels) in [
            (FORM, "socket_id=1.1&channel_name=private-a", one("private-a")),
            (FORM, "socket_id=1.1&channel_name=presence-a%3Bb&x=1", one("presence-a;b")),
            (FORM, "&socket_id=1.1&channel_name[0]=a&channel_name[1]=b", several(&["a", "b"])),
            (FORM, "socket_id=1.1&channel_name[]=a&&", several(&["a"])),
            (FORM, "socket_id=1.1", Channels::None),
            ("application/json", r#"{"socket_id":"1.1","channel_name":"private-a"}"#, one("private-a")),
            ("Application/JSON;charset=utf-8", r#"{"socket_id":"1.1","channel_name":["a","b"]}"#, several(&["a", "b"])),
        ] {
            let form = Form::parse(content_type, body.as_bytes()).unwrap();
            assert_eq!((form.channels, form.socket_id.to_string()), (channels, "1.1".to_owned()), "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_before_anything_is_signed() {
        let hundred_and_one = format!("socket_id=1.1{}", "&channel_name[]=a".repeat(101));
        for (content_type, body, part) in [
            ("text/plain", "socket_id=1.1", "content type"),
            ("", "", "content type"),
            (FORM, "", "`socket_id` is missing"),
            (FORM, "socket_id=1.1%3Aprivate-x&channel_name=a", "socket_id"),
            (FORM, "socket_id=1.1%0A&channel_name=a", "socket_id"),
            (FORM, "socket_id=1.1&socket_id=1.2", "twice"),
            (FORM, "socket_id=1.1&channel_name=a&channel_name=b", "twice"),
            (FORM, "socket_id=1.1&channel_name=a&channel_name[]=b", "not both"),
            (FORM, &hundred_and_one, "101 names"),
            ("application/json", "[]", "JSON object"),
            ("application/json", r#"{"socket_id":1}"#, "must be a string"),
            ("application/json", r#"{"socket_id":"1.1","channel_name":[]}"#, "0 names"),
            ("application/json", r#"{"socket_id":"1.1","channel_name":[1]}"#, "list of strings"),
        ] {
            let message = Form::parse(content_type, body.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(part), "{body}: {message}");
        }
    }
}
