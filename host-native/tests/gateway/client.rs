//! A client by HTTP/1.1 or HTTP/2 that says exactly what a test wants.

use core::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::LONG;

pub(crate) enum Client {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        core::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The problem's code, of an answer that is one.
    pub(crate) fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.header("cache-control"), "no-store");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        let code = problem["code"].as_str().unwrap().to_owned();
        assert_eq!(problem["type"], format!("urn:kachet:problem:{code}"));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        code
    }
}

impl Client {
    pub(crate) async fn to(address: SocketAddr) -> Result<Self> {
        Self::over(TcpStream::connect(address).await?).await
    }

    pub(crate) async fn by_http2(address: SocketAddr) -> Result<Self> {
        Self::over_by_http2(TcpStream::connect(address).await?).await
    }

    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::One(sender))
    }

    pub(crate) async fn over_by_http2(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self> {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::Two(sender))
    }

    /// The beginning of the answer.
    pub(crate) async fn begin(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let uri = match self {
            Self::One(_) => path.to_owned(),
            Self::Two(_) => format!("http://localhost{path}"),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if matches!(self, Self::One(_)) && !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let answer = match self {
            Self::One(sender) => {
                sender.ready().await?;
                timeout(LONG, sender.send_request(request)).await
            }
            Self::Two(sender) => {
                sender.ready().await?;
                timeout(LONG, sender.send_request(request)).await
            }
        };
        Ok(answer.expect("no answer")?)
    }

    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer> {
        let response = self.begin(method, path, headers, body.into()).await?;
        let (head, body) = response.into_parts();
        let body = timeout(LONG, body.collect()).await.expect("no body")?;
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Answer> {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        self.ask(Method::GET, path, headers, Bytes::new()).await
    }
}
