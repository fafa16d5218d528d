//! What a notification of Cloudinary's says has changed (section 2.3): a verified body becomes a [`FileChange`]. The same members stand in the
//! answer that a browser gets to its upload ([`of_answer`]).

use serde::Deserialize;
use serde_json::{Map, Value};

use super::owner;
use crate::store::files::{FileChange, FileKey, Gone, NewFile};

/// The longest names and addresses that are kept.
const MAX_ID_BYTES: usize = 1_024;
const MAX_URL_BYTES: usize = 4_096;
const MAX_FILENAME_CHARS: usize = 255;
/// Files of one deletion.
const MAX_RESOURCES: usize = 1_000;
/// Bytes of what is kept beside the columns; where it is more, only its short members are.
const MAX_METADATA_BYTES: usize = 16 * 1024;
const SHORT_BYTES: usize = 256;
/// What is kept in columns, or nowhere.
const NOT_METADATA: [&str; 18] = [
    "notification_type",
    "notification_context",
    "timestamp",
    "request_id",
    "signature",
    "signature_key",
    "api_key",
    "asset_id",
    "public_id",
    "version",
    "resource_type",
    "type",
    "bytes",
    "url",
    "secure_url",
    "placeholder",
    "version_id",
    "original_filename",
];
/// What makes a small picture of a picture.
const THUMBNAIL: &str = "c_thumb,w_200";

/// A notification, read.
#[derive(Debug)]
pub struct Notification {
    /// What it is called, such as `upload`.
    pub kind: String,
    /// What follows from it.
    pub change: FileChange,
}

/// A body that was signed and yet is none. Sending it again would not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// No notification.
    #[error("the body is no notification of Cloudinary's")]
    Envelope,
    /// What it is about is not there.
    #[error("the notification {kind} does not say what it is about")]
    Data {
        /// What it is called.
        kind: String,
    },
}

/// A file, as Cloudinary describes one.
#[derive(Debug, Deserialize)]
struct Asset {
    public_id: String,
    #[serde(default = "image")]
    resource_type: String,
    #[serde(default = "upload", rename = "type")]
    delivery_type: String,
    #[serde(default)]
    version: Option<i64>,
    #[serde(default)]
    asset_id: Option<String>,
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    bytes: Option<i64>,
    #[serde(default)]
    secure_url: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    original_filename: Option<String>,
    #[serde(default)]
    eager: Option<Vec<Derived>>,
    #[serde(default)]
    context: Value,
}

/// Something that was made of a file.
#[derive(Debug, Deserialize)]
struct Derived {
    #[serde(default)]
    secure_url: Option<String>,
    /// None where it was made at once.
    #[serde(default)]
    status: Option<String>,
}

#[derive(Deserialize)]
struct Renamed {
    from_public_id: String,
    to_public_id: String,
    #[serde(default = "image")]
    resource_type: String,
    #[serde(default = "upload", rename = "type")]
    delivery_type: String,
}

#[derive(Deserialize)]
struct Resources {
    resources: Vec<Asset>,
}

#[derive(Deserialize)]
struct Made {
    #[serde(default)]
    public_id: Option<String>,
    #[serde(default = "image")]
    resource_type: String,
    #[serde(default = "upload", rename = "type")]
    delivery_type: String,
    eager: Vec<Derived>,
}

fn image() -> String {
    "image".to_owned()
}

fn upload() -> String {
    "upload".to_owned()
}

/// Reads a body whose signature is right. A file with more than `max_file_bytes` is too large.
///
/// # Errors
/// See [`Unreadable`].
pub fn read(body: &[u8], max_file_bytes: u64) -> Result<Notification, Unreadable> {
    let said: Map<String, Value> = serde_json::from_slice(body).map_err(|_| Unreadable::Envelope)?;
    let kind = said.get("notification_type").and_then(Value::as_str).ok_or(Unreadable::Envelope)?.to_owned();
    let change = change(&kind, said, max_file_bytes).ok_or_else(|| Unreadable::Data { kind: kind.clone() })?;
    Ok(Notification { kind, change })
}

