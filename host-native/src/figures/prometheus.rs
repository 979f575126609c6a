//! The text in which Prometheus reads figures, version 0.0.4.

use core::fmt::{self, Write};

use kachet_core::statistics::Statistics;

use super::figures;

/// The figures of a cache in the text format of Prometheus, version 0.0.4, for a service that has a `/metrics` of its own. Each
/// carries these labels, for instance to tell several caches of one process apart.
///
/// ```
/// use kachet::core::statistics::Statistics;
/// use kachet::figures::prometheus_text;
///
/// let statistics = Statistics { hits: 3, ..Statistics::default() };
/// let text = prometheus_text(&statistics, &[("cache", "orders")]);
/// assert!(text.contains("kachet_cache_hits_total{cache=\"orders\"} 3\n"));
/// ```
pub fn prometheus_text(statistics: &Statistics, labels: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(4 << 10);
    // Fails for no string.
    let _written = write_cache(&mut text, statistics, &Labels(labels)).is_ok();
    text
}

/// The figures of a cache, without labels.
pub(crate) fn cache_figures(text: &mut String, statistics: &Statistics) -> fmt::Result {
    write_cache(text, statistics, &Labels(&[]))
}

fn write_cache(text: &mut String, statistics: &Statistics, labels: &Labels<'_>) -> fmt::Result {
    for (name, kind, value, tells) in figures(statistics) {
        let kind = kind.name();
        writeln!(
            text,
            "# HELP {name} {tells}\n# TYPE {name} {kind}\n{name}{labels} {value}"
        )?;
    }
    Ok(())
}

/// As they stand behind a name: none at all, or all in braces.
struct Labels<'l>(&'l [(&'l str, &'l str)]);

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (label, value)) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "{" } else { "," })?;
            write!(f, "{label}=\"")?;
            for character in value.chars() {
                match character {
                    '\\' | '"' => write!(f, "\\{character}")?,
                    '\n' => f.write_str("\\n")?,
                    other => f.write_char(other)?,
                }
            }
            f.write_char('"')?;
        }
        if self.0.is_empty() {
            Ok(())
        } else {
            f.write_char('}')
        }
    }
}

/// One figure of its name.
pub(crate) fn plain(text: &mut String, name: &str, kind: &str, value: u64) -> fmt::Result {
    writeln!(text, "# TYPE kachet_{name} {kind}\nkachet_{name} {value}")
}

/// Counters of one name.
pub(crate) fn labelled<'n>(
    text: &mut String,
    name: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'n str, u64)>,
) -> fmt::Result {
    writeln!(text, "# TYPE kachet_{name} counter")?;
    for (of, value) in values {
        writeln!(text, "kachet_{name}{{{label}=\"{of}\"}} {value}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_stands_once_with_its_help_type_and_labels() {
        let statistics = Statistics {
            hits: 7,
            size_bytes: 9,
            ..Statistics::default()
        };
        let text = prometheus_text(&statistics, &[("cluster", "a\"b\\c\nd"), ("rack", "r")]);
        assert_eq!(text.lines().count(), 3 * statistics.named().len());
        for line in [
            "# TYPE kachet_cache_hits_total counter",
            r#"kachet_cache_hits_total{cluster="a\"b\\c\nd",rack="r"} 7"#,
            "# TYPE kachet_cache_size_bytes gauge",
            r#"kachet_cache_size_bytes{cluster="a\"b\\c\nd",rack="r"} 9"#,
        ] {
            assert_eq!(
                text.lines().filter(|said| *said == line).count(),
                1,
                "{line} in {text}"
            );
        }
        assert!(prometheus_text(&statistics, &[]).contains("\nkachet_cache_size_bytes 9\n"));
    }
}
