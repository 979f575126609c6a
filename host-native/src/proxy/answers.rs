//! The way of the answers: in the order of the requests, and no faster than the client takes them.

use core::time::Duration;
use std::io;
use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::apis::{self, key};
use super::conversation::{Conversation, Expected, SMALL_BYTES, hung_up, room};
use super::fetch::FetchTurn;
use super::limits::End;
use super::lock;
use super::request::Head;
use super::rewrite;
use super::wire::{Broken, is_at_end, read_array, read_onto, write_slices};
use crate::transport::Transport;
use crate::transport::raw::RawReader;

/// One read from a broker takes in this much; an answer that fits is one write. Most of what an idle connection takes.
const UPSTREAM_BUFFER_BYTES: usize = 16 << 10;
/// For how long a client may take no farewell.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);
/// Every response begins with its correlation id.
const CORRELATION_ID_BYTES: usize = 4;

/// Gives the answers.
pub(super) struct Answers<'c, 's, T, W> {
    conversation: &'c Conversation<'s, T>,
    writer: W,
    expected: mpsc::Receiver<Expected>,
    upstream: Option<BufReader<RawReader>>,
}

impl<'c, 's, T: Transport, W: AsyncWrite + Unpin + Send> Answers<'c, 's, T, W> {
    pub(super) fn new(
        conversation: &'c Conversation<'s, T>,
        writer: W,
        expected: mpsc::Receiver<Expected>,
    ) -> Self {
        Self {
            conversation,
            writer,
            expected,
            upstream: None,
        }
    }

    /// Ends once no more are expected.
    pub(super) async fn give(mut self) -> Result<(), End> {
        while let Some(expected) = self.next().await? {
            match expected {
                Expected::Upstream(reader) => {
                    self.upstream = Some(BufReader::with_capacity(UPSTREAM_BUFFER_BYTES, reader));
                    continue;
                }
                Expected::Forwarded(head) => self.forwarded(head).await?,
                Expected::Ready(response) => self.write(&[response]).await?,
                Expected::Fetch(turn) => {
                    self.conversation.shared.figures.one_fetch(turn.way);
                    let response = match self.answer_upstream(&turn).await? {
                        Some(frame) => turn.read(self.conversation, &frame)?,
                        None => turn.ask(self.conversation).await?,
                    };
                    let slices = turn.finish(self.conversation, response)?;
                    self.write(&slices).await?;
                }
            }
            self.conversation.one_less();
        }
        // A farewell, where TLS has one. Without it nothing is lost either.
        let _without = timeout(FAREWELL_PATIENCE, self.writer.shutdown()).await;
        Ok(())
    }

    /// The next that is expected. Meanwhile it is seen if the broker closes the connection.
    async fn next(&mut self) -> Result<Option<Expected>, End> {
        loop {
            let Some(upstream) = &mut self.upstream else {
                return Ok(self.expected.recv().await);
            };
            tokio::select! {
                biased;
                expected = self.expected.recv() => return Ok(expected),
                at_end = is_at_end(upstream) => match at_end {
                    Ok(false) => return Err(End::Disorder),
                    Ok(true) | Err(_) => self.has_lost_upstream()?,
                }
            }
        }
    }

    fn has_lost_upstream(&mut self) -> Result<(), End> {
        self.upstream = None;
        self.conversation.upstream_is_open.store(false, Ordering::Relaxed);
        if self.conversation.is_stateful.load(Ordering::Relaxed) {
            return Err(hung_up());
        }
        Ok(())
    }

    /// The size of the broker's next answer, which has to be the one to this request.
    async fn begin(&mut self, head: Head) -> Result<usize, End> {
        let patience = self.conversation.shared.settings.limits.answer_timeout;
        let upstream = self.upstream.as_mut().ok_or_else(hung_up)?;
        let size = read_array(upstream, patience).await.map_err(of_broker)?;
        let size_bytes = usize::try_from(i32::from_be_bytes(size)).map_err(|_| End::Disorder)?;
        let correlation_id = read_array(upstream, patience).await.map_err(of_broker)?;
        let is_due = i32::from_be_bytes(correlation_id) == head.correlation_id;
        if is_due && size_bytes >= CORRELATION_ID_BYTES {
            Ok(size_bytes)
        } else {
            Err(End::Disorder)
        }
    }

    /// The broker's next answer as a whole, without its size.
    async fn whole(&mut self, head: Head, size_bytes: usize) -> Result<Bytes, End> {
        let limits = &self.conversation.shared.settings.limits;
        let mut frame = Vec::with_capacity(size_bytes.min(UPSTREAM_BUFFER_BYTES));
        frame.put_i32(head.correlation_id);
        let upstream = self.upstream.as_mut().ok_or_else(hung_up)?;
        read_onto(upstream, &mut frame, size_bytes, limits.idle_timeout)
            .await
            .map_err(of_broker)?;
        Ok(frame.into())
    }

