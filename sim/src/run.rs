//! One seed from beginning to end.

use core::cell::RefCell;
use core::time::Duration;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};

use futures_util::future::join_all;
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::checker;
use crate::clients::{Client, Front};
use crate::network::SimulatedNetwork;
use crate::sabotage::{Sabotage, Saboteur};
use crate::world::{Simulation, Violation};

/// How long after the last request every task of the cache must have ended.
const QUIET_MS: u64 = 300_000;

/// What a seed came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What went against a rule, in the order in which it was seen.
    pub violations: Vec<Violation>,
    /// A digest of every event; the same in every run of the seed.
    pub digest: u64,
    /// How many events there were.
    pub events: u64,
    /// How often what happened.
    pub tally: BTreeMap<String, u64>,
}

thread_local! {
    /// The words of panics on this thread; `None` while no simulation runs on it.
    static PANICS: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Runs one seed. `verbose` writes every event to stderr.
pub fn run(seed: u64, verbose: bool, sabotage: Option<Sabotage>) -> Outcome {
    remember_panics();
    PANICS.set(Some(Vec::new()));
    let simulated = panic::catch_unwind(AssertUnwindSafe(|| {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime.map(|runtime| runtime.block_on(simulate(seed, verbose, sabotage)))
    }));
    let mut outcome = match simulated {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => broken("runtime", error.to_string()),
        Err(_) => Outcome::default(),
    };
    for what in PANICS.take().unwrap_or_default() {
        outcome.violations.push(Violation {
            at_ms: 0,
            rule: "panic",
            what,
        });
    }
    outcome
}

fn broken(rule: &'static str, what: String) -> Outcome {
    let violations = vec![Violation { at_ms: 0, rule, what }];
    Outcome {
        violations,
        ..Outcome::default()
    }
}

/// A task of the cache that panics is dropped by the runtime without a word; this keeps its words.
fn remember_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let is_simulated = PANICS.with_borrow_mut(|panics| {
                panics
                    .as_mut()
                    .map(|panics| panics.push(panic.to_string()))
                    .is_some()
            });
            if !is_simulated {
                usual(panic);
            }
        }));
    });
}

async fn simulate(seed: u64, verbose: bool, sabotage: Option<Sabotage>) -> Outcome {
    let simulation = Arc::new(Simulation::new(seed, verbose));
    if verbose {
        eprintln!("{:#?}", simulation.profile);
    }
    let network = SimulatedNetwork {
        simulation: Arc::clone(&simulation),
    };
    let front = Arc::new(Saboteur::new(simulation.profile.cache(network), sabotage));
    let mut clients = JoinSet::new();
    for number in 0..simulation.profile.clients {
        clients.spawn(Client::new(&simulation, &front, number).run());
    }
    let cluster = tokio::spawn(befall(Arc::clone(&simulation), Arc::clone(&front)));
    while let Some(ended) = clients.join_next().await {
        if let Err(error) = ended {
            simulation
                .world()
                .violate(simulation.now(), "panic", error.to_string());
        }
    }
    cluster.abort();
    let _ = join_all([cluster]).await;
    sleep(Duration::from_millis(QUIET_MS)).await;
    settle(&simulation, &front);
    outcome(&simulation, &front)
}

/// Has the cluster change until the simulation ends.
async fn befall(simulation: Arc<Simulation>, front: Arc<Front>) {
    let mut dice = simulation.dice(3);
    for _ in 0..simulation.profile.cluster_steps {
        let pause = dice.between(1, 2 * simulation.profile.cluster_pause_ms);
        sleep(Duration::from_millis(pause)).await;
        let now = simulation.now();
        {
            let mut world = simulation.world();
            let (change, told) = world.cluster.step(now);
            world.count(format!("change: {change:?}"), 1);
            world.event(now, "change", || format!("{change:?} {told}"));
        }
        simulation.changed.notify_waiters();
        checker::judge_size(&simulation, &front.statistics());
    }
}

/// Nothing may be left at the end: no task, and no memory once everything is dropped.
fn settle(simulation: &Simulation, front: &Front) {
    let now = simulation.now();
    let tasks = Handle::current().metrics().num_alive_tasks();
    front.below().clear();
    let statistics = front.below().statistics();
    let mut world = simulation.world();
    if tasks > 0 {
        world.violate(now, "task leak", format!("{tasks} tasks are left"));
    }
    if statistics.size_bytes > 0 || statistics.batches > 0 {
        let what = format!(
            "{} bytes and {} batches are counted after everything was dropped",
            statistics.size_bytes, statistics.batches
        );
        world.violate(now, "accounting", what);
    }
    if !world.outstanding.is_empty() {
        world.violate(now, "hang", "requests are under way at the end".to_owned());
    }
}

fn outcome(simulation: &Simulation, front: &Front) -> Outcome {
    let mut world = simulation.world();
    for (name, figure) in front.below().statistics().named() {
        if !["size_bytes", "limit_bytes", "batches", "partitions"].contains(&name) {
            world.count(format!("cache: {name}"), figure);
        }
    }
    Outcome {
        violations: world.violations.clone(),
        digest: world.digest(),
        events: world.events,
        tally: world.tally.clone(),
    }
}
