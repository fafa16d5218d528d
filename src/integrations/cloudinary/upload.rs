//! What a browser uploads with (section 2.2): parameters that Herald fixes, or those that Cloudinary's upload widget asks to have signed, as far
//! as a user may choose them.
//!
//! Always: whatever is signed leads into the user's own folder. A size cannot be limited here: no signature and no preset can do that.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::owner;
use super::signature::parameter;

/// How far the widget's timestamp may be from the clock, in seconds.
const WIDGET_CLOCK_SECONDS: u64 = 300;
/// Bytes of one parameter.
const MAX_VALUE_BYTES: usize = 1_024;
/// What the widget may have signed.
const WIDGET: [&str; 11] = [
    "timestamp",
    "source",
    "folder",
    "upload_preset",
    "tags",
    "custom_coordinates",
    "public_id",
    "context",
    "filename_override",
    "use_filename",
    "unique_filename",
];

/// What is signed for every upload of the app.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// The upload preset, if there is one.
    pub upload_preset: Option<String>,
    /// Endings of files that Cloudinary takes; empty means all.
    pub allowed_formats: Vec<String>,
    /// What is made of a file at once, such as a thumbnail.
    pub eager: Option<String>,
    /// Where Cloudinary tells of the upload.
    pub notification_url: Option<String>,
}

/// What a client may choose where Herald fixes the rest.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    /// `image`, `video`, `raw` or `auto`.
    pub resource_type: ResourceType,
    /// What the file is called on the user's side.
    pub filename: Option<String>,
    /// Separated by commas.
    pub tags: Option<String>,
}

/// Kinds of files, as Cloudinary parts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResourceType {
    /// Pictures, and documents such as PDF.
    #[default]
    Image,
    /// Films and sound.
    Video,
    /// Anything, kept as it is.
    Raw,
    /// Cloudinary looks for itself.
    Auto,
}

impl ResourceType {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Image, Self::Video, Self::Raw, Self::Auto];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Video => "video",
            Self::Raw => "raw",
            Self::Auto => "auto",
        }
    }
}

/// Why something is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{parameter}` {allowed}")]
pub struct NotSigned {
    /// Which parameter is wrong.
    pub parameter: String,
    /// What is allowed.
    pub allowed: String,
}

impl Fixed {
    /// The parameters of one upload of this user, one file at an address of its own, at the time `now` (Unix seconds).
    ///
    /// # Errors
    /// When what the client has chosen cannot be signed.
    pub fn parameters(&self, chosen: &Chosen, user: &str, now: u64) -> Result<BTreeMap<String, String>, NotSigned> {
        let mut id = Uuid::now_v7().to_string();
        if chosen.resource_type == ResourceType::Raw
            && let Some((_, ending)) = chosen.filename.as_deref().and_then(|name| name.rsplit_once('.'))
            && ending.bytes().all(|byte| byte.is_ascii_alphanumeric())
            && (1..=16).contains(&ending.len())
        {
            id = format!("{id}.{}", ending.to_ascii_lowercase()); // a raw file has no other ending than its id's
        }
        let mut parameters = BTreeMap::from([
            ("timestamp", now.to_string()),
            ("folder", owner::folder(user)),
            ("context", owner::context(user)),
            ("overwrite", "false".to_owned()),
            ("public_id", id),
        ]);
        if let Some(filename) = &chosen.filename {
            check_value("filename", filename)?;
            check_path("filename", filename)?;
            parameters.insert("filename_override", filename.clone());
        }
        if let Some(tags) = &chosen.tags {
            check_value("tags", tags)?;
            parameters.insert("tags", tags.clone());
        }
        if let Some(preset) = &self.upload_preset {
            parameters.insert("upload_preset", preset.clone());
        }
        if !self.allowed_formats.is_empty() {
            parameters.insert("allowed_formats", self.allowed_formats.join(","));
        }
        if let Some(url) = &self.notification_url {
            parameters.insert("notification_url", url.clone());
        }
        if let Some(eager) = &self.eager {
            parameters.insert("eager", eager.clone());
            parameters.insert("eager_async", "true".to_owned());
            if let Some(url) = &self.notification_url {
                parameters.insert("eager_notification_url", url.clone());
            }
        }
        let set = parameters.into_iter().filter(|(_, value)| !value.is_empty());
        Ok(set.map(|(name, value)| (name.to_owned(), value)).collect())
    }

