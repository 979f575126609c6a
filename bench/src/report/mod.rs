//! A run's results as a page, as drawings and as JSON.

mod machine;
mod page;
mod plot;

use serde_json::{Value, json};

use crate::contest::Outcome;

pub use machine::{Machine, version_of};
pub use page::page;
pub use plot::{bars, curves};

/// Rows that belong together.
#[derive(Clone, Debug)]
pub struct Section {
    /// Part of the names of its files: `lookups`.
    pub id: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// How it was measured, in a sentence or three.
    pub how: String,
    /// What was measured.
    pub rows: Vec<Outcome>,
    /// Rows along a scale, which are drawn as curves.
    pub curves: Vec<Curve>,
    /// What was not measured, and why.
    pub not_measured: Vec<String>,
}

impl Section {
    /// Without rows as yet.
    pub fn new(id: &'static str, title: &'static str, how: impl Into<String>) -> Self {
        Self {
            id,
            title,
            how: how.into(),
            rows: Vec::new(),
            curves: Vec::new(),
            not_measured: Vec::new(),
        }
    }

    /// Every row, those of curves included.
    pub fn all_rows(&self) -> impl Iterator<Item = &Outcome> {
        let of_curves = self.curves.iter().flat_map(|curve| &curve.points);
        self.rows.iter().chain(of_curves.map(|(_, row)| row))
    }

    fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Outcome::json).collect();
        let curves = self.curves.iter().map(|curve| {
            let points = curve
                .points
                .iter()
                .map(|(x, row)| json!({ "x": x, "row": row.json() }));
            json!({ "id": curve.id, "along": curve.along, "points": points.collect::<Vec<_>>() })
        });
        json!({
            "id": self.id,
            "rows": rows,
            "curves": curves.collect::<Vec<_>>(),
            "not_measured": self.not_measured,
        })
    }
}

/// The same row at growing sizes.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Part of the name of its file: `batches`.
    pub id: &'static str,
    /// What the values are of: `lookup`.
    pub of: &'static str,
    /// What grows.
    pub along: &'static str,
    /// How large it was, and what was measured.
    pub points: Vec<(f64, Outcome)>,
}

/// Everything about a run.
pub struct Run {
    /// On what.
    pub machine: Machine,
    /// Fewer rounds and smaller data.
    pub is_quick: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What was measured.
    pub sections: Vec<Section>,
}

impl Run {
    /// Everything, for programs.
    pub fn json(&self) -> Value {
        json!({
            "machine": self.machine.lines(),
            "quick": self.is_quick,
            "seconds": self.seconds,
            "sections": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
        })
    }
}
