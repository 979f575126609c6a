//! The works that are measured, by what they belong to.

mod absorbing;
mod answering;
mod broker;
mod growth;
mod hit_ratios;
mod lookups;
mod memory;
mod modules;
pub mod mount;
mod proxy;
mod reads;
mod records;
mod reference;
mod responses;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::contest::Rounds;
use crate::report::Section;
use crate::traces::Trace;

pub use memory::hold;

/// How much to measure.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The same rows of less data.
    pub is_quick: bool,
    /// How often each way goes.
    pub rounds: Rounds,
    /// Where mount points are made; on a disk.
    pub folder: PathBuf,
    /// The build's own folder, where the packages for WebAssembly are looked for.
    pub target_folder: PathBuf,
    /// A trace of somebody's cache, for the table of hit ratios.
    pub trace: Option<Trace>,
}

type Measure = fn(&Scope) -> Result<Section>;

/// Every section by its name, in the order of the page.
pub const SECTIONS: [(&str, Measure); 12] = [
    ("reads", reads::section),
    ("lookups", lookups::section),
    ("answers", answering::section),
    ("responses", responses::section),
    ("records", records::section),
    ("inserts", absorbing::section),
    ("memory", memory::section),
    ("growth", growth::section),
    ("mount", mount::section),
    ("hit-ratios", hit_ratios::section),
    ("proxy", proxy::section),
    ("wasm", modules::section),
];

/// Measures one section.
pub fn measure(name: &str, scope: &Scope) -> Result<Section> {
    let (_, measure) = SECTIONS
        .iter()
        .find(|(section, _)| *section == name)
        .with_context(|| {
            let names: Vec<_> = SECTIONS.iter().map(|(name, _)| *name).collect();
            format!("there is no section {name:?}; there are {}", names.join(", "))
        })?;
    eprintln!("\n=== {name}");
    measure(scope)
}
