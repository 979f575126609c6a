//! OAUTHBEARER: a token from elsewhere.
//!
//! Source: RFC 7628; KIP-255 (in Kafka), KIP-342 (extensions), KIP-768.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{SaslError, Secret};

/// Tokens are smaller; Kafka takes no larger message during a login (`sasl.server.max.receive.size`).
const TOKEN_LIMIT_BYTES: u64 = 512 << 10;

/// Why there is no token.
pub type TokenError = Box<dyn core::error::Error + Send + Sync>;

/// A token, asked for.
pub type FutureToken<'p> = Pin<Box<dyn Future<Output = Result<BearerToken, TokenError>> + Send + 'p>>;

/// Gives a token for each login. It is asked anew each time a connection is opened, so that it can give a fresh one,
/// and has as long as the [request timeout](crate::transport::TcpSettings::request_timeout).
///
/// An async closure without arguments is one too, if it gives `Result<BearerToken, TokenError>`.
pub trait TokenProvider: Send + Sync + 'static {
    /// A token that the broker will accept for a while. The error is shown to people: it must not hold the token.
    fn token(&self) -> FutureToken<'_>;
}

impl<F, T> TokenProvider for F
where
    F: Fn() -> T + Send + Sync + 'static,
    T: Future<Output = Result<BearerToken, TokenError>> + Send + 'static,
{
    fn token(&self) -> FutureToken<'_> {
        Box::pin(self())
    }
}

/// A token, with what else the broker wants to know.
#[derive(Clone, Debug)]
pub struct BearerToken {
    token: Secret,
    extensions: Vec<(String, String)>,
}

impl BearerToken {
    /// A token as the authorization server gave it, without `Bearer`.
    pub fn new(token: impl Into<Secret>) -> Self {
        Self {
            token: token.into(),
            extensions: Vec::new(),
        }
    }

    /// Adds an extension (KIP-342): its name has letters only, and is not `auth`; its value is printable.
    #[must_use]
    pub fn with_extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// The client's first message. Fails where a part could be taken for another one.
    pub(super) fn message(&self) -> Result<Zeroizing<Vec<u8>>, SaslError> {
        let wrong = |what| Err(SaslError::Credentials { what });
        if !is_token(self.token.expose()) {
            return wrong(
                "the token is not one: it has to be of letters, digits and -._~+/, with = at its end",
            );
        }
        let mut message = Zeroizing::new(b"n,,\x01auth=Bearer ".to_vec());
        message.extend_from_slice(self.token.expose().as_bytes());
        message.push(1);
        for (name, value) in &self.extensions {
            if name.is_empty() || name == "auth" || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                return wrong("the name of a token's extension is of letters only, and is not 'auth'");
            }
            let printable = |byte: u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
            if value.is_empty() || !value.bytes().all(printable) {
                return wrong("the value of a token's extension is not empty and printable ASCII");
            }
            message.extend_from_slice(name.as_bytes());
            message.push(b'=');
            message.extend_from_slice(value.as_bytes());
            message.push(1);
        }
        message.push(1);
        Ok(message)
    }
}

/// `b64token` of RFC 6750.
fn is_token(token: &str) -> bool {
    let inner = token.trim_end_matches('=');
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !inner.is_empty() && inner.bytes().all(allowed)
}

/// The answer to an error of the broker: go on, and say that the login has failed.
pub(super) const ACKNOWLEDGED: &[u8] = b"\x01";

/// Reads the token from a file, anew for each login. White space around it is ignored.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: Arc<PathBuf>,
}

impl TokenFile {
    /// Reads nothing yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Arc::new(path.into()),
        }
    }
}

impl TokenProvider for TokenFile {
    fn token(&self) -> FutureToken<'_> {
        let path = Arc::clone(&self.path);
        Box::pin(async move {
            // A file may be on a slow medium.
            let read = tokio::task::spawn_blocking({
                let path = Arc::clone(&path);
                move || read_token(&path)
            });
            let failed = |error: &dyn fmt::Display| -> TokenError {
                format!("cannot read {}: {error}", path.display()).into()
            };
            let token = read.await.map_err(|error| failed(&error))?;
            token.map(BearerToken::new).map_err(|error| failed(&error))
        })
    }
}

fn read_token(path: &PathBuf) -> io::Result<Secret> {
    let mut text = Zeroizing::new(String::new());
    File::open(path)?
        .take(TOKEN_LIMIT_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > TOKEN_LIMIT_BYTES {
        return Err(io::Error::other("it is too large for a token"));
    }
    Ok(Secret::new(text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(token: &BearerToken) -> String {
        String::from_utf8(token.message().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn the_message_is_that_of_rfc_7628_with_kafkas_extensions() {
        let token = BearerToken::new("a.b-c_d==");
        assert_eq!(message(&token), "n,,\x01auth=Bearer a.b-c_d==\x01\x01");
        let token = token
            .with_extension("logicalCluster", "lkc 1")
            .with_extension("traceId", "7");
        assert_eq!(
            message(&token),
            "n,,\x01auth=Bearer a.b-c_d==\x01logicalCluster=lkc 1\x01traceId=7\x01\x01"
        );
    }

    #[test]
    fn nothing_in_a_token_can_pass_for_another_part_of_the_message() {
        for token in ["", "=", "a\x01auth=Bearer b", "a b", "a=b", "ä", "a\n"] {
            let error = BearerToken::new(token).message().unwrap_err();
            assert!(
                matches!(error, SaslError::Credentials { .. }),
                "{token:?}: {error}"
            );
        }
        for (name, value) in [
            ("auth", "x"),
            ("", "x"),
            ("a1", "x"),
            ("a", ""),
            ("a", "x\x01b=c"),
            ("a=b", "x"),
        ] {
            let token = BearerToken::new("t").with_extension(name, value);
            assert!(token.message().is_err(), "{name:?} {value:?}");
        }
    }

    #[tokio::test]
    async fn a_token_file_is_read_anew_each_time() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let provider = TokenFile::new(file.path());
        for token in ["one", "two"] {
            std::fs::write(file.path(), format!("  {token}\n")).unwrap();
            let given = provider.token().await.unwrap();
            assert_eq!(given.token.expose(), token);
        }
        drop(file);
        let error = provider.token().await.unwrap_err().to_string();
        assert!(error.starts_with("cannot read "), "{error}");
    }

    #[tokio::test]
    async fn a_closure_provides_tokens() {
        let provider = || async { Ok(BearerToken::new("t")) };
        assert_eq!(TokenProvider::token(&provider).await.unwrap().token.expose(), "t");
    }
}
