//! Requests as far as they are looked at, and answers.

use std::borrow::Cow;

use serde_json::Value;

/// The page may load what comes from here, and nothing else from anywhere.
const PAGE_POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; \
img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";
/// No page of another origin may hold what is told here, and nobody takes it for anything else.
const EVERY_HEADER: &str = "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
Cross-Origin-Resource-Policy: same-origin\r\nCache-Control: no-store\r\nConnection: close\r\n";

/// The first line of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    method: String,
    path: String,
    query: Vec<(String, String)>,
}

impl Asked {
    /// `None` if it is no request.
    pub(super) fn parse(head: &[u8]) -> Option<Self> {
        let line = head.split(|byte| *byte == b'\r').next()?;
        let mut words = core::str::from_utf8(line).ok()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if !version.starts_with("HTTP/1.") || !target.starts_with('/') || words.next().is_some() {
            return None;
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = form_urlencoded::parse(query.as_bytes());
        Some(Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.into_owned().collect(),
        })
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether it changes nothing.
    pub(super) fn reads(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }

    pub(super) fn wants_body(&self) -> bool {
        self.method != "HEAD"
    }

    /// Refuses names that mean nothing here, so that a mistake in one does not go unseen.
    pub(super) fn expect_only(&self, known: &[&str]) -> Result<(), String> {
        let unknown = self
            .query
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()));
        match unknown {
            None => Ok(()),
            Some((name, _)) => Err(format!(
                "there is no parameter '{name}'; there are {}",
                known.join(", ")
            )),
        }
    }

    /// The last value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let given = self.query.iter().rev().find(|(given, _)| given == name);
        given.map(|(_, value)| value.as_str())
    }

    /// A number between bounds, or what stands for none.
    pub(super) fn number(
        &self,
        name: &str,
        (min, max): (usize, usize),
        absent: usize,
    ) -> Result<usize, String> {
        let Some(given) = self.parameter(name) else {
            return Ok(absent);
        };
        let number = given.parse().ok().filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("{name}={given}: it takes a number from {min} to {max}"))
    }

    /// One of several words, the first of which stands for none.
    pub(super) fn choice<'w>(&self, name: &str, words: &[&'w str]) -> Result<&'w str, String> {
        let given = self.parameter(name);
        let chosen = match given {
            None => words.first(),
            Some(given) => words.iter().find(|word| **word == given),
        };
        chosen.copied().ok_or_else(|| {
            format!(
                "{name}={}: it takes {}",
                given.unwrap_or_default(),
                words.join(" or ")
            )
        })
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    status: &'static str,
    content_type: &'static str,
    is_page: bool,
    body: Cow<'static, str>,
}

impl Reply {
    fn new(status: &'static str, content_type: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            content_type,
            is_page: false,
            body: body.into(),
        }
    }

    pub(super) fn text(status: &'static str, body: impl Into<Cow<'static, str>>) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body)
    }

    /// In Prometheus' text format.
    pub(super) fn metrics(text: String) -> Self {
        Self::new("200 OK", "text/plain; version=0.0.4; charset=utf-8", text)
    }

    pub(super) fn file(content_type: &'static str, text: &'static str) -> Self {
        Self::new("200 OK", content_type, text)
    }

    pub(super) fn page(text: &'static str) -> Self {
        Self {
            is_page: true,
            ..Self::file("text/html; charset=utf-8", text)
        }
    }

    /// What was asked for, or what was wrong with that.
    pub(super) fn of(found: Result<Value, String>) -> Self {
        match found {
            Ok(value) => Self::new("200 OK", "application/json", value.to_string()),
            Err(wrong) => Self::bad_request(format!("{wrong}\n")),
        }
    }

    pub(super) fn bad_request(why: impl Into<Cow<'static, str>>) -> Self {
        Self::text("400 Bad Request", why)
    }

    pub(super) fn not_found(what_is: &'static str) -> Self {
        Self::text("404 Not Found", what_is)
    }

    pub(super) fn not_allowed() -> Self {
        Self::text(
            "405 Method Not Allowed",
            "nothing can be changed here: GET and HEAD\n",
        )
    }

    pub(super) fn to_bytes(&self, with_body: bool) -> Vec<u8> {
        let Self {
            status,
            content_type,
            body,
            ..
        } = self;
        let size_bytes = body.len();
        let policy = if self.is_page { PAGE_POLICY } else { "" };
        let allow = if status.starts_with("405") {
            "Allow: GET, HEAD\r\n"
        } else {
            ""
        };
        let mut response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {size_bytes}\r\n{policy}{allow}{EVERY_HEADER}\r\n"
        );
        if with_body {
            response.push_str(body);
        }
        response.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str) -> Asked {
        Asked::parse(format!("GET {target} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes()).unwrap()
    }

    #[test]
    fn a_target_is_a_path_and_decoded_parameters() {
        let asked = asked("/api/coverage?topic=a%2Fb+c%C3%A9%FF&limit=7&limit=8");
        assert_eq!(asked.path(), "/api/coverage");
        assert_eq!(asked.parameter("topic"), Some("a/b cé\u{fffd}"));
        assert_eq!(asked.number("limit", (1, 9), 5), Ok(8));
        assert_eq!(asked.number("from", (0, 9), 5), Ok(5));
        assert!(
            asked
                .number("limit", (1, 7), 5)
                .unwrap_err()
                .contains("from 1 to 7")
        );
        assert!(asked.number("topic", (1, 7), 5).is_err());
        assert_eq!(asked.choice("sort", &["topic", "size"]), Ok("topic"));
        assert!(asked.choice("topic", &["x", "y"]).unwrap_err().contains("x or y"));
        assert!(asked.expect_only(&["topic", "limit"]).is_ok());
        let unknown = asked.expect_only(&["topic"]).unwrap_err();
        assert!(unknown.contains("'limit'"), "{unknown}");
    }

    #[test]
    fn what_is_no_request_is_none() {
        for head in [
            "",
            "GET",
            "GET /\r\n",
            "GET x HTTP/1.1\r\n",
            "GET / x HTTP/1.1\r\n",
            "GET / SPDY\r\n",
        ] {
            assert_eq!(Asked::parse(head.as_bytes()), None, "{head}");
        }
        assert_eq!(Asked::parse(b"GET /\xff HTTP/1.1\r\n"), None);
    }

    #[test]
    fn only_the_page_has_a_policy_and_a_head_has_no_body() {
        let page = String::from_utf8(Reply::page("<p>").to_bytes(false)).unwrap();
        assert!(
            page.contains("Content-Security-Policy: default-src 'none';"),
            "{page}"
        );
        assert!(
            page.contains("Content-Length: 3\r\n") && page.ends_with("\r\n\r\n"),
            "{page}"
        );
        let file = String::from_utf8(Reply::file("text/css", "p{}").to_bytes(true)).unwrap();
        assert!(
            !file.contains("Content-Security-Policy") && file.ends_with("\r\n\r\np{}"),
            "{file}"
        );
    }
}