    /// The widget's parameters, if all of them are such as this user may choose.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn of_widget(
        &self,
        asked: &Map<String, Value>,
        user: &str,
        now: u64,
    ) -> Result<BTreeMap<String, String>, NotSigned> {
        let mut parameters = BTreeMap::new();
        for (name, value) in asked {
            if !WIDGET.contains(&name.as_str()) {
                return Err(not_signed(name, &format!("is not signed for a client; it may be {}", WIDGET.join(", "))));
            }
            let value =
                parameter(value).ok_or_else(|| not_signed(name, "must be text, a number or a list of those"))?;
            check_value(name, &value)?;
            if !value.is_empty() {
                parameters.insert(name.clone(), value);
            }
        }
        let get = |name: &str| parameters.get(name).map(String::as_str);
        let own = owner::folder(user);
        if !get("folder").is_some_and(|folder| owner::is_folder_of(folder, user)) {
            return Err(not_signed("folder", &format!("must be {own:?} or below it")));
        }
        let timestamp = get("timestamp").and_then(|text| text.parse::<u64>().ok());
        if timestamp.is_none_or(|timestamp| timestamp.abs_diff(now) > WIDGET_CLOCK_SECONDS) {
            return Err(not_signed(
                "timestamp",
                "must be in Unix seconds, at most 5 minutes away from the server's clock",
            ));
        }
        for name in ["public_id", "filename_override"] {
            get(name).map_or(Ok(()), |path| check_path(name, path))?;
        }
        if get("context").is_some_and(|context| !owner::is_context_of(context, user)) {
            return Err(not_signed("context", &format!("may name no other user than {:?}", owner::context(user))));
        }
        if let Some(preset) = get("upload_preset")
            && self.upload_preset.as_deref() != Some(preset)
        {
            let allowed = self.upload_preset.as_ref();
            let allowed = allowed.map_or_else(|| "cannot be chosen".to_owned(), |preset| format!("must be {preset:?}"));
            return Err(not_signed("upload_preset", &allowed));
        }
        Ok(parameters)
    }
}

fn not_signed(parameter: &str, allowed: &str) -> NotSigned {
    let parameter = parameter.chars().take(64).collect();
    NotSigned { parameter, allowed: allowed.to_owned() }
}

/// Nothing that a client chooses has an `&`, with which an older version of the signature takes one value for two parameters.
fn check_value(name: &str, value: &str) -> Result<(), NotSigned> {
    if value.contains('&') || value.chars().any(char::is_control) || value.len() > MAX_VALUE_BYTES {
        let allowed = format!("may have {MAX_VALUE_BYTES} bytes, no & and no control characters");
        return Err(not_signed(name, &allowed));
    }
    Ok(())
}

