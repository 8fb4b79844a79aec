//! The files of the console: style, scripts. Their path holds a hash of them, so a browser may keep
//! them for ever, and asks anew after an upgrade.

use std::io::Write as _;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 4] = [
    Asset { name: "console.css", content_type: "text/css; charset=utf-8", text: include_str!("assets/console.css") },
    Asset {
        name: "console.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("assets/console.js"),
    },
    Asset { name: "icon.svg", content_type: "image/svg+xml", text: include_str!("assets/icon.svg") },
    // htmx 2, as its authors publish it (assets/htmx.LICENSE).
    Asset {
        name: "htmx.min.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("assets/htmx.min.js"),
    },
];

/// Characters of the hash in the path.
const VERSION_LENGTH: usize = 12;

/// The hash of all files, as the path has it.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all = ASSETS.iter().fold(Sha256::new(), |hash, asset| hash.chain_update(asset.text));
    let hex = data_encoding::HEXLOWER.encode(&all.finalize());
    hex.chars().take(VERSION_LENGTH).collect()
});

/// The beginning of the path of every file.
pub(super) fn base() -> String {
    format!("/assets/{}", *VERSION)
}

/// Serves one of them.
pub(super) async fn serve(Path((version, name)): Path<(String, String)>, headers: HeaderMap) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name && version == *VERSION) else {
        return (StatusCode::NOT_FOUND, "there is no such file").into_response();
    };
    let takes_gzip =
        headers.get_all(ACCEPT_ENCODING).iter().any(|value| value.as_bytes().windows(4).any(|part| part == b"gzip"));
    let packed = takes_gzip.then(|| gzip(asset.text)).flatten();
    let is_packed = packed.is_some();
    let mut response = packed.unwrap_or_else(|| asset.text.as_bytes().to_vec()).into_response();
    let set = response.headers_mut();
    set.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    set.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    set.insert(VARY, HeaderValue::from_static("accept-encoding"));
    set.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_packed {
        set.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

/// Writing to memory does not fail; if it did, the text would go out as it is.
fn gzip(text: &str) -> Option<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(text.as_bytes()).ok()?;
    packed.finish().ok()
}
