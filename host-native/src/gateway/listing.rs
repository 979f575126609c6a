//! Many records, as lines of JSON, no faster than the client takes them.

use core::pin::{Pin, pin};
use core::task::{Context, Poll, ready};
use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body::Frame;
use kachet_core::storage::Storage;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::listener::broken_off;
use super::parameters::{PathParts, Query};
use super::problem::Problem;
use super::record::unwritable;
use super::{Shared, accept, router};
use crate::client::{Isolation, Position};
use crate::transport::Transport;

const FORMS: [&str; 2] = ["application/x-ndjson", "application/json"];
/// Unless a request says otherwise.
const COUNT: u64 = 100;
/// Lines are sent so many bytes at a time.
const PART_BYTES: usize = 64 << 10;

pub(super) async fn list<T: Transport, S: Storage + 'static>(
    State(shared): State<Arc<Shared<T, S>>>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let path = PathParts::new(path)?;
    let partition = path.partition()?;
    let query = Query::parse(query.as_deref(), &["offset", "timestamp", "count", "isolation"])?;
    let isolation = query.isolation()?;
    let count = query.count("count", COUNT, shared.settings.limits.records)?;
    let position = position(&query)?;
    // Lines are not one JSON text, but who says that it takes JSON gets them.
    accept::choose(&headers, &FORMS).ok_or_else(|| Problem::not_acceptable(&FORMS[..1]))?;
    let client = shared.client(isolation);
    let offset = client.offset_of(path.topic(), partition, position).await?;
    let (sender, mut parts) = mpsc::channel(1);
    let writer = Writer {
        shared: Arc::clone(&shared),
        topic: path.topic().to_owned(),
        partition,
        offset,
        count,
        isolation,
    };
    let task = tokio::spawn(writer.write(sender)).abort_handle();
    let guard = EndsWith(task);
    let first = match parts.recv().await {
        Some(first) => first?,
        None => return Err(unwritable(&"the task that reads has ended")),
    };
    let body = if first.is_last {
        Body::from(first.bytes)
    } else {
        Body::new(Lines {
            first: Some(first.bytes),
            parts,
            is_whole: false,
            _writer: guard,
        })
    };
    Ok(router::answer(FORMS[0], body))
}

fn position(query: &Query<'_>) -> Result<Position, Problem> {
    match (query.text("offset"), query.number("timestamp")?) {
        (Some(_), Some(_)) => Err(Problem::parameter("timestamp", "cannot be given beside 'offset'")),
        (None, Some(timestamp_ms)) => Ok(Position::Timestamp(timestamp_ms)),
        (None, None) => Err(Problem::parameter(
            "offset",
            "or 'timestamp' has to be given: where to begin",
        )),
        (Some(given), None) => match given.parse() {
            Ok(position @ (Position::Offset(_) | Position::Earliest | Position::BeforeEnd(_))) => {
                Ok(position)
            }
            _ => Err(Problem::parameter(
                "offset",
                "is a number from 0 on, 'earliest', or 'latest-N' for N offsets before the end",
            )),
        },
    }
}

/// Some lines.
struct Part {
    bytes: Bytes,
    is_last: bool,
}

/// Ends a task when it is dropped, so that nothing is read for a client that has gone.
struct EndsWith(AbortHandle);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads records and writes them as lines.
struct Writer<T, S: Storage> {
    shared: Arc<Shared<T, S>>,
    topic: String,
    partition: i32,
    offset: i64,
    count: u64,
    isolation: Isolation,
}

impl<T: Transport, S: Storage + 'static> Writer<T, S> {
    async fn write(self, parts: mpsc::Sender<Result<Part, Problem>>) {
        let written = self.write_to(&parts).await;
        let last = written.map(|bytes| Part {
            bytes: bytes.into(),
            is_last: true,
        });
        // Fails where the client has gone.
        let _gone = parts.send(last).await;
    }

    /// Gives the lines that are left for the last part.
    async fn write_to(&self, parts: &mpsc::Sender<Result<Part, Problem>>) -> Result<Vec<u8>, Problem> {
        let client = self.shared.client(self.isolation);
        let mut records = pin!(client.records_from(&self.topic, self.partition, self.offset));
        let limit_bytes = self.shared.settings.limits.response_size_bytes;
        let (mut lines, mut sent_bytes) = (Vec::new(), 0);
        for index in 0..self.count {
            let Some(record) = records.try_next().await? else {
                break;
            };
            let before = lines.len();
            record
                .write_json(&mut lines, &self.topic, self.partition)
                .map_err(|error| unwritable(&error))?;
            // The first one comes whole, as the first batch of a fetch does.
            if index > 0 && sent_bytes + lines.len() > limit_bytes {
                lines.truncate(before);
                break;
            }
            if lines.len() >= PART_BYTES {
                let bytes = Bytes::from(core::mem::take(&mut lines));
                sent_bytes += bytes.len();
                let part = Part {
                    bytes,
                    is_last: false,
                };
                if parts.send(Ok(part)).await.is_err() {
                    break;
                }
            }
        }
        Ok(lines)
    }
}

/// A body of lines that come as they are read. It breaks off at an error, which HTTP cannot tell otherwise by then.
struct Lines {
    first: Option<Bytes>,
    parts: mpsc::Receiver<Result<Part, Problem>>,
    is_whole: bool,
    _writer: EndsWith,
}

impl http_body::Body for Lines {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.is_whole {
            return Poll::Ready(None);
        }
        let part = match ready!(self.parts.poll_recv(context)) {
            Some(Ok(part)) => part,
            Some(Err(problem)) => return Poll::Ready(Some(Err(broken_off(problem.detail())))),
            None => return Poll::Ready(Some(Err(broken_off("the task that reads has ended")))),
        };
        self.is_whole = part.is_last;
        let is_over = part.is_last && part.bytes.is_empty();
        Poll::Ready((!is_over).then(|| Ok(Frame::data(part.bytes))))
    }
}
