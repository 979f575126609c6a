//! Kafka's own Fetch over HTTP: a request without its size in, the response without its size out.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use kachet_core::storage::Storage;
use kachet_core::wire::{
    FETCH_API_KEY, FETCH_VERSION_MAX, FETCH_VERSION_MIN, FetchRequest, FetchResponse, WireStr,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::listener::is_too_large;
use super::problem::Problem;
use super::record::unwritable;
use super::slices::Slices;
use super::{GatewayLimits, Shared, accept, router};
use crate::proxy::{FetchSessions, Head, encoded_fetch, split_fetch};
use crate::transport::Transport;

/// Of requests and of responses.
const MEDIA_TYPE: &str = "application/vnd.kafka.fetch";
const OFFERED: [&str; 2] = [MEDIA_TYPE, "application/octet-stream"];
/// Partitions of one request.
const PARTITIONS_LIMIT: usize = 10_000;

pub(super) async fn fetch<T: Transport, S: Storage + 'static>(
    State(shared): State<Arc<Shared<T, S>>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let limits = &shared.settings.limits;
    check_media_type(&headers)?;
    let form = accept::choose(&headers, &OFFERED).ok_or_else(|| Problem::not_acceptable(&OFFERED))?;
    let frame = read_body(limits, body).await?;
    let (head, request) = parse(&frame)?;
    let response = match sessionless(head.version, request) {
        Ok(request) => {
            let request = within(limits, request);
            shared.leaders.fetch(&shared.cache, head.version, request).await?
        }
        Err(error_code) => FetchResponse {
            error_code,
            ..FetchResponse::default()
        },
    };
    let response = without_addresses(response);
    let slices = encoded_fetch(head, &response).map_err(|error| unwritable(&error))?;
    Ok(router::answer(OFFERED[form], Body::new(Slices::new(slices))))
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(given) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let given = given.to_str().unwrap_or_default();
    let media_type = given.split(';').next().unwrap_or_default().trim();
    if OFFERED.iter().any(|known| known.eq_ignore_ascii_case(media_type)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "The body has a form that is not taken",
        format!("it has to be {} or {}", OFFERED[0], OFFERED[1]),
    ))
}

async fn read_body(limits: &GatewayLimits, body: Body) -> Result<Bytes, Problem> {
    let limited = Limited::new(body, limits.request_size_bytes);
    match timeout(limits.request_timeout, limited.collect()).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if is_too_large(&*error) => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "request-too-large",
            "The body of the request is too large",
            format!("it may have {} bytes", limits.request_size_bytes),
        )),
        Ok(Err(_)) => Err(Problem::body("bad-request", "it did not come as a whole")),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timed-out",
            "The body of the request did not come in time",
            format!("it has to be there within {:?}", limits.request_timeout),
        )),
    }
}

/// The request, which only reads.
fn parse(frame: &Bytes) -> Result<(Head, FetchRequest), Problem> {
    let unreadable = |what: &dyn core::fmt::Display| {
        Problem::body(
            "bad-fetch-request",
            format!("it is no Fetch request with its header and without its size: {what}"),
        )
    };
    let head = Head::parse(frame).map_err(|_| unreadable(&"it ends within its header"))?;
    if head.api_key != FETCH_API_KEY {
        let what = format!(
            "its API key is {}, that of Fetch is {FETCH_API_KEY}",
            head.api_key
        );
        return Err(unreadable(&what));
    }
    if !(FETCH_VERSION_MIN..=FETCH_VERSION_MAX).contains(&head.version) {
        return Err(Problem::body(
            "unsupported-fetch-version",
            format!(
                "its version is {}; spoken are {FETCH_VERSION_MIN} to {FETCH_VERSION_MAX}",
                head.version
            ),
        )
        .with("min_version", FETCH_VERSION_MIN)
        .with("max_version", FETCH_VERSION_MAX));
    }
    let (_, body) = split_fetch(frame, head.version).map_err(|error| unreadable(&error))?;
    let request = FetchRequest::decode(body, head.version).map_err(|error| unreadable(&error))?;
    // What a replica fetches moves watermarks, which is more than to read (H8).
    let is_consumer = request.replica_id == -1
        && request
            .replica_state
            .as_ref()
            .is_none_or(|state| state.replica_id == -1);
    if !is_consumer {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "replica-fetch",
            "Replicas do not fetch here",
            "the replica id has to be -1, which is a consumer's",
        ));
    }
    let partitions: usize = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    if partitions > PARTITIONS_LIMIT {
        return Err(Problem::body(
            "too-many-partitions",
            format!("it asks for {partitions} partitions; {PARTITIONS_LIMIT} are the most"),
        ));
    }
    Ok((head, request))
}

/// One that stands for itself. A request has no connection here to which a session could belong, so that none begins, and
/// one that goes on with a session is answered that there is none (H15).
fn sessionless(version: i16, request: FetchRequest) -> Result<FetchRequest, i16> {
    let no_room = Arc::new(Semaphore::new(0));
    let resolved = FetchSessions::new(&no_room).resolve(version, request);
    resolved.map(|(request, _)| request)
}

fn within(limits: &GatewayLimits, mut request: FetchRequest) -> FetchRequest {
    // No rack: who is redirected to a follower could not follow (H16).
    request.rack_id = WireStr::default();
    let max_bytes = i32::try_from(limits.response_size_bytes).unwrap_or(i32::MAX);
    request.max_bytes = request.max_bytes.min(max_bytes);
    // The answer has to begin in time, also where the broker is slow.
    let max_wait_ms = (limits.answer_timeout / 2).as_millis();
    request.max_wait_ms = request
        .max_wait_ms
        .min(i32::try_from(max_wait_ms).unwrap_or(i32::MAX));
    request
}

/// Brokers' addresses are of no use to who comes by HTTP (H17).
fn without_addresses(mut response: FetchResponse) -> FetchResponse {
    response.session_id = 0;
    response.node_endpoints.clear();
    for data in response.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
        data.current_leader = None;
        data.preferred_read_replica = -1;
    }
    response
}
