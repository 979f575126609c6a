//! One record by its offset.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kachet_core::identity::PartitionKey;
use kachet_core::storage::Storage;
use kachet_core::wire::RecordBatch;

use super::parameters::{PathParts, Query};
use super::problem::Problem;
use super::{Shared, accept};
use crate::client::{Fetched, Record, TimestampType};
use crate::transport::Transport;

/// The headers that tell of a record whose value is the body.
pub(super) mod header {
    use axum::http::HeaderName;

    pub(crate) const TOPIC_ID: HeaderName = HeaderName::from_static("kachet-topic-id");
    pub(crate) const OFFSET: HeaderName = HeaderName::from_static("kachet-offset");
    pub(crate) const TIMESTAMP: HeaderName = HeaderName::from_static("kachet-timestamp");
    pub(crate) const TIMESTAMP_TYPE: HeaderName = HeaderName::from_static("kachet-timestamp-type");
    pub(crate) const KEY: HeaderName = HeaderName::from_static("kachet-key");
    pub(crate) const ALL: [HeaderName; 5] = [TOPIC_ID, OFFSET, TIMESTAMP, TIMESTAMP_TYPE, KEY];
}

/// What a record comes as.
const FORMS: [&str; 2] = ["application/json", "application/octet-stream"];
const JSON: usize = 0;
/// A key that is longer is left out of the headers; clients and proxies refuse large ones.
const KEY_LIMIT_BYTES: usize = 4 << 10;
/// The longest that another cache is told to keep a record, in seconds: a day.
const MAX_AGE_LIMIT_S: u64 = 86_400;

pub(super) async fn get<T: Transport, S: Storage + 'static>(
    State(shared): State<Arc<Shared<T, S>>>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = PathParts::new(path)?;
    let (topic, partition, offset) = (path.topic(), path.partition()?, path.offset()?);
    let isolation = Query::parse(query.as_deref(), &["isolation"])?.isolation()?;
    let form = accept::choose(&headers, &FORMS).ok_or_else(|| Problem::not_acceptable(&FORMS))?;
    let fetched = shared
        .client(isolation)
        .fetch_batch(topic, partition, offset)
        .await?;
    let first = fetched.records(1)?.into_iter().next();
    let record = match first {
        Some(record) if record.offset == offset => record,
        other => {
            let next_offset = other
                .map(|record| record.offset)
                .or_else(|| fetched.next_offset());
            return Err(Problem::no_record(offset, next_offset));
        }
    };
    let tag = entity_tag(&fetched, offset, form);
    let is_known = tag.as_deref().is_some_and(|tag| is_among(&headers, tag));
    let mut response = if is_known {
        status_only(StatusCode::NOT_MODIFIED)
    } else {
        represent(topic, partition, record, form)?
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    headers.insert(CACHE_CONTROL, shared.cache_control(&fetched, offset)?);
    if let Some(tag) = tag {
        headers.insert(ETAG, value(&tag)?);
    }
    if !fetched.topic_id().is_zero() {
        headers.insert(header::TOPIC_ID, value(&fetched.topic_id().to_string())?);
    }
    Ok(response)
}

/// What a record at an offset of a topic's id is, never changes as long as it is there. The epoch and the checksum of
/// its batch are in the tag for the cases in which another takes its place: after an unclean election, and where the
/// cleaner has rewritten the batch. `None` where brokers tell no ids.
fn entity_tag(fetched: &Fetched, offset: i64, form: usize) -> Option<String> {
    if fetched.topic_id().is_zero() {
        return None;
    }
    let batches = fetched.batches().ok()?;
    let mut batches = batches.iter().filter_map(|bytes| RecordBatch::parse(bytes).ok());
    let batch = batches.find(|batch| (batch.base_offset()..=batch.last_offset()).contains(&offset))?;
    let form = if form == JSON { 'j' } else { 'o' };
    Some(format!(
        "\"{}-{}-{offset}-{}-{:08x}-{form}\"",
        fetched.topic_id(),
        fetched.partition(),
        batch.partition_leader_epoch(),
        batch.crc(),
    ))
}

/// RFC 9110, 13.1.2: the comparison is a weak one.
fn is_among(headers: &HeaderMap, tag: &str) -> bool {
    let lines = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|line| line.to_str().ok());
    let mut known = lines.flat_map(|line| line.split(',')).map(str::trim);
    known.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

fn represent(topic: &str, partition: i32, record: Record, form: usize) -> Result<Response, Problem> {
    if form == JSON {
        let mut line = Vec::new();
        record
            .write_json(&mut line, topic, partition)
            .map_err(|error| unwritable(&error))?;
        let mut response = Response::new(Body::from(line));
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(FORMS[JSON]));
        return Ok(response);
    }
    let place = place_headers(&record)?;
    let mut response = match record.value {
        // A tombstone is not the same as an empty value.
        None => status_only(StatusCode::NO_CONTENT),
        Some(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(FORMS[1]));
            response
        }
    };
    response.headers_mut().extend(place);
    Ok(response)
}

fn place_headers(record: &Record) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    headers.insert(header::OFFSET, record.offset.into());
    headers.insert(header::TIMESTAMP, record.timestamp_ms.into());
    let timestamp_type = match record.timestamp_type {
        TimestampType::Create => "create",
        TimestampType::LogAppend => "logappend",
    };
    headers.insert(header::TIMESTAMP_TYPE, HeaderValue::from_static(timestamp_type));
    if let Some(key) = record.key.as_ref().filter(|key| key.len() <= KEY_LIMIT_BYTES) {
        // RFC 9651: a byte sequence.
        headers.insert(header::KEY, value(&format!(":{}:", STANDARD.encode(key)))?);
    }
    Ok(headers)
}

impl<T: Transport, S: Storage + 'static> Shared<T, S> {
    /// For how long another cache may give the record without asking: no longer than this one may.
    fn cache_control(&self, fetched: &Fetched, offset: i64) -> Result<HeaderValue, Problem> {
        let key = PartitionKey {
            topic_id: fetched.topic_id(),
            partition: fetched.partition(),
        };
        let max_age_s = self.cache.fresh_for(key, offset).as_secs().min(MAX_AGE_LIMIT_S);
        if max_age_s == 0 {
            return Ok(HeaderValue::from_static("no-cache"));
        }
        // Shared caches must not give to everybody what takes a token.
        let who = if self.settings.knows_its_clients() {
            "private"
        } else {
            "public"
        };
        value(&format!("{who}, max-age={max_age_s}"))
    }
}

pub(super) fn status_only(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::from_str(text).map_err(|error| unwritable(&error))
}

/// Memory takes all that is written, and headers here are plain.
pub(super) fn unwritable(error: &dyn core::fmt::Display) -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "gateway-defect",
        "The answer cannot be written",
        error.to_string(),
    )
}
