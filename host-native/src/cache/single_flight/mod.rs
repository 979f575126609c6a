//! Single flight: whoever needs what is already on its way waits for it instead of asking again (H25).
//!
//! A flight is on the [`Table`] from its [`Departure`] until it has landed. It leaves the table before its outcome
//! is announced, so that a failure reaches those who wait and nobody who comes later. However its task ends, be it
//! by a panic, an abort or with its runtime, the flight leaves the table and those who wait hear of it: they look at
//! the table again, and the first of them takes it over.

#[cfg(test)]
pub(super) mod explore;
mod questions;
pub(super) mod runtime;

use core::fmt;
use core::mem;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use futures_util::FutureExt;
use futures_util::future::Shared;
use kachet_core::time::Instant;
use tokio::sync::oneshot;
use tokio::time::Instant as Deadline;

use self::runtime::{Mutex, MutexGuard, timeout_at};

pub(super) use self::questions::{Open, Turn};

/// What is on its way, by key.
pub(super) struct Table<K, O> {
    under_way: Mutex<BTreeMap<K, Flight<O>>>,
}

impl<K, O> Default for Table<K, O> {
    fn default() -> Self {
        Self {
            under_way: Mutex::new(BTreeMap::new()),
        }
    }
}

impl<K, O> fmt::Debug for Table<K, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").finish_non_exhaustive()
    }
}

/// Something that is under way, as others see it.
#[derive(Clone)]
pub(super) struct Flight<O> {
    landing: Shared<oneshot::Receiver<O>>,
    /// What it brings is no older than this.
    pub(super) began_at: Instant,
    /// Later than this it counts as lost: nobody waits for it any longer, nor joins it.
    overdue_at: Deadline,
}

/// How waiting for a flight ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Landed<O> {
    Outcome(O),
    /// It broke off, or is overdue.
    Lost,
    /// It may yet land, but the caller waits no longer.
    TooLate,
}

impl<O: Clone> Flight<O> {
    pub(super) async fn landed(&self, give_up_at: Deadline) -> Landed<O> {
        match timeout_at(self.overdue_at.min(give_up_at), self.landing.clone()).await {
            Some(Ok(outcome)) => Landed::Outcome(outcome),
            Some(Err(_)) => Landed::Lost,
            None if self.overdue_at < give_up_at => Landed::Lost,
            None => Landed::TooLate,
        }
    }
}

impl<K: Ord + Clone, O: Clone> Table<K, O> {
    /// Locks the table.
    pub(super) fn board(self: &Arc<Self>) -> Boarding<'_, K, O> {
        Boarding {
            under_way: self.lock(),
            table: self,
            now: Deadline::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<K, Flight<O>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table, locked: what one finds on it stays true until one has taken off or let go.
pub(super) struct Boarding<'t, K, O> {
    under_way: MutexGuard<'t, BTreeMap<K, Flight<O>>>,
    table: &'t Arc<Table<K, O>>,
    now: Deadline,
}

impl<K: Ord + Clone, O: Clone> Boarding<'_, K, O> {
    /// The flight of this key, unless it is overdue.
    pub(super) fn flight(&self, key: &K) -> Option<&Flight<O>> {
        self.under_way.get(key).filter(|flight| self.is_due(flight))
    }

    /// The flight of the greatest key up to this one.
    pub(super) fn nearest(&self, key: &K) -> Option<(&K, &Flight<O>)> {
        let nearest = self.under_way.range(..=key).next_back();
        nearest.filter(|(_, flight)| self.is_due(flight))
    }

    fn is_due(&self, flight: &Flight<O>) -> bool {
        self.now < flight.overdue_at
    }

    /// Puts a flight on the table, in the place of others with its keys, and lets the table go.
    pub(super) fn depart(mut self, keys: Vec<K>, began_at: Instant, overdue_at: Deadline) -> Departure<K, O> {
        let (announce, landing) = oneshot::channel();
        let flight = Flight {
            landing: landing.shared(),
            began_at,
            overdue_at,
        };
        for key in &keys {
            self.under_way.insert(key.clone(), flight.clone());
        }
        let table = Arc::clone(self.table);
        // A departure locks the table when it is dropped, so it must not be there as long as the table is locked.
        drop(self);
        Departure {
            table,
            keys,
            flight,
            announce: Some(announce),
        }
    }
}

/// A flight in the hands of the one who flies it.
#[must_use = "a flight that is dropped breaks off"]
pub(super) struct Departure<K: Ord + Clone, O: Clone> {
    table: Arc<Table<K, O>>,
    keys: Vec<K>,
    flight: Flight<O>,
    announce: Option<oneshot::Sender<O>>,
}

impl<K: Ord + Clone, O: Clone> Departure<K, O> {
    pub(super) fn flight(&self) -> &Flight<O> {
        &self.flight
    }

    /// Takes the flight off the table and tells everybody who waits.
    pub(super) fn land(mut self, outcome: O) {
        self.leave_the_table();
        if let Some(announce) = self.announce.take() {
            let _nobody_waits = announce.send(outcome);
        }
    }

    fn leave_the_table(&mut self) {
        let keys = mem::take(&mut self.keys);
        let mut under_way = self.table.lock();
        for key in keys {
            // A later flight may have taken its place.
            if under_way
                .get(&key)
                .is_some_and(|flight| flight.landing.ptr_eq(&self.flight.landing))
            {
                under_way.remove(&key);
            }
        }
    }
}

impl<K: Ord + Clone, O: Clone> Drop for Departure<K, O> {
    /// The announcement is dropped after this, which is what those who wait hear.
    fn drop(&mut self) {
        self.leave_the_table();
    }
}
