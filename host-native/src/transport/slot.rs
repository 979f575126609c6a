//! The connections to one broker: how many there are, when they are replaced, and when none is tried.

use core::time::Duration;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::connect::open;
use super::connection::{Connection, lock};
use super::{BrokerAddress, TcpSettings, TransportError};

/// The connections to one broker.
pub(super) struct Broker {
    site: Arc<Site>,
    /// For requests that are answered at once.
    prompt: Arc<Slot>,
    /// For requests that the broker may hold back.
    waiting: Mutex<Vec<Arc<Slot>>>,
}

/// What the connections to one broker share.
struct Site {
    broker: BrokerAddress,
    settings: Arc<TcpSettings>,
    /// Set by an attempt that failed, cleared by one that did not.
    hold_back: Mutex<Option<HoldBack>>,
    /// Held by whoever logs in, so that those behind share the refusal of the first.
    login: tokio::sync::Mutex<()>,
}

/// Until when no connection is tried, because the last attempts failed.
struct HoldBack {
    until: Instant,
    error: TransportError,
    failures: u32,
}

/// The place of one connection.
pub(super) struct Slot {
    site: Arc<Site>,
    /// How many callers have chosen it for a request that the broker may hold back.
    chosen: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connection, though it may have been closed since, or may need a successor.
    connection: Option<Arc<Connection>>,
    /// An attempt at another one, for everybody who waits.
    attempt: Option<Attempt>,
}

type Opened = Result<Arc<Connection>, TransportError>;
type Attempt = watch::Receiver<Option<Opened>>;

/// A connection, and whether it was there before.
pub(super) struct Found {
    pub(super) connection: Arc<Connection>,
    pub(super) kept: bool,
}

/// A connection that was chosen for a request.
pub(super) struct Chosen {
    slot: Arc<Slot>,
}

impl Chosen {
    fn new(slot: &Arc<Slot>) -> Self {
        slot.chosen.fetch_add(1, Ordering::Relaxed);
        Self {
            slot: Arc::clone(slot),
        }
    }

    pub(super) fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.slot.chosen.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Broker {
    pub(super) fn new(broker: &BrokerAddress, settings: &Arc<TcpSettings>) -> Self {
        let site = Arc::new(Site::new(broker, settings));
        Self {
            prompt: Arc::new(Slot::new(&site)),
            waiting: Mutex::default(),
            site,
        }
    }

    pub(super) fn prompt(&self) -> &Arc<Slot> {
        &self.prompt
    }

    /// The connection for a request that the broker may hold back for so long: one on which nothing else waits, as
    /// long as there may be another.
    pub(super) fn choose(&self, broker_wait: Duration) -> Chosen {
        let limit = self.site.settings.waiting_connections_limit;
        if broker_wait.is_zero() || limit == 0 {
            return Chosen::new(&self.prompt);
        }
        let mut waiting = lock(&self.waiting);
        if let Some(free) = waiting.iter().find(|slot| slot.is_free()) {
            return Chosen::new(free);
        }
        if waiting.len() < limit {
            let new = Arc::new(Slot::new(&self.site));
            waiting.push(Arc::clone(&new));
            return Chosen::new(&new);
        }
        let least = waiting
            .iter()
            .min_by_key(|slot| slot.chosen.load(Ordering::Relaxed));
        Chosen::new(least.unwrap_or(&self.prompt))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.prompt.is_open() || lock(&self.waiting).iter().any(|slot| slot.is_open())
    }
}

impl Slot {
    fn new(site: &Arc<Site>) -> Self {
        Self {
            site: Arc::clone(site),
            chosen: AtomicUsize::new(0),
            state: Mutex::default(),
        }
    }

    /// Whether no request is under way, nor one that a caller has given up and the broker still holds back.
    fn is_free(&self) -> bool {
        let state = lock(&self.state);
        let idle = state
            .connection
            .as_ref()
            .is_none_or(|connection| connection.is_idle());
        idle && self.chosen.load(Ordering::Relaxed) == 0
    }

    fn is_open(&self) -> bool {
        let state = lock(&self.state);
        state
            .connection
            .as_ref()
            .is_some_and(|connection| connection.is_open())
    }

    /// The connection that is there, or the outcome of the attempt that is under way, which this may start.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<Found, TransportError> {
        let mut attempt = match self.look() {
            Look::Found(connection) => {
                return Ok(Found {
                    connection,
                    kept: true,
                });
            }
            Look::HeldBack(error) => return Err(error),
            Look::Opening(attempt) => attempt,
        };
        let opened = attempt
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|opened| opened.clone());
        // None if the runtime of the attempt has ended.
        let closed = || {
            Err(TransportError::Closed {
                broker: self.site.broker.clone(),
            })
        };
        opened.unwrap_or_else(closed).map(|connection| Found {
            connection,
            kept: false,
        })
    }

    /// A connection that nears its end is used on while another is opened, so that nobody waits for that and nobody
    /// fails if it does not come about yet.
    fn look(self: &Arc<Self>) -> Look {
        let now = Instant::now();
        let mut state = lock(&self.state);
        state
            .connection
            .take_if(|connection| !connection.is_open() || connection.has_ended(now));
        let usable = state.connection.clone();
        if let Some(connection) = usable
            .as_ref()
            .filter(|connection| !connection.nears_its_end(now))
        {
            return Look::Found(Arc::clone(connection));
        }
        let under_way = state
            .attempt
            .clone()
            .filter(|attempt| attempt.has_changed().is_ok());
        let otherwise = match (under_way, self.site.held_back(now)) {
            (Some(attempt), _) => Look::Opening(attempt),
            (None, Some(error)) => Look::HeldBack(error),
            (None, None) => Look::Opening(self.start(&mut state)),
        };
        usable.map_or(otherwise, Look::Found)
    }

    fn start(self: &Arc<Self>, state: &mut State) -> Attempt {
        let (outcome, attempt) = watch::channel(None);
        state.attempt = Some(attempt.clone());
        // A task of its own, so that it goes on when the caller who started it gives up.
        let slot = Arc::clone(self);
        tokio::spawn(async move {
            let opened = slot.site.open().await;
            slot.settle(opened.as_ref().ok());
            outcome.send_replace(Some(opened));
        });
        attempt
    }

    fn settle(&self, opened: Option<&Arc<Connection>>) {
        let mut state = lock(&self.state);
        state.attempt = None;
        if let Some(connection) = opened {
            state.connection = Some(Arc::clone(connection));
        }
    }
}

