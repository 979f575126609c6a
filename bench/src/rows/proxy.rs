//! Placeholder
use super::Scope;
use crate::report::Section;
use anyhow::Result;
pub(super) fn section(_: &Scope) -> Result<Section> {
    Ok(Section::new("proxy", "Proxy", "x"))
}