/// `None` when the data is not what the kind promises.
fn change(kind: &str, said: Map<String, Value>, max_file_bytes: u64) -> Option<FileChange> {
    Some(match kind {
        "upload" => {
            let (asset, metadata) = asset(said)?;
            let signed = ["/custom/user_id", "/user_id"].iter().find_map(|path| asset.context.pointer(path));
            match owner::of(signed.and_then(Value::as_str), &asset.public_id) {
                Some(user) => FileChange::Uploaded(Box::new(asset.into_file(user, metadata, max_file_bytes)?)),
                None => FileChange::Nothing,
            }
        }
        "rename" => {
            let Renamed { from_public_id, to_public_id, resource_type, delivery_type } = read_as(said)?;
            let key = |id| key(&resource_type, &delivery_type, id);
            let owner = owner::of(None, &to_public_id);
            FileChange::Renamed { from: key(from_public_id)?, to: key(to_public_id)?, owner }
        }
        "eager" => {
            let Made { public_id, resource_type, delivery_type, eager } = read_as(said)?;
            let Some(thumbnail_url) = thumbnail(&eager) else { return Some(FileChange::Nothing) };
            let public_id = public_id.or_else(|| public_id_in(&thumbnail_url))?;
            FileChange::Derived { file: key(&resource_type, &delivery_type, public_id)?, thumbnail_url }
        }
        "delete" => {
            let Resources { resources } = read_as(said)?;
            let gone = resources.into_iter().take(MAX_RESOURCES).filter_map(|asset| {
                let owner = owner::of(None, &asset.public_id);
                let key = key(&asset.resource_type, &asset.delivery_type, asset.public_id)?;
                Some(Gone { key, version: asset.version, owner })
            });
            FileChange::Deleted(gone.collect())
        }
        _ => FileChange::Nothing,
    })
}

/// The file of the answer to an upload of this user. Of that answer a signature shows two members only, so the rest is the client's word:
/// ids and addresses that could be another's are not taken, a file's address is only if it is this file's on `hosts`, else made.
#[must_use]
pub fn of_answer(mut said: Map<String, Value>, user: &str, hosts: &Hosts<'_>, max_file_bytes: u64) -> Option<NewFile> {
    for name in ["asset_id", "eager", "context"] {
        said.remove(name);
    }
    let (mut asset, metadata) = asset(said)?;
    asset.url = None;
    asset.secure_url = Some(hosts.address(&asset)?);
    asset.into_file(user.to_owned(), metadata, max_file_bytes)
}

/// Where an account's files are delivered from.
#[derive(Clone, Copy, Debug)]
pub struct Hosts<'a> {
    /// The account.
    pub cloud_name: &'a str,
    /// A host of its own, if it has one.
    pub own: Option<&'a str>,
}

impl Hosts<'_> {
    /// What the client says, if it is on one of the hosts and ends as the file's address does; else the one that accounts have by default.
    fn address(&self, asset: &Asset) -> Option<String> {
        let Asset { public_id, resource_type, delivery_type, version, format, .. } = asset;
        let ending = match format {
            Some(format) if resource_type != "raw" => format!(".{format}"),
            _ => String::new(),
        };
        let version = version.unwrap_or_default();
        let path = format!("/{resource_type}/{delivery_type}/v{version}/{public_id}{ending}");
        let made = url::Url::parse(&format!("https://res.cloudinary.com/{}{path}", self.cloud_name)).ok()?;
        let path = made.path().strip_prefix(&format!("/{}", self.cloud_name))?;
        let is_ours = |url: &url::Url| {
            let before = url.path().strip_suffix(path);
            url.scheme() == "https"
                && url.port().is_none()
                && url.query().is_none()
                && match url.host_str() {
                    Some("res.cloudinary.com") => before == Some(&format!("/{}", self.cloud_name)),
                    Some(host) => {
                        before == Some("")
                            && (self.own == Some(host) || host == format!("{}-res.cloudinary.com", self.cloud_name))
                    }
                    None => false,
                }
        };
        let said = asset.secure_url.as_deref().and_then(|text| url::Url::parse(text).ok());
        Some(said.filter(is_ours).unwrap_or(made).into())
    }
}

/// A file, and what is said of it beside its columns.
fn asset(said: Map<String, Value>) -> Option<(Asset, Value)> {
    let asset: Asset = serde_json::from_value(Value::Object(said.clone())).ok()?;
    let mut rest = said;
    rest.retain(|name, _| !NOT_METADATA.contains(&name.as_str()));
    let length = |value: &Value| value.to_string().len();
    if rest.iter().map(|(name, value)| name.len() + length(value)).sum::<usize>() > MAX_METADATA_BYTES {
        let mut left = MAX_METADATA_BYTES;
        rest.retain(|name, value| {
            let bytes = name.len() + length(value);
            let is_kept = bytes <= SHORT_BYTES.min(left);
            left -= if is_kept { bytes } else { 0 };
            is_kept
        });
    }
    Some((asset, rest.into()))
}

