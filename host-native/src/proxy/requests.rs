//! The way of a client's requests.

use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use kachet_core::wire::{Chunks, FetchRequest, FetchResponse, WireStr};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::apis::{self, key};
use super::brokers::Home;
use super::conversation::{Conversation, Expected, Heard, hung_up, room};
use super::fetch::{self, FetchTurn, Way};
use super::limits::End;
use super::request::{self, HEAD_BYTES, Head, PRODUCE_START_BYTES};
use super::wire::{Broken, is_at_end, read_array, read_onto};
use super::{lock, offline, rewrite};
use crate::transport::raw::{RawWriter, open_raw};
use crate::transport::{BrokerAddress, Transport};

/// Of brokers that could be any, this many are tried.
const ADDRESSES_TRIED: usize = 8;

/// For a sign of life of another broker.
const OTHERS_PATIENCE: core::time::Duration = core::time::Duration::from_secs(2);
/// A fetch on the client's own connection is of so many bytes at most, because all of it is held while it comes in and
/// none of it is cached.
const OWN_FETCH_BYTES: i32 = 1 << 20;

/// Reads requests and sees where they go.
pub(super) struct Requests<'c, 's, T, R> {
    conversation: &'c Conversation<'s, T>,
    reader: R,
    expect: mpsc::Sender<Expected>,
    upstream: Option<RawWriter>,
}

/// A request of which the beginning has been read.
struct Begun {
    head: Head,
    /// The frame without its size, as far as it has been read.
    start: Vec<u8>,
    size_bytes: usize,
}

impl<'c, 's, T: Transport, R: AsyncBufRead + Unpin + Send> Requests<'c, 's, T, R> {
    pub(super) fn new(
        conversation: &'c Conversation<'s, T>,
        reader: R,
        expect: mpsc::Sender<Expected>,
    ) -> Self {
        Self {
            conversation,
            reader,
            expect,
            upstream: None,
        }
    }

    /// Expects nothing more, and gives the connection to the broker.
    pub(super) fn end(self) -> Option<RawWriter> {
        self.upstream
    }

    pub(super) async fn pass_on(&mut self) -> Result<Heard, End> {
        let mut is_first = true;
        loop {
            if let Some(heard) = self.wait(is_first).await? {
                return Ok(heard);
            }
            is_first = false;
            let begun = self.begin().await?;
            self.conversation.shared.figures.one_request(begun.head.api_key);
            match begun.head.api_key {
                key::FETCH => self.fetch(begun).await?,
                key::API_VERSIONS => self.api_versions(begun).await?,
                key::METADATA => self.metadata(begun).await?,
                key::PRODUCE => self.produce(begun).await?,
                key::SASL_HANDSHAKE | key::SASL_AUTHENTICATE => {
                    lock(&self.conversation.trust).has_authenticated();
                    self.conversation.is_stateful.store(true, Ordering::Relaxed);
                    self.forward(begun, true).await?;
                }
                _ => self.forward(begun, true).await?,
            }
        }
    }

    /// Waits for the next request, or for the end. As long as answers are due a client may say nothing.
    async fn wait(&mut self, is_first: bool) -> Result<Option<Heard>, End> {
        let limits = &self.conversation.shared.settings.limits;
        let (patience, late) = if is_first {
            (limits.request_timeout, End::Slow)
        } else {
            (limits.idle_timeout, End::Idle)
        };
        loop {
            tokio::select! {
                at_end = is_at_end(&mut self.reader) => {
                    return Ok(at_end.map_err(End::Client)?.then_some(Heard::Left));
                }
                () = self.conversation.shared.stopped() => return Ok(Some(Heard::Stopped)),
                () = tokio::time::sleep(patience) => {
                    if !self.conversation.is_waiting_for_answers() {
                        return Err(late);
                    }
                }
            }
        }
    }

