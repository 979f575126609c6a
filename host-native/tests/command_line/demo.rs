//! `kachet demo` runs anywhere, in little time.

use core::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::kachet;

#[test]
fn the_demo_reads_the_same_through_the_cache_and_the_second_time_asks_for_nothing() -> Result<()> {
    let arguments = ["demo", "--json", "--records", "4000", "--reads", "2000"];
    let finished = kachet(&arguments, Duration::from_secs(60))?;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let table: Value = serde_json::from_slice(&finished.stdout)?;
    assert_eq!(table["records"], 4000);
    let rows = table["rows"].as_array().cloned().unwrap_or_default();
    let ratios: Vec<_> = rows.iter().map(|row| row["hit_ratio"].as_f64()).collect();
    assert_eq!(ratios.len(), 3);
    assert_eq!((ratios[0], ratios[2]), (None, Some(1.0)));
    assert!(ratios[1].is_some_and(|ratio| ratio > 0.5), "{ratios:?}");
    assert!(rows[0]["upstream_requests"].as_u64() >= Some(2000), "{rows:?}");
    assert_eq!(table["statistics"]["errors"], 0);
    Ok(())
}

#[test]
fn the_table_has_a_row_for_each_pass_and_a_small_cache_keeps_to_its_limit() -> Result<()> {
    let arguments = [
        "demo",
        "--records",
        "4000",
        "--reads",
        "500",
        "--size-limit",
        "200KiB",
    ];
    let finished = kachet(&arguments, Duration::from_secs(60))?;
    assert_eq!(finished.status.code(), Some(0), "{}", finished.stderr);
    let table = String::from_utf8(finished.stdout)?;
    for word in [
        "without a cache",
        "cache, first time",
        "cache, again",
        "p99",
        "hit ratio",
        "of 200.0 KiB",
    ] {
        assert!(table.contains(word), "no '{word}' in:\n{table}");
    }
    Ok(())
}
