//! Who may read.

use core::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, Uri};
use ring::hmac;
use ring::rand::{SystemRandom, generate};
use tracing::warn;
use zeroize::Zeroizing;

use crate::reloaded::Reloaded;

/// Tokens are shorter.
const FILE_LIMIT_BYTES: u64 = 64 << 10;
/// A shorter one could be guessed.
const TOKEN_MIN_BYTES: usize = 16;

/// Tokens of which each request has to bring one, as `Authorization: Bearer TOKEN`. They are kept as keyed hashes, so
/// that they stand nowhere in memory, and comparing takes the same time whatever is given. Clones share, also what
/// [`Self::reload`] has read.
#[derive(Clone)]
pub struct BearerTokens {
    shared: Arc<Shared>,
}

struct Shared {
    /// Where they were read from.
    path: Option<PathBuf>,
    hashed: Reloaded<Hashed>,
}

struct Hashed {
    key: hmac::Key,
    tags: Vec<hmac::Tag>,
}

/// Why tokens cannot be used. No variant holds one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BearerTokensError {
    /// The file cannot be read.
    #[error("cannot read the bearer token in {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is none.
    #[error("there is no bearer token: write one a line")]
    None,
    /// It cannot stand in a header, or could be guessed.
    #[error(
        "line {line}: a bearer token has at least {TOKEN_MIN_BYTES} letters, digits or any of -._~+/= (try `openssl rand -hex 32`)"
    )]
    Form {
        /// The line, from 1 on.
        line: usize,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

impl BearerTokens {
    /// Reads a file with a token a line. Several are for the time while one takes the place of another. Blocks while it does.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, BearerTokensError> {
        let path = path.as_ref();
        let hashed = Hashed::read(path)?;
        Ok(Self::of(hashed, Some(path.to_owned())))
    }

    /// Takes tokens over, one a line. Empty lines do not count.
    pub fn new(text: &str) -> Result<Self, BearerTokensError> {
        Ok(Self::of(Hashed::new(text)?, None))
    }

    fn of(hashed: Hashed, path: Option<PathBuf>) -> Self {
        Self {
            shared: Arc::new(Shared {
                path,
                hashed: Reloaded::new(hashed),
            }),
        }
    }

    /// Reads the same file anew, for requests that come from then on, also on connections that there are. Where anything is
    /// wrong with it, the tokens from before go on. Blocks while it reads. Does nothing with tokens that are of no file.
    pub fn reload(&self) -> Result<(), BearerTokensError> {
        match &self.shared.path {
            Some(path) => self.shared.hashed.take_over(Hashed::read(path)),
            None => Ok(()),
        }
    }

    /// How often [`Self::reload`] has read the file, and how often it has failed to.
    pub fn reloads(&self) -> (u64, u64) {
        self.shared.hashed.counts()
    }

    /// Whether a request may be answered.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else {
            return Err(Refused::NoToken);
        };
        let token = bearer_token(value.as_bytes()).ok_or(Refused::NoToken)?;
        if self.shared.hashed.get().holds(token) {
            Ok(())
        } else {
            Err(Refused::WrongToken)
        }
    }
}

impl Hashed {
    fn read(path: &Path) -> Result<Self, BearerTokensError> {
        let failed = |source| BearerTokensError::File {
            path: path.to_owned(),
            source,
        };
        let mut text = Zeroizing::new(String::new());
        let file = File::open(path).map_err(failed)?;
        file.take(FILE_LIMIT_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(failed)?;
        if text.len() as u64 > FILE_LIMIT_BYTES {
            return Err(failed(io::Error::other("it is too large for tokens")));
        }
        let hashed = Self::new(&text)?;
        if is_readable_by_everybody(path) {
            warn!(path = %path.display(), "everybody on this machine may read the bearer tokens; take that right away (chmod o-r)");
        }
        Ok(hashed)
    }

    fn new(text: &str) -> Result<Self, BearerTokensError> {
        let random = generate::<[u8; 32]>(&SystemRandom::new()).map_err(|_| BearerTokensError::Random)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &random.expose());
        let mut tags = Vec::new();
        for (line, token) in (1..).zip(text.lines()) {
            let token = token.trim();
            if token.is_empty() {
                continue;
            }
            if token.len() < TOKEN_MIN_BYTES || !token.bytes().all(is_of_token) {
                return Err(BearerTokensError::Form { line });
            }
            tags.push(hmac::sign(&key, token.as_bytes()));
        }
        if tags.is_empty() {
            return Err(BearerTokensError::None);
        }
        Ok(Self { key, tags })
    }

