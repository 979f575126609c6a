//! Drawings of a run, as SVG written by hand: bars for rows, curves for what grows. Scales are logarithmic, because ways
//! of doing the same differ by factors.

use std::fmt::Write;

use super::{Curve, Section};
use crate::contest::{Outcome, Role, Unit, three_digits};

const WIDTH: f64 = 860.0;
const NAMES_WIDTH: f64 = 230.0;
const VALUES_WIDTH: f64 = 90.0;
const BAR_HEIGHT: f64 = 15.0;
const HEADING_HEIGHT: f64 = 26.0;
const CURVES_HEIGHT: f64 = 380.0;
/// Colours that eyes of every kind tell apart (after Okabe and Ito); the first is ours.
const COLOURS: [&str; 7] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#777777",
];
const FLOOR_COLOUR: &str = "#bbbbbb";

/// Each row of a section as a group of bars.
pub fn bars(section: &Section) -> String {
    let lines: usize = section.rows.iter().map(|row| row.ways.len()).sum();
    let (lines, rows) = (float(lines), float(section.rows.len()));
    let height = lines * BAR_HEIGHT + rows * (HEADING_HEIGHT + 8.0) + 8.0;
    let mut svg = open(height, section.title);
    let mut y = 8.0;
    for row in &section.rows {
        y += HEADING_HEIGHT;
        text(&mut svg, 4.0, y - 8.0, "start", "bold", &row.what);
        y = group(&mut svg, row, y) + 8.0;
    }
    svg.push_str("</svg>\n");
    svg
}

fn group(svg: &mut String, row: &Outcome, mut y: f64) -> f64 {
    let medians: Vec<f64> = row.ways.iter().map(|way| way.spread().median).collect();
    // Percents have an end of their scale, and differ by points.
    let is_linear = matches!(row.unit, Unit::Percent | Unit::Times);
    let (low, high) = limits(medians.iter().copied(), is_linear);
    let share = |value: f64| share(value, low, high, is_linear);
    for (way, median) in row.ways.iter().zip(medians) {
        let length = share(median) * (WIDTH - NAMES_WIDTH - VALUES_WIDTH);
        let colour = match way.role {
            Role::Ours => COLOURS[0],
            Role::Peer => COLOURS[1],
            Role::Floor => FLOOR_COLOUR,
        };
        text(svg, NAMES_WIDTH - 6.0, y + 11.0, "end", "normal", &way.name);
        let _ = writeln!(
            svg,
            "<rect x=\"{NAMES_WIDTH:.1}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            y + 1.0,
            BAR_HEIGHT - 3.0
        );
        text(
            svg,
            NAMES_WIDTH + length + 5.0,
            y + 11.0,
            "start",
            "normal",
            &row.unit.show(median),
        );
        y += BAR_HEIGHT;
    }
    y
}

