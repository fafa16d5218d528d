//! A user's files (sections 2.2, 2.3 and 8.6): signs uploads, notes what was uploaded, lists, deletes. The user is always the token's, the
//! app always the one whose files Cloudinary tells of.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::inbox::{invalid, uuid};
use super::{caller, cursor};
use crate::http::fault::{Fault, Refused, read_body};
use crate::http::inbound;
use crate::http::pusher::body;
use crate::integrations::cloudinary::notification::of_answer;
use crate::integrations::cloudinary::signature::{is_of_answer, parameter};
use crate::integrations::cloudinary::upload::{Chosen, ResourceType};
use crate::integrations::cloudinary::{Cloudinary, owner};
use crate::parts::Parts;
use crate::store::files::{File, FileCursor, FileEvent, FileEventName};
use crate::store::time::Timestamp;

/// The largest body of a request.
const MAX_BYTES: usize = 64 * 1024;
/// Files of a page, if nothing is said, and at most.
const PAGE: usize = 20;
const MAX_PAGE: usize = 100;
/// How long Cloudinary takes a signature, in seconds.
const SIGNED_FOR_SECONDS: u64 = 3_600;

/// What is to be uploaded. All of it may be left out.
#[derive(ToSchema)]
pub struct Wanted {
    /// `image`, `video`, `raw` or `auto`; an image if nothing is said.
    #[schema(pattern = "^(image|video|raw|auto)$", nullable = false)]
    pub resource_type: Option<String>,
    /// What the file is called.
    #[schema(nullable = false)]
    pub filename: Option<String>,
    /// Words to find it by at Cloudinary.
    #[schema(nullable = false)]
    pub tags: Option<Vec<String>>,
    /// What Cloudinary's upload widget wants to have signed. With it, the others but `resource_type` count for nothing.
    #[schema(rename = "paramsToSign", value_type = Option<Object>, nullable = false)]
    pub params_to_sign: Option<Value>,
}

/// What a browser uploads with: a form with `file`, `api_key`, `signature` and all of `params`, posted to `upload_url`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Signed {
    signature: String,
    /// When it was signed, in Unix seconds; one of `params` too.
    timestamp: u64,
    api_key: String,
    cloud_name: String,
    upload_url: String,
    /// What is signed, to be sent exactly so.
    params: BTreeMap<String, String>,
    /// Until when Cloudinary takes it, in Unix seconds.
    expires_at: u64,
}

/// `POST /v1/files/signature`, and `/api/cloudinary/signature`: as Herald fixes it, or what the upload widget asks for.
///
/// # Errors
/// See [`Fault`]; what is not signed is named.
#[utoipa::path(
    post, path = "/v1/files/signature", tag = "files", operation_id = "sign_upload", summary = "Sign an upload to Cloudinary", request_body = Wanted,
    responses((status = 200, body = Signed), Refused), security(("session" = [])),
)]
pub async fn sign(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (user, said) = begin_with(&parts, request).await?;
    let now = Timestamp::now();
    let seconds = u64::try_from(now.as_micros() / 1_000_000).unwrap_or_default();
    let cloudinary = cloudinary(&parts)?;
    let resource_type = match text(&said, "resource_type")? {
        None => ResourceType::default(),
        Some(name) => ResourceType::ALL
            .into_iter()
            .find(|resource_type| resource_type.as_str() == name)
            .ok_or_else(|| invalid("`resource_type` must be one of image, video, raw and auto"))?,
    };
    let parameters = match said.get("paramsToSign") {
        None | Some(Value::Null) => {
            let filename = text(&said, "filename")?.filter(|name| !name.is_empty()).map(str::to_owned);
            let tags = said.get("tags").map(|tags| {
                parameter(tags).ok_or_else(|| invalid("`tags` must be a list of texts, or one with commas"))
            });
            let chosen = Chosen { resource_type, filename, tags: tags.transpose()? };
            cloudinary.fixed.parameters(&chosen, &user, seconds)
        }
        Some(Value::Object(asked)) => cloudinary.fixed.of_widget(asked, &user, seconds),
        Some(_) => return Err(invalid("`paramsToSign` must be an object")),
    };
    let params = parameters.map_err(|error| invalid(error.to_string()))?;
    // Whoever uploads is known from now on: what Cloudinary tells of others is not kept.
    if !parts.notifications()?.store.meet(&user, now).await? {
        return Err(caller::ended());
    }
    let account = cloudinary.account();
    let timestamp = params.get("timestamp").and_then(|text| text.parse().ok()).unwrap_or(seconds);
    let signed = Signed {
        signature: cloudinary.sign(&params),
        timestamp,
        api_key: account.api_key.clone(),
        cloud_name: account.cloud_name.clone(),
        upload_url: cloudinary.upload_url(resource_type),
        params,
        expires_at: timestamp + SIGNED_FOR_SECONDS,
    };
    Ok(answer(signed))
}

/// A page of a user's files.
#[derive(Debug, Serialize, ToSchema)]
pub struct Items {
    items: Vec<File>,
    /// Where the next page begins, if there is one: `cursor` of the next request.
    next_cursor: Option<String>,
}

