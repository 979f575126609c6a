//! One connection to one broker: requests are pipelined, answers come in order.
//!
//! A caller writes its request itself if the socket takes it, which spares a change of tasks. One task, the
//! driver, does what has to wait: it reads, writes what a full socket has left over, and watches the deadlines.
//! It ends when the connection breaks or when its last owner drops it.
//!
//! An answer that cannot be decoded fails its own request and leaves the connection open: its frame says how long it is, so
//! what follows is in step, and others may be waiting for that. An answer with another correlation id than the one that is
//! due closes the connection, for it shows that frames or answers are out of step, and so does a length that no frame has.

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::frame::{FrameReader, Outgoing, api_name, correlation_id};
use super::sasl::{self, SessionEnd};
use super::stream::{ReadHalf, Stream, WriteHalf};
use super::versions::{self, ApiVersions};
use super::{BrokerAddress, TcpSettings, TransportError};

/// Slices in one system call; two a request.
const SLICES_PER_WRITE: usize = 64;
/// Longer waits are cut to this, so that adding one to the clock cannot overflow.
const LONGEST_WAIT: Duration = Duration::from_hours(30 * 24);

/// An open connection. Dropping it closes it.
pub(super) struct Connection {
    shared: Arc<Shared>,
    versions: Arc<ApiVersions>,
    /// When the broker wants another login; `None` for never.
    session_end: Option<SessionEnd>,
    driver: AbortHandle,
}

/// Why a request got no answer, and whether it may be sent again.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: TransportError,
    pub(super) again: Again,
}

/// Whether a request that failed may be sent again on another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// It failed for a reason that another connection does not mend, or the broker was at work on it.
    No,
    /// It was never sent.
    NotSent,
    /// The broker closed the connection, and has answered nothing since the connection was last idle. Most
    /// likely it never saw the request.
    Unanswered,
}

struct Shared {
    broker: BrokerAddress,
    client_id: StrBytes,
    request_timeout: Duration,
    /// Closed when the connection is.
    in_flight: Semaphore,
    /// Locked before `expected` when both are.
    outbox: Mutex<Outbox>,
    /// Tells the driver that something has been left in the outbox, or that writing failed.
    left_over: Notify,
    expected: Mutex<Expected>,
}

/// What is still to be written.
struct Outbox {
    /// `None` once the connection is closed.
    stream: Option<Arc<WriteHalf>>,
    slices: VecDeque<Bytes>,
    /// Writing failed; the driver closes the connection, once it has read what the broker may have said last.
    broken: Option<io::Error>,
    next_correlation_id: i32,
}

/// Answers that are due, in the order of the requests.
struct Expected {
    due: VecDeque<Due>,
    /// How long the broker may wait over all of `due` together: it works on one request after the other.
    broker_wait: Duration,
    /// Whether an answer has come since nothing was due.
    answered: bool,
    closed: Option<TransportError>,
}

struct Due {
    correlation_id: i32,
    api_key: i16,
    broker_wait: Duration,
    allowed: Duration,
    deadline: Instant,
    reply: oneshot::Sender<Result<Bytes, Failure>>,
}

impl Connection {
    /// Takes over a stream, asks for the broker's versions, and logs in if there is a login.
    pub(super) async fn open(
        stream: Stream,
        broker: &BrokerAddress,
        settings: &TcpSettings,
    ) -> Result<Self, TransportError> {
        let (read_half, write_half) = stream.into_split();
        let shared = Arc::new(Shared::new(write_half, broker, settings));
        let frames = FrameReader::new(broker.clone(), settings.response_limit_bytes);
        let driver = tokio::spawn(drive(Arc::clone(&shared), read_half, frames)).abort_handle();
        let mut connection = Self {
            shared,
            versions: Arc::default(),
            session_end: None,
            driver,
        };
        connection.versions = Arc::new(versions::ask(&connection, broker).await?);
        if let Some(credentials) = &settings.security.sasl {
            connection.session_end =
                sasl::log_in(&connection, broker, credentials, settings.request_timeout).await?;
        }
        Ok(connection)
    }