/// Each way as a curve over what grows.
pub fn curves(curve: &Curve) -> String {
    let (left, right, top, bottom) = (80.0, WIDTH - 190.0, 30.0, CURVES_HEIGHT - 45.0);
    let mut svg = open(CURVES_HEIGHT, curve.along);
    let xs: Vec<f64> = curve.points.iter().map(|(x, _)| *x).collect();
    let ways = curve.points.iter().flat_map(|(_, row)| &row.ways);
    let medians: Vec<f64> = ways.map(|way| way.spread().median).collect();
    let Some((_, widest)) = curve.points.iter().max_by_key(|(_, row)| row.ways.len()) else {
        svg.push_str("</svg>\n");
        return svg;
    };
    let (x_low, x_high) = (min(&xs), max(&xs));
    let (y_low, y_high) = limits(medians.iter().copied(), false);
    let at_x = |x: f64| left + share(x, x_low, x_high, false) * (right - left);
    let at_y = |y: f64| bottom - share(y, y_low, y_high, false) * (bottom - top);
    text(
        &mut svg,
        4.0,
        16.0,
        "start",
        "bold",
        &format!("{} by {}", curve.of, curve.along),
    );
    let _ = writeln!(
        svg,
        "<path d=\"M{left} {top}V{bottom}H{right}\" fill=\"none\" stroke=\"#333333\"/>"
    );
    for x in &xs {
        text(
            &mut svg,
            at_x(*x),
            bottom + 18.0,
            "middle",
            "normal",
            &three_digits(*x),
        );
    }
    for step in powers_of_ten(y_low, y_high) {
        let y = at_y(step);
        let _ = writeln!(svg, "<path d=\"M{left} {y:.1}H{right}\" stroke=\"#dddddd\"/>");
        text(
            &mut svg,
            left - 6.0,
            y + 4.0,
            "end",
            "normal",
            &widest.unit.show(step),
        );
    }
    for (number, way) in widest.ways.iter().enumerate() {
        let colour = if way.role == Role::Floor {
            FLOOR_COLOUR
        } else {
            COLOURS[number % COLOURS.len()]
        };
        let mut points: Vec<(f64, f64)> = Vec::new();
        for (x, row) in &curve.points {
            if let Ok(way) = row.way(&way.name) {
                points.push((at_x(*x), at_y(way.spread().median)));
            }
        }
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in &points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
        let y = top + 18.0 * float(number);
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>",
            right + 10.0,
            y - 6.0
        );
        text(&mut svg, right + 30.0, y, "start", "normal", &way.name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(height: f64, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>{}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        escaped(title)
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, weight: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\">{}</text>",
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A little more than the values take, so that the least is still seen.
fn limits(values: impl Iterator<Item = f64>, is_linear: bool) -> (f64, f64) {
    let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    if is_linear {
        (0.0, max(&values))
    } else {
        (min(&values) / 2.0, max(&values))
    }
}

fn share(value: f64, low: f64, high: f64, is_linear: bool) -> f64 {
    let share = if is_linear {
        value / high
    } else {
        (value / low).ln() / (high / low).ln()
    };
    if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

fn powers_of_ten(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let steps = (-12..13).map(|power| 10_f64.powi(power));
    steps.filter(move |step| (low..=high).contains(step))
}

fn min(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn max(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::MIN_POSITIVE, f64::max)
}

fn float(count: usize) -> f64 {
    crate::contest::count(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contest::Contest;

    fn row(values: &'static [(&'static str, f64)]) -> Outcome {
        let mut contest = Contest::new("a < b", Unit::Seconds);
        for (name, value) in values {
            contest = contest.way(*name, Role::Peer, || Ok(*value));
        }
        contest.once().unwrap()
    }

    /// The widths of all bars but the background, which is a percentage.
    fn widths(svg: &str) -> Vec<f64> {
        let bars = svg.lines().filter(|line| line.starts_with("<rect x="));
        bars.filter_map(|bar| bar.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect()
    }

    #[test]
    fn a_longer_bar_is_a_larger_value() {
        let mut section = Section::new("x", "X", "");
        section.rows = vec![row(&[("one", 1e-9), ("ten", 1e-8), ("none", 0.0)])];
        let svg = bars(&section);
        let widths = widths(&svg);
        assert!(
            widths[0] > 0.0 && widths[1] > 3.0 * widths[0] && widths[2] < 0.1,
            "{svg}"
        );
        assert!(svg.contains("a &lt; b") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn a_curve_has_a_point_for_each_size_at_which_its_way_went() {
        let curve = Curve {
            id: "n",
            of: "lookup",
            along: "batches",
            points: vec![
                (1e4, row(&[("one", 1e-9), ("two", 2e-9)])),
                (1e6, row(&[("one", 1e-8)])),
            ],
        };
        let svg = curves(&curve);
        assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn nothing_to_draw_is_drawn() {
        let curve = Curve {
            id: "n",
            of: "lookup",
            along: "batches",
            points: Vec::new(),
        };
        assert!(curves(&curve).ends_with("</svg>\n"));
        assert!(!bars(&Section::new("x", "X", "")).contains("NaN"));
    }
}
