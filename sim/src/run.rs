//! One seed from beginning to end.

use core::cell::RefCell;
use core::pin::pin;
use core::time::Duration;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Once};

use futures_util::future::select;
use kachet::cache::Cache;
use kachet::core::storage::faulty::FaultKind;
use kachet::core::storage::{SegmentReader, Storage};
use tokio::runtime::{Builder, Handle};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::checker;
use crate::clients::{Client, Front};
use crate::network::SimulatedNetwork;
use crate::sabotage::{Sabotage, Saboteur};
use crate::storage::{Medium, SurvivingStorage};
use crate::world::{CRASHES, Simulation, Violation};

/// How long after the last request every task of the cache must have ended.
const QUIET_MS: u64 = 300_000;

/// What empty tables may take once everything is dropped.
const LEFT_BYTES_MAX: u64 = 4 << 10;
/// How long dropping everything may take.
const CLEAR_TIME: Duration = Duration::from_secs(5);
/// How often a restart after a crash is tried.
const RESTORES_MAX: u32 = 4;

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
    let builder = simulation.profile.cache(network);
    match simulation.profile.storage {
        None => {
            live(
                &simulation,
                builder.build(),
                sabotage,
                |_| core::future::ready(()),
            )
            .await
        }
        Some(rates) => {
            let medium = Medium::new(seed, rates);
            let cache = builder.storage(medium.handle()).build();
            let outcome = live(&simulation, cache, sabotage, |front| {
                crash(Arc::clone(&simulation), Arc::clone(&medium), front)
            });
            let mut outcome = outcome.await;
            for kind in FaultKind::ALL {
                let count = medium.faults.injected(kind);
                *outcome
                    .tally
                    .entry(format!("fault: storage {kind:?}"))
                    .or_default() += count;
            }
            outcome
        }
    }
}

/// The cache crashes, and another one takes over what is left on the medium.
async fn crash(simulation: Arc<Simulation>, medium: Arc<Medium>, front: Arc<Front<SurvivingStorage>>) {
    medium.crash().await;
    let now = simulation.now();
    let limit = front.statistics().limit_bytes;
    for attempt in 0..RESTORES_MAX {
        // The last attempt is to succeed.
        medium.faults.switch(attempt + 1 < RESTORES_MAX);
        let network = SimulatedNetwork {
            simulation: Arc::clone(&simulation),
        };
        let builder = simulation.profile.cache(network).size_limit_bytes(limit);
        let restored = builder.storage(medium.handle()).restore().await;
        medium.faults.switch(true);
        let mut world = simulation.world();
        match restored {
            Ok((cache, restored)) => {
                world.count(CRASHES, 1);
                world.event(now, "crash", || format!("{restored:?}"));
                drop(world);
                return front.replace(cache);
            }
            Err(error) => world.event(now, "crash", || error.to_string()),
        }
    }
    simulation.world().violate(
        now,
        "restore",
        "a storage without faults was not restored".to_owned(),
    );
}

/// The clients and the cluster, until all is over.
async fn live<S: Storage + 'static, C: Future<Output = ()> + Send>(
    simulation: &Arc<Simulation>,
    cache: Cache<SimulatedNetwork, S>,
    sabotage: Option<Sabotage>,
    crash: impl Fn(Arc<Front<S>>) -> C,
) -> Outcome {
    let front = Arc::new(Saboteur::new(cache, sabotage));
    let mut clients = JoinSet::new();
    for number in 0..simulation.profile.clients {
        clients.spawn(Client::new(simulation, &front, number).run());
    }
    let all_clients = async {
        while let Some(ended) = clients.join_next().await {
            if let Err(error) = ended {
                simulation
                    .world()
                    .violate(simulation.now(), "panic", error.to_string());
            }
        }
    };
    let cluster = befall(simulation, &front, crash);
    // The cluster goes on changing no longer than there are clients to see it.
    select(
        pin!(all_clients),
        pin!(async {
            cluster.await;
            core::future::pending::<()>().await;
        }),
    )
    .await;
    sleep(Duration::from_millis(QUIET_MS)).await;
    settle(simulation, &front).await;
    outcome(simulation, &front)
}

/// Has the cluster change until the simulation ends.
async fn befall<S: Storage + 'static, C: Future<Output = ()>>(
    simulation: &Simulation,
    front: &Arc<Front<S>>,
    crash: impl Fn(Arc<Front<S>>) -> C,
) {
    let mut dice = simulation.dice(3);
    for _ in 0..simulation.profile.cluster_steps {
        let pause = dice.between(1, 2 * simulation.profile.cluster_pause_ms);
        sleep(Duration::from_millis(pause)).await;
        if dice.chance(simulation.profile.crash) {
            crash(Arc::clone(front)).await;
            continue;
        }
        let now = simulation.now();
        {
            let mut world = simulation.world();
            let (change, told) = world.cluster.step(now);
            world.count(format!("change: {change:?}"), 1);
            world.event(now, "change", || format!("{change:?} {told}"));
        }
        simulation.changed.notify_waiters();
        checker::judge_size(simulation, &front.statistics(), front.below().audit());
    }
}

/// Nothing may be left at the end: no task, and no memory once everything is dropped.
async fn settle<S: Storage + 'static>(simulation: &Simulation, front: &Front<S>) {
    let now = simulation.now();
    let tasks = Handle::current().metrics().num_alive_tasks();
    front.below().clear();
    // A storage other than memory is told of it by a task.
    sleep(CLEAR_TIME).await;
    let statistics = front.below().statistics();
    let mut world = simulation.world();
    // The one that writes out what is in memory only ends with the cache.
    let tasks = tasks - usize::from(S::Reader::MAY_CORRUPT).min(tasks);
    if tasks > 0 {
        world.violate(now, "task leak", format!("{tasks} tasks are left"));
    }
    let removes = simulation.profile.removal_ms() < u64::MAX;
    if (removes && statistics.size_bytes > LEFT_BYTES_MAX) || statistics.batches > 0 {
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

fn outcome<S: Storage + 'static>(simulation: &Simulation, front: &Front<S>) -> Outcome {
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