fn check_path(name: &str, path: &str) -> Result<(), NotSigned> {
    if owner::is_plain(path) {
        return Ok(());
    }
    Err(not_signed(name, "must be a name or a relative path, without \\ and without an empty, . or .. part"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_767_225_600;

    fn fixed() -> Fixed {
        Fixed {
            upload_preset: Some("user_uploads".to_owned()),
            allowed_formats: ["jpg", "png", "gif", "pdf"].map(str::to_owned).to_vec(),
            eager: None,
            notification_url: Some("https://herald.example/webhooks/cloudinary".to_owned()),
        }
    }

    #[test]
    fn one_signature_is_for_one_file_in_the_users_folder() {
        let chosen = Chosen { filename: Some("x.jpg".to_owned()), tags: Some("a,b".to_owned()), ..Chosen::default() };
        let mut parameters = fixed().parameters(&chosen, "user_ann", NOW).unwrap();
        let id = parameters.remove("public_id").unwrap();
        assert!(id.parse::<Uuid>().is_ok(), "{id}");
        assert_ne!(fixed().parameters(&chosen, "user_ann", NOW).unwrap()["public_id"], id);
        let expected = json!({
            "timestamp": "1767225600", "folder": "users/user_ann", "context": "user_id=user_ann", "overwrite": "false",
            "upload_preset": "user_uploads", "allowed_formats": "jpg,png,gif,pdf", "filename_override": "x.jpg", "tags": "a,b",
            "notification_url": "https://herald.example/webhooks/cloudinary",
        });
        assert_eq!(json!(parameters), expected);
        let bare = Fixed::default().parameters(&Chosen::default(), "user_ann", NOW).unwrap();
        assert_eq!(bare.keys().collect::<Vec<_>>(), ["context", "folder", "overwrite", "public_id", "timestamp"]);
        let eager = Fixed { eager: Some("c_thumb,w_200|e_grayscale".to_owned()), ..fixed() };
        let eager = eager.parameters(&Chosen::default(), "user_ann", NOW).unwrap();
        assert_eq!((&*eager["eager"], &*eager["eager_async"]), ("c_thumb,w_200|e_grayscale", "true"));
        assert_eq!(eager["eager_notification_url"], eager["notification_url"]);
    }

    #[test]
    fn a_raw_file_keeps_its_ending_and_no_name_leads_elsewhere() {
        let ask = |filename: &str| {
            let chosen =
                Chosen { resource_type: ResourceType::Raw, filename: Some(filename.to_owned()), ..Chosen::default() };
            fixed().parameters(&chosen, "user_ann", NOW)
        };
        assert!(ask("Report.PDF").unwrap()["public_id"].ends_with(".pdf"));
        assert!(ask("report.tar.gz").unwrap()["public_id"].ends_with(".gz"));
        assert!(!ask("a report").unwrap()["public_id"].contains('.'));
        for wrong in ["../x.pdf", "a//b", "/etc/passwd", "a\\b", "a&tags=b", "a\nb", ""] {
            let error = ask(wrong).unwrap_err();
            assert_eq!(error.parameter, "filename", "{wrong}");
        }
    }

    fn widget(parameters: Value) -> Result<BTreeMap<String, String>, NotSigned> {
        let mut asked = json!({ "timestamp": NOW, "source": "uw", "folder": "users/user_ann" });
        for (name, value) in parameters.as_object().unwrap() {
            asked[name] = value.clone();
        }
        fixed().of_widget(asked.as_object().unwrap(), "user_ann", NOW)
    }

    #[test]
    fn what_the_widget_asks_for_is_signed_as_it_is() {
        let all = json!({
            "timestamp": (NOW - 300).to_string(), "source": "uw", "folder": "users/user_ann/albums", "upload_preset": "user_uploads",
            "tags": ["a", "b"], "custom_coordinates": "10,20,300,400", "public_id": "albums/photo", "context": "alt=x|user_id=user_ann",
            "filename_override": "photo.jpg", "use_filename": true, "unique_filename": false,
        });
        let signed = widget(all).unwrap();
        assert_eq!((signed.len(), &*signed["tags"], &*signed["use_filename"]), (11, "a,b", "true"));
        assert_eq!(widget(json!({ "tags": null, "public_id": "" })).unwrap().len(), 3, "what is empty is not sent");
    }

    #[test]
    fn what_a_user_may_not_choose_is_named() {
        for (name, value) in [
            ("folder", json!("users/user_bob")),
            ("folder", json!("users/user_anna")),
            ("folder", json!("users/user_ann/../user_bob")),
            ("folder", json!("users/user_ann//x")),
            ("folder", json!("users/user_ann/")),
            ("folder", json!("/users/user_ann")),
            ("folder", json!(null)),
            ("folder", json!("")),
            ("public_id", json!("../user_bob/x")),
            ("public_id", json!("/x")),
            ("public_id", json!("a\\..\\b")),
            ("public_id", json!("a&tags=evil")),
            ("filename_override", json!("../x")),
            ("context", json!("user_id=user_bob")),
            ("context", json!({ "user_id": "user_bob" })),
            ("upload_preset", json!("anything_goes")),
            ("timestamp", json!(NOW - 301)),
            ("timestamp", json!(NOW + 301)),
            ("timestamp", json!("soon")),
            ("timestamp", json!(null)),
            ("tags", json!("a&b")),
            ("tags", json!([["a"]])),
            ("tags", json!("a".repeat(1_025))),
            ("source", json!("u\u{0}w")),
            ("eager", json!("w_1")),
            ("on_success", json!("x")),
            ("eval", json!("x")),
            ("notification_url", json!("https://evil.example")),
            ("transformation", json!("w_1")),
            ("type", json!("private")),
            ("access_mode", json!("public")),
            ("overwrite", json!(true)),
            ("resource_type", json!("image")),
            ("api_key", json!("1")),
            ("signature", json!("1")),
        ] {
            let error = widget(json!({ name: value })).unwrap_err();
            assert_eq!(error.parameter, name, "{value}");
            assert!(error.to_string().starts_with(&format!("`{name}` ")), "{error}");
        }
        let without = Fixed::default().of_widget(
            json!({ "timestamp": NOW, "folder": "users/user_ann", "upload_preset": "x" }).as_object().unwrap(),
            "user_ann",
            NOW,
        );
        assert_eq!(without.unwrap_err().parameter, "upload_preset");
    }
}