    fn holds(&self, token: &[u8]) -> bool {
        // All of them, so that the time does not tell which one is right.
        let is_right = |tag: &hmac::Tag| hmac::verify(&self.key, token, tag.as_ref()).is_ok();
        self.tags.iter().filter(|tag| is_right(tag)).count() > 0
    }
}

#[cfg(unix)]
fn is_readable_by_everybody(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;

    const OTHERS_READ: u32 = 0o004;
    path.metadata()
        .is_ok_and(|metadata| metadata.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(not(unix))]
fn is_readable_by_everybody(_path: &Path) -> bool {
    false
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.shared.hashed.get().tags.len();
        write!(f, "BearerTokens({count} of them)")
    }
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NoToken,
    WrongToken,
}

/// RFC 6750: `b64token`.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then_some(rest.trim_ascii())
}

/// Whether a request names this host as only somebody on this machine would: by an address, or as localhost. A page of
/// another site that has its own name lead to a loopback address, so that the browser takes both for the same site, has
/// to use that name.
pub(super) fn names_this_machine(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = match (uri.host(), headers.get(HOST)) {
        (Some(host), _) => Some(host),
        (None, Some(value)) => match value.to_str() {
            Ok(value) => Some(without_port(value)),
            Err(_) => return false,
        },
        // No browser, then.
        (None, None) => None,
    };
    host.is_none_or(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
    })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn asked_with(authorization: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn one_of_the_tokens_opens_and_nothing_else() {
        let tokens = BearerTokens::new(&format!("\n{TOKEN}\r\n fedcba9876543210/+= \n")).unwrap();
        for right in [
            format!("Bearer {TOKEN}"),
            format!("bearer  {TOKEN}"),
            "Bearer fedcba9876543210/+=".into(),
        ] {
            assert_eq!(tokens.check(&asked_with(&[&right])), Ok(()), "{right}");
        }
        for (given, refused) in [
            (vec![], Refused::NoToken),
            (vec!["Basic 0123456789abcdef"], Refused::NoToken),
            (vec!["Bearer"], Refused::NoToken),
            (vec!["Bearer "], Refused::WrongToken),
            (vec!["Bearer 0123456789abcdeg"], Refused::WrongToken),
            (vec!["Bearer 0123456789abcde"], Refused::WrongToken),
            (vec!["Bearer 0123456789abcdef0"], Refused::WrongToken),
            (
                vec!["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
                Refused::NoToken,
            ),
        ] {
            assert_eq!(tokens.check(&asked_with(&given)), Err(refused), "{given:?}");
        }
        assert!(!format!("{tokens:?}").contains(TOKEN));
    }

    #[test]
    fn tokens_that_cannot_be_sent_or_could_be_guessed_are_refused() {
        for (text, line) in [("short", 1), ("\n0123456789 abcdef", 2), ("0123456789abcdefä", 1)] {
            let error = BearerTokens::new(text).unwrap_err();
            assert!(matches!(error, BearerTokensError::Form { line: at } if at == line));
            assert!(!error.to_string().contains(text));
        }
        assert!(matches!(BearerTokens::new(" \n"), Err(BearerTokensError::None)));
    }

    #[test]
    fn a_name_of_another_site_is_not_this_machine() {
        let named = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            names_this_machine(&Uri::from_static("/v1/topics"), &headers)
        };
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:80",
            "[::1]:8080",
            "[::1]",
        ] {
            assert!(named(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(!named(host), "{host}");
        }
        let none = HeaderMap::new();
        assert!(names_this_machine(&Uri::from_static("/"), &none));
        assert!(!names_this_machine(
            &Uri::from_static("http://evil.example/"),
            &none
        ));
        assert!(names_this_machine(&Uri::from_static("http://[::1]:80/"), &none));
    }
}
