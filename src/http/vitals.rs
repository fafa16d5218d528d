//! `POST /v1/vitals` (section 8.6): how fast pages were, as the browsers of those who look at them have measured it (Core Web Vitals). Nothing
//! says whose browser it was; an address counts for the limit alone.
//!
//! A report is one metric or a list of them, as the npm package `web-vitals` measures them: times in milliseconds. What is not right is
//! refused whole, so that no histogram has half of a report. `text/plain` is what `navigator.sendBeacon` sends.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::post;
use metrics::Histogram;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::fault::{Fault, Refused, read_body};
use super::limits::{Policy, by_address, tell};
use super::pusher::body;
use super::user::cross_origin;
use crate::metrics::{WEB_VITALS_CLS, WEB_VITALS_FCP, WEB_VITALS_INP, WEB_VITALS_LCP, WEB_VITALS_TTFB};
use crate::parts::Parts;

/// The largest body: room for whole metrics of `web-vitals`, with all that it says of each.
const MAX_BYTES: usize = 16 * 1024;
/// Metrics of one report.
const MAX_METRICS: usize = 20;
/// The longest time that is believed, in milliseconds, and the largest shift of a layout.
const MAX_MILLISECONDS: f64 = 600_000.0;
const MAX_SHIFT: f64 = 100.0;
/// How much of a name that is none is told.
const NAME: usize = 40;
const READ: &str = "application/json or text/plain";

/// A report: one metric, or several.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum Report {
    /// One.
    One(Vital),
    /// From 1 to 20.
    Several(Vec<Vital>),
}

/// A metric as `web-vitals` has measured it. What else it says is not read.
#[derive(ToSchema)]
pub struct Vital {
    /// `LCP`, `INP`, `FCP`, `TTFB` or `CLS`.
    #[schema(pattern = "^(LCP|INP|FCP|TTFB|CLS)$")]
    pub name: String,
    /// Milliseconds, up to 600000; of `CLS` the score, up to 100.
    #[schema(minimum = 0, maximum = 600_000)]
    pub value: f64,
}

/// The route.
pub fn routes(parts: &Arc<Parts>) -> Router<Arc<Parts>> {
    let counted = Arc::clone(parts);
    Router::new()
        .route(
            &format!("{}/v1/vitals", parts.config.server.path_prefix),
            post(receive).fallback(async || Fault::Method("POST, OPTIONS")),
        )
        .layer(from_fn(move |request, next| by_address(Policy::Vitals, Arc::clone(&counted), request, next)))
        .layer(from_fn_with_state(Arc::clone(parts), tell))
        .layer(cross_origin(&parts.config))
}

/// Counts a report.
///
/// # Errors
/// See [`Fault`]: which metric or value is wrong, and what is allowed. Nothing is counted then.
#[utoipa::path(
    post, path = "/v1/vitals", tag = "vitals", operation_id = "report_vitals", summary = "Report how fast a page was: Core Web Vitals",
    request_body = Report, responses((status = 204, description = "It is counted"), Refused),
)]
pub async fn receive(State(parts): State<Arc<Parts>>, request: Request) -> Result<impl IntoResponse, Fault> {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !matches!(kind.as_str(), "application/json" | "text/plain") {
        body::swallow(&head, body).await;
        return Err(Fault::MediaType(READ));
    }
    let body = read_body(&parts, &head, body, MAX_BYTES).await?;
    for (histogram, value) in read(&body)? {
        histogram.record(value);
    }
    Ok((StatusCode::NO_CONTENT, [(header::CACHE_CONTROL, "no-store")]))
}

/// What is counted where.
fn read(body: &[u8]) -> Result<Vec<(&'static Histogram, f64)>, Fault> {
    let no_report =
        || Fault::Invalid(format!("the body must be {{\"name\",\"value\"}} or a list of 1 to {MAX_METRICS} such"));
    match serde_json::from_slice(body).map_err(|_| no_report())? {
        Value::Object(one) => Ok(vec![metric(&one)?]),
        Value::Array(several) if (1..=MAX_METRICS).contains(&several.len()) => {
            several.iter().map(|one| metric(one.as_object().ok_or_else(no_report)?)).collect()
        }
        _ => Err(no_report()),
    }
}

