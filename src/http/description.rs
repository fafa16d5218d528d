//! What Herald's own API is, for programs and for people: `/openapi.json` (OpenAPI 3.1), made from the routes and types themselves, and a page
//! at `/docs` that reads it.
//!
//! Pusher's API, which is not Herald's to describe, is not in it; nor are the aliases under `/api`.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use data_encoding::BASE64;
use sha2::{Digest as _, Sha256};
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ObjectBuilder, OpenApi as Document, PathItem, RefOr, Required, Server, Type};
use utoipa::{Modify, OpenApi};

use super::fault::Failed;
use super::widget::File;
use super::{backend, inbound, user, vitals};
use crate::parts::Parts;

/// The page, whose script is in it.
const PAGE: &str = include_str!("../../web/docs/index.html");

#[derive(OpenApi)]
#[openapi(
    info(title = "Herald", description = "Notifications, inboxes and who may subscribe to what. Errors are `{\"error\":{\"code\",\"message\",\"request_id\"}}`. \
        What belongs to Pusher's API is described there."),
    tags(
        (name = "notifications", description = "Backends create notifications and follow what becomes of them"),
        (name = "users", description = "Backends tell of users, keep their tokens of other services, and help them"),
        (name = "inbox", description = "A user's own inbox; there where an identity provider is configured, as are the next three"),
        (name = "preferences", description = "What a user wants to hear of, and when"),
        (name = "topics", description = "What a user follows"),
        (name = "files", description = "A user's files at Cloudinary; there where it is configured"),
        (name = "support", description = "The chat with the support at Crisp; there where it is configured"),
        (name = "integrations", description = "A user's accounts at other services"),
        (name = "auth", description = "Herald as the auth endpoint of Pusher clients"),
        (name = "vitals", description = "How fast pages are for those who look at them"),
        (name = "webhooks", description = "What third parties tell"),
    ),
    paths(
        backend::notifications::create, backend::notifications::create_queued, backend::notifications::show,
        backend::notifications::cancel, backend::users::put, backend::users::inbox, backend::users::topics, backend::users::follow,
        backend::users::unfollow, user::inbox::list, user::inbox::counts, user::inbox::changes, user::inbox::show,
        user::inbox::change, user::inbox::delete, user::inbox::bulk, user::inbox::mark_all, user::preferences::list,
        user::preferences::put, user::preferences::settings, user::preferences::put_settings, user::preferences::topics,
        user::preferences::follow, user::preferences::unfollow, user::auth::channel, user::auth::user, inbound::clerk::receive,
        backend::integrations::put, backend::integrations::delete, backend::integrations::token, user::integrations::list,
        user::integrations::delete, user::files::sign, user::files::list, user::files::report, user::files::delete,
        inbound::cloudinary::receive, vitals::receive, user::support::identity, backend::support::send, inbound::crisp::receive,
    ),
    components(schemas(Failed)),
    modifiers(&Schemes, &Plain, &OfApp),
)]
struct Description;

/// How somebody shows who they are.
struct Schemes;

impl Modify for Schemes {
    fn modify(&self, document: &mut Document) {
        let bearer = |text: &str| {
            SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build())
        };
        let signature = ApiKeyValue::with_description(
            "auth_signature",
            "Signed like a trigger, with the app's key and secret, as every Pusher server library does: the query has `auth_key`, \
             `auth_timestamp`, `auth_version`, `body_md5` and `auth_signature`",
        );
        let components = document.components.get_or_insert_default();
        for (name, scheme) in [
            ("session", bearer("The user's session token of Clerk, or the token of another issuer")),
            ("api_key", bearer("One of `server.api_keys` (HERALD_API_KEY)")),
            ("signature", SecurityScheme::ApiKey(ApiKey::Query(signature))),
        ] {
            components.add_security_scheme(name, scheme);
        }
    }
}

/// Without what is for readers of the code: a summary says what an operation does, and an answer that needs no word is what was asked for.
struct Plain;

