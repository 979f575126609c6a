//! Runs a model under many orders in which its tasks may run.

use std::env;
use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use super::Table;

/// Sets how many orders each test tries, half at random and half with few, well-placed changes of task.
const ORDERS_VARIABLE: &str = "KACHET_INTERLEAVINGS";
const ORDERS: usize = 1_000;
/// How many changes of task it takes at most to show a defect that the second half looks for.
const CHANGES: usize = 3;
const SEED: u64 = 0x6b61_6368_6574;
const STACK_BYTES: usize = 1 << 20;

/// Runs a model under many orders. A caller that is never woken fails it as a deadlock.
pub(in crate::cache) fn explore(model: impl Fn() + Send + Sync + 'static) {
    let orders = env::var(ORDERS_VARIABLE)
        .ok()
        .and_then(|orders| orders.parse().ok())
        .unwrap_or(ORDERS);
    let model = Arc::new(model);
    let config = || {
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        config
    };
    let (at_random, by_priority) = (Arc::clone(&model), model);
    Runner::new(RandomScheduler::new_from_seed(SEED, orders.div_ceil(2)), config()).run(move || at_random());
    let few_changes = PctScheduler::new_from_seed(SEED, CHANGES, orders.div_ceil(2));
    Runner::new(few_changes, config()).run(move || by_priority());
}

impl<K, O> Table<K, O> {
    pub(in crate::cache) fn is_empty(&self) -> bool {
        self.under_way.lock().unwrap().is_empty()
    }
}
