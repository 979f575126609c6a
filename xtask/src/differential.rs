//! `cargo xtask differential`: random requests to a real Kafka and through the proxy, each answer judged.

use anyhow::{Result, bail};
use clap::Args;

use crate::project::cargo;
use crate::{kafka, process};

/// How many requests, and which.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many requests to make over topics that are settled; a third as many more while topics change. Of these, each
    /// stands for one that is sent cold and warm, or for all of a fetch session.
    #[arg(long, default_value_t = 50_000)]
    requests: u64,
    /// How many fetch sessions to have go on while topics change, at least; as many as there is time for beside the requests.
    #[arg(long, default_value_t = 100)]
    sessions: u64,
    /// The requests are a function of this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Begin with this request. What is cached by then is not what it was in a run from the first request on.
    #[arg(long, default_value_t = 0)]
    from: u64,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if let Some(missing) = kafka::ensure()? {
        bail!("{missing}");
    }
    let mut campaign = cargo();
    campaign.args([
        "test",
        "--package",
        "kachet-tests",
        "--test",
        "differential",
        "--",
    ]);
    campaign.args(["--nocapture", "--test-threads=1", "no_answer", "what_changes"]);
    campaign.env("KACHET_DIFFERENTIAL_REQUESTS", options.requests.to_string());
    campaign.env("KACHET_DIFFERENTIAL_SESSIONS", options.sessions.to_string());
    campaign.env("KACHET_DIFFERENTIAL_SEED", options.seed.to_string());
    campaign.env("KACHET_DIFFERENTIAL_FROM", options.from.to_string());
    // What is missing fails here, where it would be skipped.
    campaign.env("CI", "true");
    process::run(&mut campaign)
}
