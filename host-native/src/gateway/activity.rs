//! What happens on one connection, so that one on which nothing happens can be ended.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::limits::GatewayLimits;

/// One connection's.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Requests whose answers have not begun. There is a bound on that elsewhere.
    waiting: usize,
    /// Answers that are being sent, and when the client took something last.
    sending: HashMap<u64, Instant>,
    next_answer: u64,
    has_had_requests: bool,
    idle_since: Instant,
}

impl Activity {
    /// Of a connection that has just been accepted.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            waiting: 0,
            sending: HashMap::new(),
            next_answer: 0,
            has_had_requests: false,
            idle_since: Instant::now(),
        })))
    }

    // Nothing panics while it holds the lock; if something did, the counts would still be whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request has come.
    pub(super) fn begin(&self) -> Waiting {
        let mut state = self.state();
        state.waiting += 1;
        state.has_had_requests = true;
        drop(state);
        Waiting(self.clone())
    }

    /// Whether the client has done nothing for longer than it may.
    pub(super) fn is_overdue(&self, limits: &GatewayLimits, now: Instant) -> bool {
        let state = self.state();
        let beyond = |since: Instant, limit| now.duration_since(since) > limit;
        if state
            .sending
            .values()
            .any(|since| beyond(*since, limits.send_timeout))
        {
            return true;
        }
        let patience = if state.has_had_requests {
            limits.idle_timeout
        } else {
            limits.request_timeout
        };
        state.waiting == 0 && state.sending.is_empty() && beyond(state.idle_since, patience)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Waiting(Activity);

impl Waiting {
    /// The answer is there; what is left is to send it. `place` is given back once it is.
    pub(super) fn send(self, body: Body, place: Option<OwnedSemaphorePermit>) -> Sending {
        let activity = self.0.clone();
        let mut state = activity.state();
        let answer = state.next_answer;
        state.next_answer += 1;
        state.sending.insert(answer, Instant::now());
        drop(state);
        Sending {
            body,
            answer,
            activity,
            _place: place,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.waiting -= 1;
        state.idle_since = Instant::now();
    }
}

/// A body that notes that it is taken.
#[derive(Debug)]
pub(super) struct Sending {
    body: Body,
    answer: u64,
    activity: Activity,
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.sending.remove(&self.answer);
        state.idle_since = Instant::now();
    }
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let answer = self.answer;
        if let Some(since) = self.activity.state().sending.get_mut(&answer) {
            *since = Instant::now();
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn who_says_nothing_and_who_takes_nothing_is_overdue_and_who_waits_is_not() {
        let limits = GatewayLimits {
            request_timeout: Duration::from_secs(1),
            send_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(3),
            ..GatewayLimits::default()
        };
        let activity = Activity::new();
        let overdue_after =
            |milliseconds| activity.is_overdue(&limits, Instant::now() + Duration::from_millis(milliseconds));
        assert!(!overdue_after(900) && overdue_after(1_100));
        let waiting = activity.begin();
        assert!(!overdue_after(60_000));
        let sending = waiting.send(Body::empty(), None);
        assert!(!overdue_after(1_900) && overdue_after(2_100));
        drop(sending);
        assert!(!overdue_after(2_900) && overdue_after(3_100));
    }
}