    async fn begin(&mut self) -> Result<Begun, End> {
        let limits = &self.conversation.shared.settings.limits;
        let patience = limits.request_timeout;
        let size = read_array(&mut self.reader, patience).await.map_err(of_client)?;
        let size = i32::from_be_bytes(size);
        let accepted = HEAD_BYTES..=limits.request_size_bytes;
        let size_bytes = usize::try_from(size).ok().filter(|size| accepted.contains(size));
        let size_bytes = size_bytes.ok_or(End::RequestSize(size.into()))?;
        let start: [u8; HEAD_BYTES] = read_array(&mut self.reader, patience).await.map_err(of_client)?;
        Ok(Begun {
            head: Head::parse(&start)?.check()?,
            start: start.to_vec(),
            size_bytes,
        })
    }

    /// The whole frame, without its size.
    async fn whole(&mut self, mut begun: Begun) -> Result<Bytes, End> {
        let patience = self.conversation.shared.settings.limits.request_timeout;
        let all = read_onto(&mut self.reader, &mut begun.start, begun.size_bytes, patience);
        // On top, a pace of at least 64 KiB a second, since others may wait for the room.
        let pace = core::time::Duration::from_secs((begun.size_bytes >> 16) as u64);
        match timeout(patience + pace, all).await {
            Ok(read) => read.map_err(of_client)?,
            Err(_) => return Err(End::Slow),
        }
        Ok(begun.start.into())
    }

    async fn enqueue(&self, expected: Expected) -> Result<(), End> {
        if !matches!(expected, Expected::Upstream(_)) {
            self.conversation.one_more();
        }
        // Closed only where the answers have ended, whose reason counts.
        self.expect.send(expected).await.map_err(|_| hung_up())
    }

