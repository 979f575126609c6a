//! Questions whose answers go to a place that all callers see: of several who need the same, one asks.

#[cfg(test)]
mod interleavings;

use core::future::Future;
use std::sync::Arc;

use kachet_core::time::Instant;
use tokio::time::Instant as Deadline;

use super::{Departure, Flight, Landed, Table};

/// How often one caller looks again at what is open, because others have left it unanswered.
const ROUNDS: usize = 4;

/// When a caller's questions are asked.
#[derive(Clone, Copy, Debug)]
pub(in crate::cache) struct Turn {
    /// Now, on the cache's clock.
    pub(in crate::cache) began_at: Instant,
    /// When the questions count as lost, and nobody waits for their answers any longer.
    pub(in crate::cache) overdue_at: Deadline,
}

/// A question that is open.
pub(in crate::cache) struct Open<K, Q> {
    pub(in crate::cache) key: K,
    pub(in crate::cache) question: Q,
    /// Whether the caller needs the answer; else it asks only beside what it needs, and waits for nobody.
    pub(in crate::cache) is_needed: bool,
}

/// What of the open questions the caller is to ask, and who is asking the others that it needs.
struct Share<K: Ord + Clone, Q> {
    own: Option<(Departure<K, ()>, Vec<Q>)>,
    /// Each with whether its answer will do for the caller; else the question remains.
    awaited: Vec<(Flight<()>, bool)>,
}

impl<K: Ord + Clone> Table<K, ()> {
    /// Comes back when what is open has been asked, by this caller or by others. `open` tells what that is, with the
    /// table locked, and leaves out what has been answered meanwhile. Answers to what others began to ask at a moment
    /// for which `will_do` says no are waited for all the same, so that nothing is asked twice at once.
    ///
    /// Where others give up before they have an answer, the first who waits asks in their place.
    pub(in crate::cache) async fn ask<Q, F: Future<Output = ()>>(
        self: &Arc<Self>,
        turn: impl Fn() -> Turn,
        open: impl Fn() -> Vec<Open<K, Q>>,
        will_do: impl Fn(Instant) -> bool,
        ask: impl Fn(Vec<Q>) -> F,
    ) {
        let give_up_at = turn().overdue_at;
        for _ in 0..ROUNDS {
            let Share { own, awaited } = self.share(turn(), &open, &will_do);
            if let Some((departure, questions)) = own {
                ask(questions).await;
                departure.land(());
            }
            let mut remains = false;
            for (flight, will_do) in awaited {
                match flight.landed(give_up_at).await {
                    Landed::Outcome(()) => remains |= !will_do,
                    Landed::Lost => remains = true,
                    Landed::TooLate => return,
                }
            }
            if !remains {
                return;
            }
        }
    }

    /// Takes what nobody is asking.
    pub(in crate::cache) fn take<Q>(
        self: &Arc<Self>,
        turn: Turn,
        open: impl Fn() -> Vec<Open<K, Q>>,
    ) -> Option<(Departure<K, ()>, Vec<Q>)> {
        self.share(turn, &open, &|_| true).own
    }

    fn share<Q>(
        self: &Arc<Self>,
        turn: Turn,
        open: &impl Fn() -> Vec<Open<K, Q>>,
        will_do: &impl Fn(Instant) -> bool,
    ) -> Share<K, Q> {
        let boarding = self.board();
        let (mut keys, mut questions, mut awaited) = (Vec::new(), Vec::new(), Vec::new());
        let mut needs_own = false;
        for Open {
            key,
            question,
            is_needed,
        } in open()
        {
            match boarding.flight(&key) {
                Some(flight) if is_needed => awaited.push((flight.clone(), will_do(flight.began_at))),
                Some(_) => {}
                None => {
                    needs_own |= is_needed;
                    keys.push(key);
                    questions.push(question);
                }
            }
        }
        let own = needs_own.then(|| {
            let departure = boarding.depart(keys, turn.began_at, turn.overdue_at);
            (departure, questions)
        });
        Share { own, awaited }
    }
}