impl Asset {
    fn into_file(self, user: String, metadata: Value, max_file_bytes: u64) -> Option<NewFile> {
        let format = self.format.filter(|format| is_text(format, 32) && !format.is_empty());
        let last = self.public_id.rsplit('/').next().unwrap_or_default();
        let filename = if self.resource_type == "raw" {
            last.to_owned()
        } else {
            let name = self.original_filename.as_deref().filter(|name| !name.is_empty()).unwrap_or(last);
            format.as_ref().map_or_else(|| name.to_owned(), |format| format!("{name}.{format}"))
        };
        let ending = match &format {
            Some(format) if self.resource_type != "raw" => Some(format.as_str()),
            _ => last.rsplit_once('.').map(|(_, ending)| ending),
        };
        let file_type = mime(&self.resource_type, ending);
        let is_address = |url: &String| is_text(url, MAX_URL_BYTES) && url.starts_with("http");
        let file_url = self.secure_url.or(self.url).filter(is_address)?;
        let thumbnail_url = thumbnail(self.eager.as_deref().unwrap_or_default()).or_else(|| {
            let is_picture = self.resource_type == "image" && self.delivery_type == "upload";
            is_picture.then(|| derived_thumbnail(&file_url, format.as_deref())).flatten()
        });
        let bytes = self.bytes.filter(|bytes| *bytes >= 0);
        Some(NewFile {
            user,
            asset_id: self.asset_id.filter(|id| !id.is_empty() && is_text(id, 255)),
            version: self.version.unwrap_or_default(),
            filename: filename.chars().filter(|char| !char.is_control()).take(MAX_FILENAME_CHARS).collect(),
            file_type,
            file_size: bytes,
            file_url,
            thumbnail_url,
            metadata,
            is_too_large: bytes.is_some_and(|bytes| bytes.unsigned_abs() > max_file_bytes),
            key: key(&self.resource_type, &self.delivery_type, self.public_id)?,
        })
    }
}

fn read_as<T: for<'de> Deserialize<'de>>(said: Map<String, Value>) -> Option<T> {
    serde_json::from_value(said.into()).ok()
}

fn key(resource_type: &str, delivery_type: &str, service_file_id: String) -> Option<FileKey> {
    let is_one = matches!(resource_type, "image" | "video" | "raw")
        && is_text(delivery_type, 64)
        && is_text(&service_file_id, MAX_ID_BYTES)
        && !service_file_id.is_empty();
    let (resource_type, delivery_type) = (resource_type.to_owned(), delivery_type.to_owned());
    is_one.then_some(FileKey { resource_type, delivery_type, service_file_id })
}

fn is_text(text: &str, most: usize) -> bool {
    text.len() <= most && !text.chars().any(char::is_control)
}

/// The first of what was made, if it is there already.
fn thumbnail(eager: &[Derived]) -> Option<String> {
    let is_made = |derived: &&Derived| derived.status.as_deref().is_none_or(|status| status.starts_with("complete"));
    let url = eager.iter().find(is_made)?.secure_url.as_ref()?;
    (is_text(url, MAX_URL_BYTES) && url.starts_with("http")).then(|| url.clone())
}

/// The picture made small when it is asked for; of a document its first page.
fn derived_thumbnail(file_url: &str, format: Option<&str>) -> Option<String> {
    let (before, after) = file_url.split_once("/image/upload/")?;
    let after = match format {
        Some("pdf") => format!("{}.jpg", after.strip_suffix(".pdf")?),
        _ => after.to_owned(),
    };
    Some(format!("{before}/image/upload/{THUMBNAIL}/{after}"))
}

