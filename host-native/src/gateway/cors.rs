//! Which web pages may read (CORS).

use core::time::Duration;

use axum::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER,
};
use axum::http::uri::Uri;
use axum::http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::record::header;

/// For how long a browser need not ask again.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_mins(10);

/// The origins whose pages may read. None by default.
#[derive(Clone, Debug, Default)]
pub struct CorsOrigins {
    everybody: bool,
    listed: Vec<HeaderValue>,
}

/// What is wrong with an origin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{given}' is no origin; write SCHEME://HOST or SCHEME://HOST:PORT, such as https://app.example.org, or '*'"
)]
pub struct CorsOriginsError {
    given: String,
}

impl CorsOrigins {
    /// These, each as a browser sends it; `*` stands for all.
    pub fn new<O: AsRef<str>>(origins: impl IntoIterator<Item = O>) -> Result<Self, CorsOriginsError> {
        let mut allowed = Self::default();
        for origin in origins {
            let origin = origin.as_ref();
            if origin == "*" {
                allowed.everybody = true;
                continue;
            }
            let wrong = || CorsOriginsError { given: origin.into() };
            allowed.listed.push(parse(origin).ok_or_else(wrong)?);
        }
        Ok(allowed)
    }

    /// `None` where no page may read.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let origins = if self.everybody {
            AllowOrigin::any()
        } else if self.listed.is_empty() {
            return None;
        } else {
            AllowOrigin::list(self.listed.iter().cloned())
        };
        let layer = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::HEAD, Method::POST])
            .allow_headers([ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, IF_NONE_MATCH])
            .expose_headers(exposed())
            .max_age(PREFLIGHT_MAX_AGE);
        Some(layer)
    }
}

fn exposed() -> Vec<HeaderName> {
    [ETAG, RETRY_AFTER].into_iter().chain(header::ALL).collect()
}

/// In the form of a browser: no path, not even `/`, lower case.
fn parse(origin: &str) -> Option<HeaderValue> {
    let uri: Uri = origin.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?.as_str());
    let is_plain = !authority.contains('@') && !authority.is_empty();
    let is_whole = format!("{scheme}://{authority}").to_ascii_lowercase() == origin;
    (is_plain && is_whole).then(|| HeaderValue::from_str(origin).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_send_them() {
        for right in [
            "https://app.example.org",
            "http://localhost:3000",
            "http://[::1]:80",
            "*",
        ] {
            assert!(CorsOrigins::new([right]).is_ok(), "{right}");
        }
        for wrong in [
            "app.example.org",
            "https://app.example.org/",
            "https://App.example.org",
            "https://me@app.example.org",
            "https://",
            "null",
            "",
        ] {
            assert!(CorsOrigins::new([wrong]).is_err(), "{wrong}");
        }
        assert!(CorsOrigins::default().layer().is_none());
    }
}