fn metric(said: &Map<String, Value>) -> Result<(&'static Histogram, f64), Fault> {
    let name = said.get("name").and_then(Value::as_str);
    let (name, histogram) = match name {
        Some("LCP") => ("LCP", &WEB_VITALS_LCP),
        Some("INP") => ("INP", &WEB_VITALS_INP),
        Some("FCP") => ("FCP", &WEB_VITALS_FCP),
        Some("TTFB") => ("TTFB", &WEB_VITALS_TTFB),
        Some("CLS") => ("CLS", &WEB_VITALS_CLS),
        other => {
            let was = other.map(|name| name.chars().take(NAME).collect::<String>());
            let was = was.map_or_else(|| "`name` is missing".to_owned(), |name| format!("{name:?} is not counted"));
            return Err(Fault::Invalid(format!("{was}; `name` must be one of LCP, INP, FCP, TTFB and CLS")));
        }
    };
    let (most, unit, in_ours) =
        if name == "CLS" { (MAX_SHIFT, "a score", 1.0) } else { (MAX_MILLISECONDS, "milliseconds", 1_000.0) };
    let value = said.get("value").and_then(Value::as_f64).filter(|value| (0.0..=most).contains(value));
    let value = value
        .ok_or_else(|| Fault::Invalid(format!("the `value` of {name} must be a number from 0 to {most} ({unit})")))?;
    Ok((histogram, value / in_ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_right_or_it_is_told_what_is_wrong() {
        for body in [
            r#"{"name":"LCP","value":1234.5}"#,
            r#"{"name":"CLS","value":0,"rating":"good","entries":[{"any":"thing"}],"id":"v5-1"}"#,
            r#"[{"name":"TTFB","value":600000},{"name":"INP","value":0.1},{"name":"FCP","value":2}]"#,
        ] {
            assert!(read(body.as_bytes()).is_ok(), "{body}");
        }
        let many = |count| format!("[{}]", vec![r#"{"name":"CLS","value":1}"#; count].join(","));
        assert_eq!(read(many(20).as_bytes()).unwrap().len(), 20);
        for (body, said) in [
            ("", "the body must be"),
            ("[]", "1 to 20"),
            ("7", "1 to 20"),
            ("[7]", "1 to 20"),
            (&many(21), "1 to 20"),
            ("{}", "`name` is missing"),
            (r#"{"name":7,"value":1}"#, "`name` is missing"),
            (r#"{"name":"FID","value":1}"#, "\"FID\" is not counted"),
            (r#"{"name":"lcp","value":1}"#, "one of LCP, INP, FCP, TTFB and CLS"),
            (r#"{"name":"LCP"}"#, "the `value` of LCP must be a number from 0 to 600000 (milliseconds)"),
            (r#"{"name":"LCP","value":"12"}"#, "from 0 to 600000"),
            (r#"{"name":"LCP","value":null}"#, "from 0 to 600000"),
            (r#"{"name":"LCP","value":-0.1}"#, "from 0 to 600000"),
            (r#"{"name":"LCP","value":600000.1}"#, "from 0 to 600000"),
            (r#"{"name":"CLS","value":100.5}"#, "from 0 to 100 (a score)"),
            (r#"{"name":"LCP","value":1e999}"#, "the body must be"),
            (r#"[{"name":"LCP","value":1},{"name":"X","value":1}]"#, "\"X\" is not counted"),
        ] {
            let error = read(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(said), "{body}: {error}");
        }
        let long = format!(r#"{{"name":"{}","value":1}}"#, "x".repeat(5_000));
        assert!(read(long.as_bytes()).unwrap_err().to_string().len() < 200);
    }
}