impl Modify for Plain {
    fn modify(&self, document: &mut Document) {
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                operation.description = None;
                for answer in operation.responses.responses.values_mut() {
                    if let RefOr::T(answer) = answer
                        && answer.description.is_empty()
                    {
                        answer.description = "What was asked for".to_owned();
                    }
                }
            }
        }
    }
}

/// What stands below `/apps/{app_id}` too, where the `get` of Pusher server libraries reaches it.
struct OfApp;

impl Modify for OfApp {
    fn modify(&self, document: &mut Document) {
        let path = "/notifications/{transaction_id}";
        let Some(item) = document.paths.paths.get(&format!("/v1{path}")).cloned() else { return };
        let app = ParameterBuilder::new()
            .name("app_id")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("The app's id"))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .build();
        let mut item: PathItem = item;
        for operation in [&mut item.get, &mut item.delete].into_iter().flatten() {
            operation.operation_id = operation.operation_id.take().map(|id| id + "_of_app");
            let parameters = operation.parameters.get_or_insert_default();
            parameters.retain(|parameter| !matches!(parameter, RefOr::T(parameter) if parameter.name == "app"));
            parameters.push(RefOr::T(app.clone()));
        }
        document.paths.paths.insert(format!("/apps/{{app_id}}{path}"), item);
    }
}

/// The document, for a Herald behind this prefix.
fn document(prefix: &str) -> Document {
    let mut document = Description::openapi();
    if !prefix.is_empty() {
        document.servers = Some(vec![Server::new(prefix)]);
    }
    document
}

/// The routes.
pub fn routes(prefix: &str) -> Router<Arc<Parts>> {
    // A document of strings and maps has always a text.
    let text = document(prefix).to_json().unwrap_or_default();
    let (json, page) = (Arc::new(File::new(&text)), Arc::new(File::new(PAGE)));
    let policy = policy();
    let described = async move |asked: HeaderMap| json.answer("application/json", &asked);
    let readable = async move |asked: HeaderMap| {
        let headers = [
            (header::CONTENT_SECURITY_POLICY, policy),
            (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        ];
        (headers, page.answer("text/html; charset=utf-8", &asked)).into_response()
    };
    Router::new()
        .route(&format!("{prefix}/openapi.json"), get(described))
        .route(&format!("{prefix}/docs"), get(readable))
}

/// The page's own script and style, the document, and nothing else.
fn policy() -> HeaderValue {
    let mut policy = "default-src 'none'; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'".to_owned();
    for (what, begin, end) in [("script-src", "<script>", "</script>"), ("style-src", "<style>", "</style>")] {
        let inner = PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map_or("", |(inner, _)| inner);
        // Writing into a string cannot fail.
        _ = write!(policy, "; {what} 'sha256-{}'", BASE64.encode(&Sha256::digest(inner.as_bytes())));
    }
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_route_of_the_own_api_is_described() {
        let described: HashSet<String> = document("").paths.paths.into_keys().collect();
        let own = super::super::watch::ROUTES.iter().map(|(end, _)| *end).filter(|end| end.starts_with("/v1/"));
        let others = ["/v1/notifications", "/apps/{app_id}/notifications", "/pusher/auth", "/webhooks/clerk"];
        for route in own.chain(others) {
            assert!(described.contains(route), "{route} is not described: {described:?}");
        }
    }

    #[test]
    fn each_operation_has_a_name_of_its_own_and_says_what_it_is() {
        let text = document("/realtime").to_json().unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["openapi"], &json["servers"][0]["url"]), (&"3.1.0".into(), &"/realtime".into()));
        let mut names = HashSet::new();
        for (path, item) in json["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                assert!(operation["summary"].is_string(), "{method} {path}");
                assert!(
                    names.insert(operation["operationId"].to_string()),
                    "{method} {path}: {}",
                    operation["operationId"]
                );
            }
        }
        assert!(names.len() > 25, "{names:?}");
    }
}
