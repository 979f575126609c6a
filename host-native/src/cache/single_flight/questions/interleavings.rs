//! Questions under many orders in which callers may run, be cancelled, and fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kachet_core::time::Instant;
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};
use tokio::time::Instant as Deadline;

use super::{Open, Turn};
use crate::cache::single_flight::Table;
use crate::cache::single_flight::explore::explore;

/// What callers ask about, and what they have heard.
#[derive(Default)]
struct World {
    table: Arc<Table<u8, ()>>,
    /// Whether questions may come back without an answer.
    allows_open: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    clock: u64,
    /// By key, when the question was asked that was answered last.
    answered: BTreeMap<u8, Instant>,
    being_asked: BTreeSet<u8>,
    asked: BTreeMap<u8, usize>,
    /// The first so many questions get no answer.
    failures: usize,
}

/// What a caller asks; nothing is asked about it any more once this is dropped.
struct Asking<'w>(&'w World, Vec<u8>);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap();
        for key in &self.1 {
            state.being_asked.remove(key);
        }
    }
}

impl World {
    fn failing(failures: usize) -> Arc<Self> {
        let world = Self {
            allows_open: failures > 0,
            ..Self::default()
        };
        world.state.lock().unwrap().failures = failures;
        Arc::new(world)
    }

    /// A moment later than all before.
    fn tick(&self) -> Instant {
        let mut state = self.state.lock().unwrap();
        state.clock += 1;
        Instant::from_start(Duration::from_millis(state.clock))
    }

    async fn put(&self, keys: Vec<u8>) {
        let asked_at = self.tick();
        let fails = {
            let mut state = self.state.lock().unwrap();
            for key in &keys {
                *state.asked.entry(*key).or_default() += 1;
                assert!(state.being_asked.insert(*key), "{key} is asked twice at once");
            }
            let fails = state.failures > 0;
            state.failures = state.failures.saturating_sub(1);
            fails
        };
        let asking = Asking(self, keys);
        yield_now().await;
        if !fails {
            let mut state = self.state.lock().unwrap();
            state.answered.extend(asking.1.iter().map(|key| (*key, asked_at)));
        }
    }

    /// A caller that needs answers to what was asked within `bound` ticks before it came, or later.
    async fn need(&self, keys: &[u8], bound: u64) {
        let arrived_at = self.tick();
        let is_new = |at: Instant| arrived_at.since(at) <= Duration::from_millis(bound);
        let open = || {
            let state = self.state.lock().unwrap();
            let is_open = |key: &&u8| !state.answered.get(key).is_some_and(|at| is_new(*at));
            let open = keys.iter().filter(is_open).map(|key| Open {
                key: *key,
                question: *key,
                is_needed: true,
            });
            open.collect()
        };
        let turn = || Turn {
            began_at: self.tick(),
            overdue_at: Deadline::now() + Duration::from_secs(3600),
        };
        self.table.ask(turn, open, is_new, |keys| self.put(keys)).await;
        assert!(
            self.allows_open || open().is_empty(),
            "{keys:?} are left open though nothing failed"
        );
    }

    fn begin(self: &Arc<Self>, keys: &'static [u8], bound: u64) -> JoinHandle<()> {
        let world = Arc::clone(self);
        spawn(async move { world.need(keys, bound).await })
    }

    fn asked(&self, key: u8) -> usize {
        let state = self.state.lock().unwrap();
        state.asked.get(&key).copied().unwrap_or(0)
    }
}

const LONG: u64 = 1 << 40;

#[test]
fn callers_whose_needs_overlap_ask_each_question_once() {
    explore(|| {
        let world = World::failing(0);
        let callers = [&[1, 2][..], &[2, 3], &[3, 1]].map(|keys| world.begin(keys, LONG));
        block_on(async {
            for caller in callers {
                caller.await.unwrap();
            }
        });
        assert_eq!([1, 2, 3].map(|key| world.asked(key)), [1, 1, 1]);
        assert!(world.table.is_empty());
    });
}

#[test]
fn another_asks_in_the_place_of_one_who_gives_up() {
    explore(|| {
        let world = World::failing(0);
        let given_up = world.begin(&[1, 2], LONG);
        let others = [&[1][..], &[1, 2]].map(|keys| world.begin(keys, LONG));
        block_on(async {
            given_up.abort();
            for caller in others {
                caller.await.unwrap();
            }
            let _cancelled = given_up.await;
        });
        for key in [1, 2] {
            assert!(world.asked(key) <= 2, "{} times", world.asked(key));
            assert!(world.state.lock().unwrap().answered.contains_key(&key));
        }
        assert!(world.table.is_empty());
    });
}

#[test]
fn a_question_without_an_answer_holds_nobody_and_stays_on_no_table() {
    explore(|| {
        let world = World::failing(1);
        let callers = [&[1][..], &[1], &[1]].map(|keys| world.begin(keys, LONG));
        block_on(async {
            for caller in callers {
                caller.await.unwrap();
            }
        });
        assert!((1..=2).contains(&world.asked(1)), "{} times", world.asked(1));
        assert!(world.table.is_empty());
    });
}

#[test]
fn who_came_after_a_question_was_put_waits_and_asks_again_if_it_needs_a_newer_answer() {
    explore(|| {
        let world = World::failing(0);
        let callers = [&[1][..], &[1], &[1]].map(|keys| world.begin(keys, 0));
        block_on(async {
            for caller in callers {
                caller.await.unwrap();
            }
        });
        // Each needs one that was put after it came; nobody more than its own.
        assert!((1..=3).contains(&world.asked(1)), "{} times", world.asked(1));
        assert!(world.table.is_empty());
    });
}
