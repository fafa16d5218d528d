//! `/inbox.js`: the bell, as one module that any page may load, and its types beside it.
//!
//! It is the file of `web/inbox`, without the comments and the indentation, which are for those who read it there.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

static MODULE: LazyLock<File> = LazyLock::new(|| File::new(&bare(include_str!("../../web/inbox/inbox.js"))));
static TYPES: LazyLock<File> = LazyLock::new(|| File::new(include_str!("../../web/inbox/inbox.d.ts")));

/// A text with its tag.
#[derive(Debug)]
pub(super) struct File {
    text: String,
    tag: String,
}

impl File {
    pub(super) fn new(text: &str) -> Self {
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
        Self { text: text.to_owned(), tag: format!("\"{}\"", digest.chars().take(16).collect::<String>()) }
    }

    /// Pages of any origin may load it; browsers ask after five minutes whether it is still the same.
    pub(super) fn answer(&self, kind: &'static str, asked: &HeaderMap) -> Response {
        let tag = HeaderValue::from_str(&self.tag).unwrap_or(HeaderValue::from_static("\"\""));
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
            (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
            (header::ETAG, tag.clone()),
        ];
        match asked.get(header::IF_NONE_MATCH) {
            Some(known) if *known == tag => (StatusCode::NOT_MODIFIED, headers).into_response(),
            _ => (StatusCode::OK, headers, self.text.clone()).into_response(),
        }
    }
}

/// The routes.
pub fn routes<S: Clone + Send + Sync + 'static>(prefix: &str) -> Router<S> {
    let module = async |asked: HeaderMap| MODULE.answer("text/javascript; charset=utf-8", &asked);
    let types = async |asked: HeaderMap| TYPES.answer("text/plain; charset=utf-8", &asked);
    Router::new().route(&format!("{prefix}/inbox.js"), get(module)).route(&format!("{prefix}/inbox.d.ts"), get(types))
}

/// Leaves out comments and the space in front of lines: no text of the module depends on that, nor has one ` // ` in it.
fn bare(source: &str) -> String {
    let mut is_comment = false;
    let mut bare = String::with_capacity(source.len());
    for line in source.lines().map(str::trim) {
        is_comment |= line.starts_with("/**");
        let code = line.split_once(" // ").map_or(line, |(code, _)| code);
        if !is_comment && !code.is_empty() && !code.starts_with("//") {
            bare.push_str(code);
            bare.push('\n');
        }
        is_comment &= !line.contains("*/");
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_indentation_are_left_out_and_nothing_else() {
        let source =
            "/** One. */\n/**\n * Two.\n */\nconst a = `\n* { color: red }\n  `;\n\n  // three\n  f('a//b'); // four\n";
        assert_eq!(bare(source), "const a = `\n* { color: red }\n`;\nf('a//b');\n");
    }
}
