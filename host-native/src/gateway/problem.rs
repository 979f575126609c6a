//! What went wrong, as `application/problem+json` (RFC 9457) with a code that programs can tell apart.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use tracing::debug;

use super::access::Refused;
use crate::client::ClientError;
use crate::cluster::{code, error_name};
use crate::transport::TransportError;

/// The media type.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// For what may be there soon, in seconds.
const SOON_S: u64 = 1;

/// One problem. Boxed inside, because it travels in every `Result`.
#[derive(Debug)]
pub(super) struct Problem(Box<Said>);

#[derive(Debug)]
struct Said {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    members: Vec<(&'static str, Value)>,
    retry_after_s: Option<u64>,
    challenge: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self(Box::new(Said {
            status,
            code,
            title,
            detail: detail.into(),
            members: Vec::new(),
            retry_after_s: None,
            challenge: None,
        }))
    }

    /// Says one thing more to programs.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.members.push((name, value.into()));
        self
    }

    /// For people.
    pub(super) fn detail(&self) -> &str {
        &self.0.detail
    }

    fn soon(mut self) -> Self {
        self.0.retry_after_s = Some(SOON_S);
        self
    }

    /// A part of the path or of the query that cannot be used.
    pub(super) fn parameter(name: &str, rule: &str) -> Self {
        let detail = format!("'{name}' {rule}");
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-parameter",
            "A parameter cannot be used",
            detail,
        )
        .with("parameter", name)
    }

    /// A body that cannot be used.
    pub(super) fn body(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            code,
            "The body of the request cannot be used",
            detail,
        )
    }

    pub(super) fn no_such_resource() -> Self {
        let detail = "there are /v1/topics, /v1/topics/TOPIC, /v1/topics/TOPIC/PARTITION, its /records and \
                      /records/OFFSET, and /v1/fetch";
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-resource",
            "There is nothing at this path",
            detail,
        )
    }

    pub(super) fn method() -> Self {
        let detail = "the gateway only reads: GET and HEAD, and POST at /v1/fetch";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "This method is not for this resource",
            detail,
        )
    }

    pub(super) fn not_acceptable(offered: &[&str]) -> Self {
        let detail = format!("there are {}", offered.join(" and "));
        Self::new(
            StatusCode::NOT_ACCEPTABLE,
            "not-acceptable",
            "The answer has no form that the client accepts",
            detail,
        )
    }

    pub(super) fn refused(refused: Refused) -> Self {
        let (challenge, detail) = match refused {
            Refused::NoToken => (
                "Bearer realm=\"kachet\"",
                "send one bearer token in the header Authorization",
            ),
            Refused::WrongToken => (
                "Bearer realm=\"kachet\", error=\"invalid_token\"",
                "the bearer token is not one of this gateway's",
            ),
        };
        let mut problem = Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorised",
            "The request brings no token that is valid here",
            detail,
        );
        problem.0.challenge = Some(challenge);
        problem
    }

    pub(super) fn wrong_host() -> Self {
        let detail = "without a token, a gateway on a loopback address is read by the names localhost and 127.0.0.1 only; \
                      set a token or --allow-anonymous to use others";
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "wrong-host",
            "This host is not read by this name",
            detail,
        )
    }

    pub(super) fn too_busy() -> Self {
        let detail = "as many requests are being answered as may be at a time";
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too-busy",
            "There are too many requests",
            detail,
        )
        .soon()
    }

    pub(super) fn late() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "timed-out",
            "There was no answer in time",
            "the answer did not begin within the time that the gateway allows",
        )
    }

    /// The exact offset holds no record that the reader sees. `next_offset` is where to read on.
    pub(super) fn no_record(offset: i64, next_offset: Option<i64>) -> Self {
        let detail = format!(
            "offset {offset} is within the log and holds no record: compaction took it, it belongs to a marker, or to an \
             aborted transaction"
        );
        let problem = Self::new(
            StatusCode::NOT_FOUND,
            "no-record-at-offset",
            "There is no record at this offset",
            detail,
        );
        match next_offset {
            Some(next_offset) => problem.with("next_offset", next_offset),
            None => problem,
        }
    }

    fn out_of_range(error: &ClientError, offset: i64, log_start_offset: i64, end_offset: i64) -> Self {
        let detail = error.to_string();
        let problem = if offset < log_start_offset {
            Self::new(
                StatusCode::GONE,
                "below-log-start",
                "The log no longer holds this offset",
                detail,
            )
        } else {
            let title = "The log does not hold this offset yet";
            Self::new(StatusCode::NOT_FOUND, "beyond-end", title, detail).soon()
        };
        problem
            .with("log_start_offset", log_start_offset)
            .with("end_offset", end_offset)
    }

    fn broker(error: &ClientError, error_code: i16) -> Self {
        let (status, code, title) = match error_code {
            code::UNKNOWN_TOPIC_OR_PARTITION | code::UNKNOWN_TOPIC_ID => {
                (StatusCode::NOT_FOUND, "no-such-topic", "There is no such topic")
            }
            code::TOPIC_AUTHORIZATION_FAILED | code::CLUSTER_AUTHORIZATION_FAILED => (
                StatusCode::FORBIDDEN,
                "not-authorised-upstream",
                "The cluster does not let the gateway read this",
            ),
            code::LEADER_NOT_AVAILABLE | code::NOT_LEADER_OR_FOLLOWER | code::REPLICA_NOT_AVAILABLE => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no-leader",
                "The partition has no leader for the moment",
            ),
            code::REQUEST_TIMED_OUT => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream-timed-out",
                "The cluster did not answer in time",
            ),
            _ => (
                StatusCode::BAD_GATEWAY,
                "upstream-error",
                "The cluster answers with an error",
            ),
        };
        let problem = Self::new(status, code, title, error.to_string());
        problem.with("kafka_error", error_name(error_code))
    }
}