    pub(super) fn versions(&self) -> &Arc<ApiVersions> {
        &self.versions
    }

    /// Whether no answer is due.
    pub(super) fn is_idle(&self) -> bool {
        lock(&self.shared.expected).due.is_empty()
    }

    pub(super) fn is_open(&self) -> bool {
        lock(&self.shared.expected).closed.is_none()
    }

    /// Whether another connection had better take its place soon, because the broker wants another login.
    pub(super) fn nears_its_end(&self, now: Instant) -> bool {
        self.session_end.is_some_and(|end| now >= end.replace_at)
    }

    /// Whether the broker may close it at the next request for want of a login.
    pub(super) fn has_ended(&self, now: Instant) -> bool {
        self.session_end.is_some_and(|end| now >= end.unusable_at)
    }

    /// Sends a request, once there is room for it, and gives the response with its header. Dropping the future
    /// gives up the answer.
    pub(super) async fn request(&self, outgoing: &Outgoing) -> Result<Bytes, Failure> {
        let Ok(permit) = self.shared.in_flight.acquire().await else {
            return Err(self.shared.not_sent());
        };
        // There may not have been room for long.
        if self.has_ended(Instant::now()) {
            return Err(self.shared.not_sent());
        }
        let answer = self.shared.send(outgoing)?;
        // From here on the place is held by the answer that is due, whether or not the caller waits for it.
        permit.forget();
        answer.await.unwrap_or_else(|_| Err(self.shared.not_answered()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Shared {
    fn new(write_half: WriteHalf, broker: &BrokerAddress, settings: &TcpSettings) -> Self {
        Self {
            broker: broker.clone(),
            client_id: StrBytes::from_string(settings.client_id.clone()),
            request_timeout: settings.request_timeout,
            in_flight: Semaphore::new(settings.in_flight_limit.clamp(1, Semaphore::MAX_PERMITS)),
            outbox: Mutex::new(Outbox {
                stream: Some(Arc::new(write_half)),
                slices: VecDeque::new(),
                broken: None,
                next_correlation_id: 0,
            }),
            left_over: Notify::new(),
            expected: Mutex::new(Expected {
                due: VecDeque::new(),
                broker_wait: Duration::ZERO,
                answered: false,
                closed: None,
            }),
        }
    }

    /// Notes that an answer is due, and writes the request or leaves it to the driver.
    fn send(&self, outgoing: &Outgoing) -> Result<oneshot::Receiver<Result<Bytes, Failure>>, Failure> {
        let (reply, answer) = oneshot::channel();
        let mut outbox = lock(&self.outbox);
        let correlation_id = outbox.next_correlation_id;
        let head = outgoing
            .head(&self.broker, &self.client_id, correlation_id)
            .map_err(|error| Failure {
                error,
                again: Again::No,
            })?;
        self.register(correlation_id, outgoing, reply)?;
        outbox.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let was_empty = outbox.slices.is_empty();
        outbox.slices.extend(
            [head, outgoing.body().clone()]
                .into_iter()
                .filter(|slice| !slice.is_empty()),
        );
        // With something in front of it, the driver knows already.
        if was_empty && !outbox.flush() {
            self.left_over.notify_one();
        }
        Ok(answer)
    }

    fn register(
        &self,
        correlation_id: i32,
        outgoing: &Outgoing,
        reply: oneshot::Sender<Result<Bytes, Failure>>,
    ) -> Result<(), Failure> {
        let mut expected = lock(&self.expected);
        if let Some(error) = &expected.closed {
            return Err(Failure {
                error: error.clone(),
                again: Again::NotSent,
            });
        }
        let broker_wait = outgoing.broker_wait();
        expected.answered &= !expected.due.is_empty();
        expected.broker_wait = expected.broker_wait.saturating_add(broker_wait);
        let allowed = self
            .request_timeout
            .saturating_add(expected.broker_wait)
            .min(LONGEST_WAIT);
        let deadline = Instant::now() + allowed;
        let api_key = outgoing.api_key();
        expected.due.push_back(Due {
            correlation_id,
            api_key,
            broker_wait,
            allowed,
            deadline,
            reply,
        });
        Ok(())
    }

    /// Hands a response to the caller whose turn it is. A caller who has given up does not matter here.
    fn deliver(&self, response: Bytes) -> Result<(), TransportError> {
        let correlation_id = correlation_id(&response);
        let mut expected = lock(&self.expected);
        let due = match expected.due.pop_front() {
            Some(due) if due.correlation_id == correlation_id => due,
            other => {
                let what = match &other {
                    Some(due) => format!(
                        "an answer with correlation id {correlation_id} where {} was due",
                        due.correlation_id
                    ),
                    None => format!("an answer with correlation id {correlation_id} to no request"),
                };
                expected.due.extend(other);
                return Err(TransportError::NotKafka {
                    broker: self.broker.clone(),
                    what,
                });
            }
        };
        expected.answered = true;
        expected.broker_wait = expected.broker_wait.saturating_sub(due.broker_wait);
        drop(expected);
        self.in_flight.add_permits(1);
        let _given_up = due.reply.send(Ok(response));
        Ok(())
    }

    /// When to look for overdue answers again. No later than any deadline, those of future requests included,
    /// so that sending one need not tell the driver.
    fn next_check(&self, now: Instant) -> Instant {
        let at_most = now + self.request_timeout.min(LONGEST_WAIT);
        lock(&self.expected)
            .due
            .iter()
            .map(|due| due.deadline)
            .fold(at_most, Instant::min)
    }

    /// Fails what is overdue. The rest cannot be answered any more either, since a broker answers in order; the
    /// error is for that.
    fn expire(&self, now: Instant) -> Result<(), TransportError> {
        let mut expected = lock(&self.expected);
        if expected.due.iter().all(|due| due.deadline > now) {
            return Ok(());
        }
        let (overdue, due) = expected.due.drain(..).partition(|due: &Due| due.deadline <= now);
        expected.due = due;
        let api = overdue
            .front()
            .map_or("a request", |due: &Due| api_name(due.api_key));
        let message = format!("it was given up because {api} was not answered in time");
        let source = Arc::new(io::Error::new(io::ErrorKind::TimedOut, message));
        let error = TransportError::Connection {
            broker: self.broker.clone(),
            source,
        };
        // Before anybody hears of it, so that a retry finds the connection closed.
        expected.closed = Some(error.clone());
        drop(expected);
        for due in overdue {
            let broker = self.broker.clone();
            let error = TransportError::Timeout {
                broker,
                api: api_name(due.api_key),
                timeout: due.allowed,
            };
            let _given_up = due.reply.send(Err(Failure {
                error,
                again: Again::No,
            }));
        }
        Err(error)
    }

    /// Fails everything that is due and whoever waits for room. Only the first error counts.
    fn close(&self, error: TransportError, again: Again) {
        let mut expected = lock(&self.expected);
        let error = expected.closed.get_or_insert(error).clone();
        let again = if expected.answered { Again::No } else { again };
        let due = core::mem::take(&mut expected.due);
        drop(expected);
        let mut outbox = lock(&self.outbox);
        outbox.stream = None;
        outbox.slices.clear();
        drop(outbox);
        self.in_flight.close();
        for due in due {
            let _given_up = due.reply.send(Err(Failure {
                error: error.clone(),
                again,
            }));
        }
    }

    fn not_sent(&self) -> Failure {
        Failure {
            again: Again::NotSent,
            ..self.not_answered()
        }
    }

    fn not_answered(&self) -> Failure {
        let closed = lock(&self.expected).closed.clone();
        let error = closed.unwrap_or_else(|| TransportError::Closed {
            broker: self.broker.clone(),
        });
        Failure {
            error,
            again: Again::No,
        }
    }

    /// Waits until something is left over and the socket takes more of it. What TLS holds is not counted: reading
    /// sees to that, and is polled with this.
    async fn writable(&self) -> io::Result<()> {
        loop {
            let stream = {
                let mut outbox = lock(&self.outbox);
                if let Some(error) = outbox.broken.take() {
                    return Err(error);
                }
                outbox.stream.clone().filter(|_| !outbox.slices.is_empty())
            };
            match stream {
                Some(stream) => return stream.writable().await,
                None => self.left_over.notified().await,
            }
        }
    }
}

impl Outbox {
    /// Writes what the socket takes, and says whether that was all.
    fn flush(&mut self) -> bool {
        let Some(stream) = &self.stream else { return true };
        match write_all(stream, &mut self.slices) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => {
                self.broken = Some(error);
                self.slices.clear();
                false
            }
        }
    }
}

/// Fails with `WouldBlock` where the socket is full.
fn write_all(stream: &WriteHalf, left: &mut VecDeque<Bytes>) -> io::Result<()> {
    while !left.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
        let count = slices
            .iter_mut()
            .zip(&*left)
            .map(|(to, from)| *to = IoSlice::new(from))
            .count();
        match stream.try_write_vectored(&slices[..count]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written_bytes) => advance(left, written_bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.try_flush()
}

/// Takes written bytes off the front.
fn advance(slices: &mut VecDeque<Bytes>, mut written_bytes: usize) {
    while let Some(slice) = slices.front_mut() {
        if slice.len() > written_bytes {
            slice.advance(written_bytes);
            return;
        }
        written_bytes -= slice.len();
        slices.pop_front();
    }
}

/// Closes the connection whatever ends the driver, be it the end of the runtime it runs on.
struct CloseAtEnd {
    shared: Arc<Shared>,
    outcome: Option<(TransportError, Again)>,
}

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        let broker = &self.shared.broker;
        if let Some((error, again)) = self.outcome.take() {
            debug!(%broker, reason = %error, "connection closed");
            self.shared.close(error, again);
        } else {
            debug!(%broker, reason = "it is not needed any more", "connection closed");
            self.shared.close(
                TransportError::Closed {
                    broker: broker.clone(),
                },
                Again::No,
            );
        }
    }
}

async fn drive(shared: Arc<Shared>, mut read_half: ReadHalf, mut frames: FrameReader) {
    let mut guard = CloseAtEnd {
        shared,
        outcome: None,
    };
    let outcome = match run(&guard.shared, &mut read_half, &mut frames).await {
        Ended::Failed(error) => (error, Again::No),
        Ended::ByBroker(Some(error)) if frames.partial_bytes() == 0 => (
            TransportError::from_stream(&guard.shared.broker, error),
            Again::Unanswered,
        ),
        Ended::ByBroker(_) if frames.partial_bytes() == 0 => (frames.end_of_stream(), Again::Unanswered),
        Ended::ByBroker(_) => (frames.end_of_stream(), Again::No),
    };
    guard.outcome = Some(outcome);
}

/// How a connection ends.
enum Ended {
    /// By the other side, with the operating system's error if it was not closed in order.
    ByBroker(Option<io::Error>),
    /// Given up here.
    Failed(TransportError),
}

async fn run(shared: &Shared, read_half: &mut ReadHalf, frames: &mut FrameReader) -> Ended {
    let check = sleep_until(shared.next_check(Instant::now()));
    tokio::pin!(check);
    loop {
        tokio::select! {
            biased;
            () = &mut check => {
                let now = Instant::now();
                if let Err(error) = shared.expire(now) {
                    return Ended::Failed(error);
                }
                check.as_mut().reset(shared.next_check(now));
            }
            // Before writing: what a broker says before it closes tells more than a write that fails.
            read = frames.fill(read_half) => match read {
                Ok(0) => return Ended::ByBroker(None),
                Ok(_) => {
                    if let Err(error) = deliver_all(shared, frames) {
                        return Ended::Failed(error);
                    }
                }
                Err(error) => return Ended::ByBroker(Some(error)),
            },
            writable = shared.writable() => match writable {
                Ok(()) => {
                    lock(&shared.outbox).flush();
                }
                Err(error) => return Ended::ByBroker(Some(error)),
            },
        }
    }
}

fn deliver_all(shared: &Shared, frames: &mut FrameReader) -> Result<(), TransportError> {
    while let Some(response) = frames.next()? {
        shared.deliver(response)?;
    }
    Ok(())
}

/// What these locks guard is whole between any two statements, so a panic elsewhere does not spoil it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