    async fn forwarded(&mut self, head: Head) -> Result<(), End> {
        let size_bytes = self.begin(head).await?;
        let shared = self.conversation.shared;
        let limits = &shared.settings.limits;
        let is_versions = head.api_key == key::API_VERSIONS;
        if !is_versions && !rewrite::names_brokers(head.api_key, head.version) {
            return self.stream(head, size_bytes).await;
        }
        if size_bytes > limits.response_size_bytes {
            return Err(End::Disorder);
        }
        let twice = size_bytes.saturating_mul(2);
        let _memory = room(
            &shared.answers_room,
            limits.third_bytes(),
            twice,
            limits.request_timeout,
        )
        .await?;
        let frame = self.whole(head, size_bytes).await?;
        let to_client = self.conversation.to_client();
        let response = if is_versions {
            let response = apis::intersect(head.version, &frame, &to_client)?;
            shared.learn_versions(head.version, &response);
            response
        } else {
            self.overhear(head, &frame);
            rewrite::addresses(head.api_key, head.version, &frame, &to_client)?
        };
        self.write(&[response]).await
    }

    /// Lets the cache know where topics are, for the time when no broker can be asked. Not from those who log in,
    /// because others may not be allowed to know.
    fn overhear(&self, head: Head, frame: &Bytes) {
        let shared = self.conversation.shared;
        // No tagged fields in the header is all that brokers send.
        let header_bytes = if apis::is_flexible(head.api_key, head.version) {
            5
        } else {
            4
        };
        let trusts = lock(&self.conversation.trust).trusts(&shared.settings);
        if trusts
            && head.api_key == key::METADATA
            && frame.len() > header_bytes
            && let Some(broker) = self.conversation.fetches_from()
        {
            let body = frame.slice(header_bytes..);
            shared.cache.overhear(&broker, head.api_key, head.version, &body);
        }
    }

    /// Passes an answer on as it comes.
    async fn stream(&mut self, head: Head, size_bytes: usize) -> Result<(), End> {
        if size_bytes <= UPSTREAM_BUFFER_BYTES {
            let frame = self.whole(head, size_bytes).await?;
            return self.write(&[frame]).await;
        }
        let limits = &self.conversation.shared.settings.limits;
        let upstream = self.upstream.as_mut().ok_or_else(hung_up)?;
        let mut start = BytesMut::with_capacity(8);
        start.put_u32(u32::try_from(size_bytes).unwrap_or(u32::MAX));
        start.put_i32(head.correlation_id);
        let mut slices = [start.freeze()];
        self.conversation.shared.figures.sent(size_bytes);
        let mut left = size_bytes - CORRELATION_ID_BYTES;
        loop {
            write_slices(&mut self.writer, &slices, limits.idle_timeout)
                .await
                .map_err(of_client)?;
            if left == 0 {
                return Ok(());
            }
            let arrived = timeout(limits.idle_timeout, upstream.fill_buf()).await;
            let arrived = arrived.map_err(|_| hung_up())?.map_err(End::Upstream)?;
            if arrived.is_empty() {
                return Err(hung_up());
            }
            let taken = arrived.len().min(left);
            slices = [Bytes::copy_from_slice(arrived.get(..taken).unwrap_or_default())];
            upstream.consume(taken);
            left -= taken;
        }
    }

    /// The broker's own answer to a Fetch, if it was asked on the client's connection.
    async fn answer_upstream(&mut self, turn: &FetchTurn) -> Result<Option<Bytes>, End> {
        if !turn.is_upstream() {
            return Ok(None);
        }
        let size_bytes = self.begin(turn.head).await?;
        let shared = self.conversation.shared;
        let limits = &shared.settings.limits;
        if size_bytes > limits.response_size_bytes {
            return Err(End::Disorder);
        }
        let _memory = room(
            &shared.answers_room,
            limits.third_bytes(),
            size_bytes,
            limits.request_timeout,
        )
        .await?;
        self.whole(turn.head, size_bytes).await.map(Some)
    }

    /// Writes one response, without its size so far. Clients that take nothing are waited for as long as there is room.
    async fn write(&mut self, response: &[Bytes]) -> Result<(), End> {
        let shared = self.conversation.shared;
        let limits = &shared.settings.limits;
        let size_bytes: usize = response.iter().map(Bytes::len).sum();
        let size = i32::try_from(size_bytes).map_err(|_| End::Disorder)?;
        let kibibytes = u32::try_from(size_bytes / 1024).unwrap_or(u32::MAX);
        let place = shared.sending_room.try_acquire_many(kibibytes);
        let patience = if place.is_ok() || size_bytes <= SMALL_BYTES {
            limits.idle_timeout
        } else {
            limits.request_timeout
        };
        shared.figures.sent(size_bytes);
        let mut slices = Vec::with_capacity(1 + response.len());
        slices.push(Bytes::copy_from_slice(&size.to_be_bytes()));
        slices.extend(response.iter().cloned());
        write_slices(&mut self.writer, &slices, patience)
            .await
            .map_err(of_client)
    }
}

fn of_client(error: io::Error) -> End {
    if error.kind() == io::ErrorKind::TimedOut {
        End::Idle
    } else {
        End::Client(error)
    }
}

fn of_broker(broken: Broken) -> End {
    match broken {
        Broken::Slow => End::Upstream(io::ErrorKind::TimedOut.into()),
        Broken::Io(error) => End::Upstream(error),
    }
}
