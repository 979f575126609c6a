//! A cache over a mount point beside the plainest things that a disk can be asked for, and beside a peer.

mod amplification;
mod hit;
mod insert;
mod mounted;
mod open;
mod prepared;
mod reads;

use anyhow::Result;

use super::Scope;
use crate::report::Section;

pub use insert::go as insert;

pub(super) fn section(scope: &Scope) -> Result<Section> {
    let mut section = Section::new(
        "mount",
        "Mount points",
        "Inserts go through the cache as a host drives it, each way in a process of its own, and are counted when the disk has \
         them. Hits are of batches that the page cache holds. Opening reads footers from there too.",
    );
    for rows in [
        open::rows,
        insert::rows,
        hit::rows,
        reads::rows,
        amplification::rows,
    ] {
        section.rows.extend(rows(scope)?);
    }
    Ok(section)
}
