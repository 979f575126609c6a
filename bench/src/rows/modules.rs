//! How large the modules for WebAssembly are, where `cargo xtask wasm` has made them.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};

use super::Scope;
use crate::contest::{Bound, Contest, Outcome, Role, Target, Unit, count};
use crate::report::Section;

/// Where a module lies below the build's folder, what it is, and whether the design's goal is about it.
const MODULES: [(&str, &str, bool); 3] = [
    (
        "npm/kachet/kachet_wasm_bg.wasm",
        "module of the npm package, by gzip",
        true,
    ),
    (
        "npm/kachet/without-zstd/kachet_wasm_bg.wasm",
        "the same without zstd, by gzip",
        false,
    ),
    ("wasm/kachet.component.wasm", "component, by gzip", false),
];
const LIMIT_BYTES: f64 = 60.0 * 1024.0;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "wasm",
        "WebAssembly",
        "What is downloaded, with all codecs unless it says otherwise.",
    );
    for (path, what, has_goal) in MODULES {
        let path = scope.target_folder.join(path);
        if path.is_file() {
            section.rows.push(row(&path, what, has_goal)?);
        } else {
            section
                .not_measured
                .push(format!("{what}: `cargo xtask wasm` makes it."));
        }
    }
    Ok(section)
}

fn row(path: &Path, what: &str, has_goal: bool) -> Result<Outcome> {
    let module = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&module)?;
    let size_bytes = encoder.finish()?.len();
    let contest = Contest::new(what, Unit::Bytes).way("kachet", Role::Ours, || Ok(count(size_bytes)));
    if has_goal {
        return contest
            .target(Target::of("kachet", Bound::AtMost(LIMIT_BYTES)))
            .once();
    }
    contest.once()
}