/// Details of brokers stay in the log: who asks by HTTP need not know the addresses of a cluster.
impl From<&TransportError> for Problem {
    fn from(error: &TransportError) -> Self {
        use TransportError as E;
        debug!(%error, "a request of the gateway was not answered upstream");
        match error {
            E::Timeout { .. } => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "upstream-timed-out",
                "The cluster did not answer in time",
                "a broker did not answer within the time allowed",
            ),
            error if error.is_refusal() => Self::new(
                StatusCode::BAD_GATEWAY,
                "upstream-refuses",
                "The cluster and the gateway do not come together",
                "TLS or the login at a broker fails; the gateway's log says why",
            ),
            E::Connect { .. }
            | E::ConnectTimeout { .. }
            | E::Connection { .. }
            | E::Closed { .. }
            | E::ClosedAtStart { .. }
            | E::Tls { .. }
            | E::BrokenOff { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-down",
                "The cluster cannot be reached",
                "no broker that is needed for this can be reached, and what is cached is not enough",
            )
            .soon(),
            _ => Self::new(
                StatusCode::BAD_GATEWAY,
                "upstream-error",
                "The cluster answers with an error",
                "a broker's answer cannot be used; the gateway's log says why",
            ),
        }
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        use ClientError as E;
        let detail = || error.to_string();
        match &error {
            E::Transport(transport) => transport.into(),
            E::InvalidTopicName { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "invalid-topic-name",
                "This is no name of a topic",
                "Kafka allows 1 to 249 letters, digits, '.', '_' and '-'",
            ),
            E::UnknownTopic { .. } => Self::new(
                StatusCode::NOT_FOUND,
                "no-such-topic",
                "There is no such topic",
                detail(),
            ),
            E::UnknownPartition { count, .. } => Self::new(
                StatusCode::NOT_FOUND,
                "no-such-partition",
                "The topic has no such partition",
                detail(),
            )
            .with("partitions", *count),
            E::OffsetOutOfRange {
                offset,
                log_start_offset,
                high_watermark,
                ..
            } => Self::out_of_range(&error, *offset, *log_start_offset, *high_watermark),
            E::NoSuchTimestamp { .. } => Self::new(
                StatusCode::NOT_FOUND,
                "no-record-at-timestamp",
                "No record is as late as that",
                detail(),
            ),
            E::Broker { code, .. } => Self::broker(&error, *code),
            E::NoLeader { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no-leader",
                "The partition has no leader for the moment",
                detail(),
            )
            .soon(),
            E::NoProgress { .. } => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-throttles",
                "The cluster gives nothing for the moment",
                detail(),
            )
            .soon(),
            E::LegacyFormat { .. } | E::Batch { .. } | E::Codec { .. } => Self::new(
                StatusCode::BAD_GATEWAY,
                "unreadable-batch",
                "The batch cannot be read record by record",
                detail(),
            ),
            E::NoBootstrap | E::Address(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "gateway-settings",
                "The gateway is not set up",
                detail(),
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let said = *self.0;
        let mut object = Map::new();
        object.insert("type".into(), format!("urn:kachet:problem:{}", said.code).into());
        object.insert("title".into(), said.title.into());
        object.insert("status".into(), said.status.as_u16().into());
        object.insert("code".into(), said.code.into());
        object.insert("detail".into(), said.detail.into());
        for (name, value) in said.members {
            object.insert(name.into(), value);
        }
        let mut body = Value::Object(object).to_string();
        body.push('\n');
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = said.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(retry_after_s) = said.retry_after_s {
            headers.insert(RETRY_AFTER, retry_after_s.into());
        }
        if let Some(challenge) = said.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}