/// `GET /v1/files`
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    get, path = "/v1/files", tag = "files", operation_id = "list_files", summary = "A page of the user's files, newest first",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Files of the page; 20 if nothing is said"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before")),
    responses((status = 200, body = Items), Refused), security(("session" = [])),
)]
pub async fn list(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (user, head) = begin(&parts, request).await?;
    let query: BTreeMap<_, _> = form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).collect();
    let limit = match query.get("limit") {
        None => PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_PAGE).contains(limit))
            .ok_or_else(|| invalid(format!("`limit` must be a number from 1 to {MAX_PAGE}")))?,
    };
    let after = query.get("cursor").map(|text| cursor::read(text)).transpose()?;
    let after = after.map(|(created_at, id)| FileCursor { created_at, id });
    let page = parts.notifications()?.store.files(parts.config.integrations_app(), &user, after, limit).await?;
    let next_cursor = page.next.map(|next| cursor::write(next.created_at, next.id));
    Ok(answer(Items { items: page.items, next_cursor }))
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
pub struct One {
    file: File,
}

/// What Cloudinary has answered to the upload, as it is.
#[derive(ToSchema)]
pub struct Uploaded {
    /// What the file is called there: below the user's folder.
    pub public_id: String,
    /// Which upload of that name it was.
    pub version: i64,
    /// Cloudinary's own signature of these two.
    pub signature: String,
}

/// `POST /v1/files`: a client reports its upload. Cloudinary's own word comes too, and counts for more.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    post, path = "/v1/files", tag = "files", operation_id = "report_file", summary = "Report an upload: Cloudinary's answer to it, whole",
    request_body = Uploaded, responses((status = 200, body = One), Refused), security(("session" = [])),
)]
pub async fn report(State(parts): State<Arc<Parts>>, request: Request) -> Result<Response, Fault> {
    let (user, said) = begin_with(&parts, request).await?;
    let cloudinary = cloudinary(&parts)?;
    let needed = |name: &str| text(&said, name)?.ok_or_else(|| invalid(format!("`{name}` is missing")));
    let (public_id, signature) = (needed("public_id")?, needed("signature")?);
    let version = said.get("version").and_then(Value::as_i64);
    let version = version.ok_or_else(|| invalid("`version` must be the number that Cloudinary has answered"))?;
    if !is_of_answer(public_id, version, signature, &cloudinary.account().api_secret) {
        return Err(invalid("`signature` is not Cloudinary's of `public_id` and `version`"));
    }
    if !owner::is_below(public_id, &user) {
        return Err(Fault::Forbidden(format!("`public_id` is not below {:?}", owner::folder(&user))));
    }
    let file = of_answer(said, &user, &cloudinary.hosts(), cloudinary.max_file_bytes);
    let file = file.ok_or_else(|| invalid("the body must be what Cloudinary has answered to the upload"))?;
    let (app, now) = (parts.config.integrations_app(), Timestamp::now());
    let reported = parts.notifications()?.store.report_file(app, &file, now).await?;
    let (file, event) = reported.ok_or_else(caller::ended)?;
    if let Some(name) = event {
        inbound::cloudinary::tell(&parts, &[FileEvent { name, file: file.clone() }]).await;
    }
    Ok(answer(One { file }))
}

/// `DELETE /v1/files/{id}`: it is gone from the list at once, and at Cloudinary as soon as that can be had.
///
/// # Errors
/// See [`Fault`].
#[utoipa::path(
    delete, path = "/v1/files/{id}", tag = "files", operation_id = "delete_file", summary = "Delete a file, at Cloudinary too",
    params(("id" = uuid::Uuid, Path, description = "The file's id")),
    responses((status = 204, description = "It is gone from the list, and will be at Cloudinary"), Refused), security(("session" = [])),
)]
pub async fn delete(
    State(parts): State<Arc<Parts>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Fault> {
    let (user, _) = begin(&parts, request).await?;
    let (app, now) = (parts.config.integrations_app(), Timestamp::now());
    let deleted = parts.notifications()?.store.delete_file(app, &user, uuid(&id)?, now).await?;
    let (file, is_new) = deleted.ok_or(Fault::NotFound)?;
    if is_new {
        inbound::cloudinary::tell(&parts, &[FileEvent { name: FileEventName::Deleted, file }]).await;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn begin(parts: &Parts, request: Request) -> Result<(String, axum::http::request::Parts), Fault> {
    let (head, body) = request.into_parts();
    body::swallow(&head, body).await;
    Ok((caller::served(parts, &head).await?.user, head))
}

async fn begin_with(parts: &Parts, request: Request) -> Result<(String, Map<String, Value>), Fault> {
    let (head, body) = request.into_parts();
    let body = read_body(parts, &head, body, MAX_BYTES).await?;
    let user = caller::served(parts, &head).await?.user;
    if body.is_empty() {
        return Ok((user, Map::new()));
    }
    let object = serde_json::from_slice(&body).map_err(|_| invalid("the body must be a JSON object"))?;
    Ok((user, object))
}

fn cloudinary(parts: &Parts) -> Result<&Cloudinary, Fault> {
    parts.cloudinary.as_deref().ok_or(Fault::NotFound)
}

fn text<'a>(said: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Fault> {
    match said.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("`{name}` must be text"))),
    }
}

fn answer(what: impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "private, no-store")], Json(what)).into_response()
}
