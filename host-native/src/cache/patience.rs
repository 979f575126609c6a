//! How long the cache waits for what is under way.

use core::time::Duration;

use crate::transport::Transport;

/// Beyond what the transport states, so that an error that comes at its limit is still shared.
const SLACK: Duration = Duration::from_secs(1);
/// Longer waits are cut to this, so that adding one to the clock cannot overflow.
const LONGEST_WAIT: Duration = Duration::from_hours(30 * 24);

/// When a request that the broker may hold back for `max_wait_ms` counts as lost: the transport has neither an answer
/// nor a failure, or the runtime on which it works is not run any more.
pub(super) fn of_flights(transport: &impl Transport, max_wait_ms: i32) -> Duration {
    let broker_wait = Duration::from_millis(u64::try_from(max_wait_ms).unwrap_or(0));
    transport
        .answer_timeout()
        .saturating_add(broker_wait)
        .saturating_add(SLACK)
        .min(LONGEST_WAIT)
}

/// How long a caller waits: for one request that is lost, and for the one in its place.
pub(super) fn of_callers(transport: &impl Transport, max_wait_ms: i32) -> Duration {
    of_flights(transport, max_wait_ms).saturating_mul(2)
}