/// The public id that stands in the address of something that was made: behind the version, without the ending.
fn public_id_in(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    let segments: Vec<&str> = url.path_segments()?.collect();
    let is_version = |segment: &&str| {
        segment
            .strip_prefix('v')
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let position = segments.iter().position(is_version)?;
    let path = segments.get(position + 1..)?.join("/");
    let id = path.rsplit_once('.').map_or(path.as_str(), |(id, _)| id);
    percent_encoding::percent_decode_str(id).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// The MIME type of a file of this kind with this ending.
fn mime(resource_type: &str, ending: Option<&str>) -> String {
    let ending = ending.unwrap_or_default().to_ascii_lowercase();
    let known = match ending.as_str() {
        "jpg" | "jpeg" | "jpe" => "image/jpeg",
        "svg" => "image/svg+xml",
        "ico" => "image/x-icon",
        "tif" | "tiff" => "image/tiff",
        "png" | "gif" | "webp" | "avif" | "bmp" | "heic" | "heif" | "jxl" => return format!("image/{ending}"),
        "pdf" => "application/pdf",
        "mov" => "video/quicktime",
        "avi" => "video/x-msvideo",
        "mkv" => "video/x-matroska",
        "ogv" => "video/ogg",
        "mp4" | "webm" | "mpeg" => return format!("video/{ending}"),
        "mp3" => "audio/mpeg",
        "m4a" => "audio/mp4",
        "oga" | "ogg" => "audio/ogg",
        "wav" | "flac" | "aac" | "opus" => return format!("audio/{ending}"),
        "txt" => "text/plain",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "htm" | "html" => "text/html",
        "json" => "application/json",
        "xml" => "application/xml",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "doc" => "application/msword",
        "xls" => "application/vnd.ms-excel",
        "ppt" => "application/vnd.ms-powerpoint",
        "docx" => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "xlsx" => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "pptx" => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        plain
            if resource_type != "raw"
                && !plain.is_empty()
                && plain.bytes().all(|byte| byte.is_ascii_alphanumeric()) =>
        {
            return format!("{resource_type}/{plain}");
        }
        _ => "application/octet-stream",
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MAX: u64 = 10_000_000;

    fn change_of(body: Value) -> FileChange {
        read(body.to_string().as_bytes(), MAX).unwrap().change
    }

    fn uploaded(body: Value) -> NewFile {
        let FileChange::Uploaded(file) = change_of(body) else { panic!("a file is expected") };
        *file
    }

    fn photo() -> Value {
        json!({
            "notification_type": "upload", "asset_id": "a1", "public_id": "users/user_ann/photo", "version": 7, "width": 2, "height": 1,
            "format": "jpg", "resource_type": "image", "tags": ["x"], "bytes": 10_000_000, "type": "upload", "original_filename": "holiday",
            "secure_url": "https://res.cloudinary.com/demo/image/upload/v7/users/user_ann/photo.jpg", "url": "http://x", "signature_key": "1",
        })
    }

    fn with(mut body: Value, changes: Value) -> Value {
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    #[test]
    fn every_notification_of_the_scenario_is_read() {
        let vectors: Value = serde_json::from_str(include_str!("../../../tests/vectors/webhook_events.json")).unwrap();
        for step in vectors["cloudinary"]["deliveries"].as_array().unwrap() {
            let note = step["note"].as_str().unwrap();
            let read = read(step["body"].to_string().as_bytes(), MAX).unwrap();
            assert_eq!(read.kind, step["body"]["notification_type"], "{note}");
            let Some(expected) = step["expect"]["file"].as_object() else { continue };
            let FileChange::Uploaded(file) = read.change else { panic!("{note}: a file is expected") };
            let found = json!({
                "user_id": file.user, "service_file_id": file.key.service_file_id, "resource_type": file.key.resource_type,
                "filename": file.filename, "file_type": file.file_type, "file_size": file.file_size, "file_url": file.file_url,
                "thumbnail_url": file.thumbnail_url, "status": if file.is_too_large { "rejected" } else { "ready" },
            });
            for (member, value) in expected {
                assert_eq!(&found[member], value, "{note}: {member}");
            }
        }
    }

    #[test]
    fn names_types_and_pictures_are_those_of_the_file() {
        for (changes, filename, file_type, thumbnail) in [
            (
                json!({}),
                "holiday.jpg",
                "image/jpeg",
                Some("https://res.cloudinary.com/demo/image/upload/c_thumb,w_200/v7/users/user_ann/photo.jpg"),
            ),
            (
                json!({ "original_filename": null }),
                "photo.jpg",
                "image/jpeg",
                Some("https://res.cloudinary.com/demo/image/upload/c_thumb,w_200/v7/users/user_ann/photo.jpg"),
            ),
            (
                json!({ "format": "pdf", "secure_url": "https://res.cloudinary.com/demo/image/upload/v7/users/user_ann/photo.pdf" }),
                "holiday.pdf",
                "application/pdf",
                Some("https://res.cloudinary.com/demo/image/upload/c_thumb,w_200/v7/users/user_ann/photo.jpg"),
            ),
            (
                json!({ "type": "authenticated", "secure_url": "https://res/image/authenticated/s--x--/v7/a.jpg" }),
                "holiday.jpg",
                "image/jpeg",
                None,
            ),
            (json!({ "resource_type": "video", "format": "mp4" }), "holiday.mp4", "video/mp4", None),
            (json!({ "resource_type": "video", "format": "mp3" }), "holiday.mp3", "audio/mpeg", None),
            (
                json!({ "format": "psd" }),
                "holiday.psd",
                "image/psd",
                Some("https://res.cloudinary.com/demo/image/upload/c_thumb,w_200/v7/users/user_ann/photo.jpg"),
            ),
            (
                json!({ "resource_type": "raw", "format": null, "public_id": "users/user_ann/a.b/Data.CSV" }),
                "Data.CSV",
                "text/csv",
                None,
            ),
            (
                json!({ "resource_type": "raw", "public_id": "users/user_ann/data" }),
                "data",
                "application/octet-stream",
                None,
            ),
            (
                json!({ "original_filename": "a\u{0}b\n" }),
                "ab.jpg",
                "image/jpeg",
                Some("https://res.cloudinary.com/demo/image/upload/c_thumb,w_200/v7/users/user_ann/photo.jpg"),
            ),
            (
                json!({ "eager": [{ "status": "processing", "secure_url": "https://e/0" }, { "secure_url": "https://e/1" }] }),
                "holiday.jpg",
                "image/jpeg",
                Some("https://e/1"),
            ),
        ] {
            let file = uploaded(with(photo(), changes.clone()));
            assert_eq!(
                (file.filename.as_str(), file.file_type.as_str(), file.thumbnail_url.as_deref()),
                (filename, file_type, thumbnail),
                "{changes}"
            );
        }
    }

    #[test]
    fn the_limit_itself_is_not_too_large_and_four_gigabytes_are_counted() {
        assert!(!uploaded(photo()).is_too_large);
        assert!(uploaded(with(photo(), json!({ "bytes": 10_000_001 }))).is_too_large);
        let large = uploaded(with(photo(), json!({ "bytes": 4_294_967_296_i64 })));
        assert_eq!((large.file_size, large.is_too_large), (Some(4_294_967_296), true));
    }

    #[test]
    fn the_rest_is_metadata_within_bounds() {
        assert_eq!(uploaded(photo()).metadata, json!({ "width": 2, "height": 1, "format": "jpg", "tags": ["x"] }));
        let long = with(photo(), json!({ "colors": "x".repeat(20_000), "etag": "e" }));
        assert_eq!(
            uploaded(long).metadata,
            json!({ "width": 2, "height": 1, "format": "jpg", "tags": ["x"], "etag": "e" })
        );
        let many: Map<String, Value> = (0..500).map(|number| (format!("m{number}"), "x".repeat(200).into())).collect();
        assert!(uploaded(with(photo(), many.into())).metadata.to_string().len() < 20_000);
    }

    #[test]
    fn whose_it_is_not_clear_is_nobodys() {
        for changes in [json!({ "public_id": "banner" }), json!({ "context": { "custom": { "user_id": "user_bob" } } })]
        {
            assert_eq!(change_of(with(photo(), changes)), FileChange::Nothing);
        }
        let by_context = json!({ "public_id": "photo", "context": { "custom": { "user_id": "user_bob" } } });
        assert_eq!(uploaded(with(photo(), by_context)).user, "user_bob");
    }

    fn image_key(id: &str) -> FileKey {
        key("image", "upload", id.to_owned()).unwrap()
    }

    #[test]
    fn renamings_deletions_and_what_was_made_are_read() {
        let renamed = change_of(json!({
            "notification_type": "rename", "resource_type": "image", "type": "upload",
            "from_public_id": "users/user_ann/a", "to_public_id": "users/user_bob/b",
        }));
        let (from, to) = (image_key("users/user_ann/a"), image_key("users/user_bob/b"));
        assert_eq!(renamed, FileChange::Renamed { from, to, owner: Some("user_bob".to_owned()) });
        let deleted = change_of(json!({ "notification_type": "delete", "resources": [
            { "resource_type": "image", "type": "upload", "public_id": "users/user_ann/a", "version": 5 }, { "public_id": "b" },
            { "resource_type": "folder", "public_id": "c" },
        ] }));
        let gone = |id: &str, version, owner: Option<&str>| Gone {
            key: image_key(id),
            version,
            owner: owner.map(str::to_owned),
        };
        assert_eq!(
            deleted,
            FileChange::Deleted(vec![gone("users/user_ann/a", Some(5), Some("user_ann")), gone("b", None, None)])
        );
        let url = "https://res.cloudinary.com/demo/image/upload/c_thumb,w_200/v7/users/user_ann/a%20b.jpg";
        for (named, id) in [(json!("x/y"), "x/y"), (Value::Null, "users/user_ann/a b")] {
            let made = change_of(json!({
                "notification_type": "eager", "batch_id": "1", "public_id": named,
                "eager": [{ "status": "failed", "reason": "x" }, { "status": "completed", "secure_url": url }],
            }));
            assert_eq!(made, FileChange::Derived { file: image_key(id), thumbnail_url: url.to_owned() });
        }
        let failed = json!({ "notification_type": "eager", "eager": [{ "status": "failed" }] });
        assert_eq!(change_of(failed), FileChange::Nothing);
    }

    #[test]
    fn a_body_that_is_none_is_named() {
        let data = |kind: &str| Unreadable::Data { kind: kind.to_owned() };
        for (body, error) in [
            ("", Unreadable::Envelope),
            ("[]", Unreadable::Envelope),
            ("{}", Unreadable::Envelope),
            ("{\"notification_type\":1}", Unreadable::Envelope),
            ("{\"notification_type\":\"upload\"}", data("upload")),
            ("{\"notification_type\":\"upload\",\"public_id\":\"users/a/b\"}", data("upload")), // no address
            ("{\"notification_type\":\"upload\",\"public_id\":\"users/a/b\",\"bytes\":1.50}", data("upload")),
            (
                "{\"notification_type\":\"upload\",\"public_id\":\"users/a/b\",\"secure_url\":\"javascript:x\"}",
                data("upload"),
            ),
            (
                "{\"notification_type\":\"upload\",\"public_id\":\"users/a/b\\u0000\",\"secure_url\":\"https://x\"}",
                data("upload"),
            ),
            ("{\"notification_type\":\"rename\"}", data("rename")),
            ("{\"notification_type\":\"delete\"}", data("delete")),
        ] {
            assert_eq!(read(body.as_bytes(), MAX).unwrap_err(), error, "{body}");
        }
        assert_eq!(change_of(json!({ "notification_type": "resource_tags_changed" })), FileChange::Nothing);
    }

    #[test]
    fn a_clients_word_for_an_address_counts_only_where_it_is_that_files() {
        let hosts = Hosts { cloud_name: "demo", own: Some("cdn.example.com") };
        let made = "https://res.cloudinary.com/demo/image/upload/v7/users/user_ann/photo.jpg";
        for (said, expected) in [
            (made, made),
            (
                "https://demo-res.cloudinary.com/image/upload/v7/users/user_ann/photo.jpg",
                "https://demo-res.cloudinary.com/image/upload/v7/users/user_ann/photo.jpg",
            ),
            (
                "https://cdn.example.com/image/upload/v7/users/user_ann/photo.jpg",
                "https://cdn.example.com/image/upload/v7/users/user_ann/photo.jpg",
            ),
            ("https://evil.example/image/upload/v7/users/user_ann/photo.jpg", made),
            ("https://res.cloudinary.com/evil/image/upload/v7/users/user_ann/photo.jpg", made),
            ("https://res.cloudinary.com/demo/image/upload/v7/users/user_bob/photo.jpg", made),
            ("https://res.cloudinary.com/demo/image/upload/v8/users/user_ann/photo.jpg", made),
            ("https://res.cloudinary.com:444/demo/image/upload/v7/users/user_ann/photo.jpg", made),
            ("javascript:alert(1)", made),
            ("", made),
        ] {
            let answer =
                with(photo(), json!({ "secure_url": said, "eager": [{ "secure_url": "https://evil.example" }] }));
            let Value::Object(answer) = answer else { panic!() };
            let file = of_answer(answer, "user_ann", &hosts, MAX).unwrap();
            assert_eq!(file.file_url, expected, "{said}");
            assert_eq!(file.asset_id, None, "no client says which of the files of the service it is");
            assert!(file.thumbnail_url.unwrap().ends_with("/image/upload/c_thumb,w_200/v7/users/user_ann/photo.jpg"));
        }
    }
}