    /// Passes on a request, whose answer is expected unless there will be none.
    async fn forward(&mut self, begun: Begun, is_answered: bool) -> Result<(), End> {
        self.connect().await?;
        if is_answered {
            self.enqueue(Expected::Forwarded(begun.head)).await?;
        }
        let limits = &self.conversation.shared.settings.limits;
        let upstream = self.upstream.as_ref().ok_or_else(hung_up)?;
        let mut start = Vec::with_capacity(4 + begun.start.len());
        start.put_u32(u32::try_from(begun.size_bytes).unwrap_or(u32::MAX));
        start.extend_from_slice(&begun.start);
        let mut left = begun.size_bytes - begun.start.len();
        while left > 0 {
            let arrived = timeout(limits.request_timeout, self.reader.fill_buf()).await;
            let arrived = arrived.map_err(|_| End::Slow)?.map_err(End::Client)?;
            if arrived.is_empty() {
                return Err(End::Client(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let taken = arrived.len().min(left);
            // The first of it goes with the beginning, so that a small request is one write.
            start.extend_from_slice(arrived.get(..taken).unwrap_or_default());
            self.reader.consume(taken);
            left -= taken;
            let written = upstream.write_all(&start, limits.idle_timeout).await;
            written.map_err(End::Upstream)?;
            start.clear();
        }
        let written = upstream.write_all(&start, limits.idle_timeout).await;
        written.map_err(End::Upstream)
    }

    async fn produce(&mut self, mut begun: Begun) -> Result<(), End> {
        let patience = self.conversation.shared.settings.limits.request_timeout;
        let needed = begun.size_bytes.min(PRODUCE_START_BYTES);
        let mut is_answered = request::produce_is_answered(&begun.start, begun.head.version);
        // Mostly the first few bytes tell.
        let mut wanted = 128;
        while is_answered.is_err() && begun.start.len() < needed {
            let size_bytes = needed.min(wanted);
            read_onto(&mut self.reader, &mut begun.start, size_bytes, patience)
                .await
                .map_err(of_client)?;
            is_answered = request::produce_is_answered(&begun.start, begun.head.version);
            wanted *= 4;
        }
        let is_answered = is_answered?;
        if !is_answered {
            // The broker tells of a failure only by closing the connection.
            self.conversation.is_stateful.store(true, Ordering::Relaxed);
        }
        self.forward(begun, is_answered).await
    }

    async fn api_versions(&mut self, begun: Begun) -> Result<(), End> {
        let head = begun.head;
        let is_spoken = apis::spoken(key::API_VERSIONS).is_some_and(|spoken| spoken.contains(&head.version));
        if !is_spoken {
            self.whole_small(begun).await?;
            return self
                .enqueue(Expected::Ready(apis::unsupported_api_versions(
                    head.correlation_id,
                )))
                .await;
        }
        match self.connect().await {
            Ok(()) => self.forward(begun, true).await,
            // So that what is cached can be asked for while there is no broker.
            Err(end @ (End::Unreachable(_) | End::NoBroker)) => {
                if !self.tells_what_it_knows().await {
                    return Err(end);
                }
                let known = self.known_versions(head.version).await.ok_or(end)?;
                self.whole_small(begun).await?;
                let mut response = BytesMut::with_capacity(4 + known.len());
                response.put_i32(head.correlation_id);
                response.put_slice(&known);
                self.enqueue(Expected::Ready(response.freeze())).await
            }
            Err(end) => Err(end),
        }
    }

    /// Whether clients are told what brokers said last: if the cache may tell it however old it is, nobody logs in, and no
    /// broker of the cluster can be reached. A single broker that is dead has to look dead: clients prefer one that seems
    /// idle, and would go on asking it where everything is.
    async fn tells_what_it_knows(&self) -> bool {
        let shared = self.conversation.shared;
        let knows = |broker: &BrokerAddress| shared.cache.topology(broker, &[]).is_some();
        let is_known = self.conversation.fetches_from().as_ref().is_some_and(knows);
        if !lock(&self.conversation.trust).trusts(&shared.settings) || !is_known {
            return false;
        }
        let own = self.conversation.addresses();
        let others = shared.brokers.upstream(Home::Any);
        for address in others
            .iter()
            .filter(|address| !own.contains(address))
            .take(ADDRESSES_TRIED)
        {
            let opened = timeout(OTHERS_PATIENCE, open_raw(address, &shared.settings.tcp)).await;
            if matches!(opened, Ok(Ok(_))) {
                return false;
            }
        }
        true
    }

    /// What a broker answered last, or what the cache knows from the last time.
    async fn known_versions(&self, version: i16) -> Option<Bytes> {
        let shared = self.conversation.shared;
        if let Some(known) = shared.known_versions(version) {
            return Some(known);
        }
        let broker = self.conversation.fetches_from()?;
        let known = shared.cache.api_versions(&broker).await.ok()?;
        Some(apis::known_api_versions(version, &known))
    }

    /// Metadata is the cluster's, or where it does not answer and nobody has logged in, what it said last.
    async fn metadata(&mut self, begun: Begun) -> Result<(), End> {
        let end = match self.connect().await {
            Ok(()) => return self.forward(begun, true).await,
            Err(end @ (End::Unreachable(_) | End::NoBroker)) => end,
            Err(end) => return Err(end),
        };
        let (head, shared) = (begun.head, self.conversation.shared);
        if !self.tells_what_it_knows().await {
            return Err(end);
        }
        let frame = self.whole_small(begun).await?;
        let told = self
            .conversation
            .fetches_from()
            .and_then(|broker| offline::metadata(&shared.cache, &broker, head, &frame));
        let response = told.ok_or(end)?;
        let to_client = self.conversation.to_client();
        let response = rewrite::addresses(head.api_key, head.version, &response, &to_client)?;
        self.enqueue(Expected::Ready(response)).await
    }

    /// A request that is held whole in any case.
    async fn whole_small(&mut self, begun: Begun) -> Result<Bytes, End> {
        if begun.size_bytes > PRODUCE_START_BYTES {
            return Err(End::RequestSize(
                i64::try_from(begun.size_bytes).unwrap_or(i64::MAX),
            ));
        }
        self.whole(begun).await
    }

    async fn fetch(&mut self, begun: Begun) -> Result<(), End> {
        let (head, shared) = (begun.head, self.conversation.shared);
        let limits = &shared.settings.limits;
        // Decoded it takes a few times as much.
        let size_bytes = begun.size_bytes.saturating_mul(4);
        let memory = room(
            &shared.requests_room,
            limits.third_bytes(),
            size_bytes,
            limits.request_timeout,
        )
        .await?;
        let frame = self.whole(begun).await?;
        let (header, body) = request::split_fetch(&frame, head.version)?;
        let request = FetchRequest::decode(body, head.version).map_err(|error| End::Request {
            api: "Fetch",
            reason: error.to_string(),
        })?;
        let resolved = lock(&self.conversation.sessions).resolve(head.version, request);
        let (mut request, answering) = match resolved {
            Ok(resolved) => resolved,
            Err(error_code) => {
                let response = FetchResponse {
                    error_code,
                    ..FetchResponse::default()
                };
                let response = fetch::encoded(head, &response)?;
                return self
                    .enqueue(Expected::Ready(response.into_iter().flatten().collect()))
                    .await;
            }
        };
        // No rack: a redirection to a follower is not the client's to follow (H16).
        request.rack_id = WireStr::default();
        request.max_bytes = request.max_bytes.min(limits.fetch_size_bytes);
        let may_be_cached = lock(&self.conversation.trust).allows(&shared.settings, &request);
        let mut turn = Box::new(FetchTurn {
            head,
            request,
            answering,
            way: Way::Cache,
            memory,
        });
        if may_be_cached {
            return self.enqueue(Expected::Fetch(turn)).await;
        }
        turn.way = Way::Upstream;
        // It is asked whether the client may read; what it reads next comes by the cache.
        turn.request.max_bytes = turn.request.max_bytes.min(OWN_FETCH_BYTES);
        self.fetch_upstream(turn, &header).await
    }

    /// Sends a Fetch to the broker on the client's own connection.
    async fn fetch_upstream(&mut self, turn: Box<FetchTurn>, header: &[u8]) -> Result<(), End> {
        let mut body = Chunks::new();
        turn.request
            .encode(turn.head.version, &mut body)
            .map_err(End::FetchResponse)?;
        self.connect().await?;
        self.enqueue(Expected::Fetch(turn)).await?;
        let body = body.into_bytes();
        let mut frame = BytesMut::with_capacity(4 + header.len() + body.len());
        frame.put_u32(u32::try_from(header.len() + body.len()).unwrap_or(u32::MAX));
        frame.put_slice(header);
        frame.put_slice(&body);
        let upstream = self.upstream.as_ref().ok_or_else(hung_up)?;
        let patience = self.conversation.shared.settings.limits.idle_timeout;
        let written = upstream.write_all(&frame, patience).await;
        written.map_err(End::Upstream)
    }

    /// Sees that there is a connection to the broker. One that was closed while nothing was due has a successor, unless
    /// the broker knew something by it.
    async fn connect(&mut self) -> Result<(), End> {
        let conversation = self.conversation;
        if self.upstream.is_some() {
            if conversation.upstream_is_open.load(Ordering::Relaxed) {
                return Ok(());
            }
            if conversation.is_stateful.load(Ordering::Relaxed) {
                return Err(hung_up());
            }
        }
        let mut failure = End::NoBroker;
        for address in conversation.addresses().into_iter().take(ADDRESSES_TRIED) {
            match open_raw(&address, &conversation.shared.settings.tcp).await {
                Ok((reader, writer)) => {
                    conversation.has_connected_to(address);
                    self.upstream = Some(writer);
                    return self.enqueue(Expected::Upstream(reader)).await;
                }
                Err(error) => {
                    debug!(broker = %address, reason = %error, "not connected for a client");
                    failure = End::Unreachable(error);
                }
            }
        }
        Err(failure)
    }
}

fn of_client(broken: Broken) -> End {
    match broken {
        Broken::Slow => End::Slow,
        Broken::Io(error) => End::Client(error),
    }
}