enum Look {
    Found(Arc<Connection>),
    Opening(Attempt),
    HeldBack(TransportError),
}

impl Site {
    fn new(broker: &BrokerAddress, settings: &Arc<TcpSettings>) -> Self {
        Self {
            broker: broker.clone(),
            settings: Arc::clone(settings),
            hold_back: Mutex::default(),
            login: tokio::sync::Mutex::default(),
        }
    }

    /// A new connection.
    async fn open(&self) -> Opened {
        let _turn = match &self.settings.security.sasl {
            Some(_) => Some(self.login.lock().await),
            None => None,
        };
        if let Some(error) = self.held_back(Instant::now()) {
            return Err(error);
        }
        match open(&self.broker, &self.settings).await {
            Ok(connection) => {
                debug!(broker = %self.broker, "connected");
                self.has_connected();
                Ok(Arc::new(connection))
            }
            Err(error) => {
                debug!(broker = %self.broker, reason = %error, "not connected");
                self.has_failed(&error);
                Err(error)
            }
        }
    }

    /// The error of the last attempt, if another one has to wait.
    fn held_back(&self, now: Instant) -> Option<TransportError> {
        let hold_back = lock(&self.hold_back);
        let last = hold_back.as_ref().filter(|last| now < last.until);
        last.map(|last| last.error.clone())
    }

    fn has_connected(&self) {
        *lock(&self.hold_back) = None;
    }

    fn has_failed(&self, error: &TransportError) {
        let now = Instant::now();
        let mut hold_back = lock(&self.hold_back);
        let failures = match &*hold_back {
            // Attempts that were under way together fail as one.
            Some(last) if now < last.until => last.failures.saturating_sub(1),
            // Another kind of failure begins anew, with a back-off of its own.
            Some(last) if last.error.is_refusal() == error.is_refusal() => last.failures,
            _ => 0,
        };
        *hold_back = Some(HoldBack {
            until: now + self.backoff(failures, error.is_refusal()),
            error: error.clone(),
            failures: failures.saturating_add(1),
        });
    }

    /// How long to wait after so many earlier failures: half of it for certain, half at random, so that many
    /// clients do not return to a broker at one moment.
    fn backoff(&self, failures: u32, refused: bool) -> Duration {
        let settings = &self.settings;
        let (least, most) = if refused {
            (settings.refusal_backoff_min, settings.refusal_backoff_max)
        } else {
            (settings.backoff_min, settings.backoff_max)
        };
        let whole = least
            .saturating_mul(1 << failures.min(16))
            .min(most)
            .min(Duration::from_hours(1));
        whole.mul_f64(0.5 + 0.5 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::sasl::SaslError;

    fn site() -> Site {
        let broker = BrokerAddress {
            host: "b".into(),
            port: 1,
        };
        Site::new(&broker, &Arc::default())
    }

    #[test]
    fn back_off_doubles_up_to_its_limit_with_jitter() {
        for (refused, failures, most_ms) in [
            (false, 0, 50),
            (false, 1, 100),
            (false, 4, 800),
            (false, 5, 1_000),
            (false, u32::MAX, 1_000),
            (true, 0, 1_000),
            (true, 1, 2_000),
            (true, u32::MAX, 30_000),
        ] {
            for _ in 0..100 {
                let backoff_ms = site().backoff(failures, refused).as_millis();
                assert!(
                    (most_ms / 2..=most_ms).contains(&backoff_ms),
                    "{failures}: {backoff_ms}"
                );
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_fail_together_count_once_and_a_refusal_begins_anew() {
        let site = site();
        let closed = TransportError::Closed {
            broker: site.broker.clone(),
        };
        let refused = TransportError::Sasl {
            broker: site.broker.clone(),
            mechanism: "PLAIN",
            source: SaslError::Refused {
                message: String::new(),
            },
        };
        let failures = || lock(&site.hold_back).as_ref().map(|hold_back| hold_back.failures);
        site.has_failed(&closed);
        site.has_failed(&closed);
        assert_eq!(failures(), Some(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(site.held_back(Instant::now()).is_none());
        site.has_failed(&closed);
        assert_eq!(failures(), Some(2));
        tokio::time::advance(Duration::from_secs(1)).await;
        site.has_failed(&refused);
        assert_eq!(failures(), Some(1));
        tokio::time::advance(Duration::from_millis(499)).await;
        assert!(site.held_back(Instant::now()).is_some());
        site.has_connected();
        assert_eq!(
            (failures(), site.held_back(Instant::now()).is_some()),
            (None, false)
        );
    }
}
