//! Which part of a range of offsets is there, drawn like the buffer of a video player.

use kachet::core::offset::OffsetSpan;

/// How many cells a bar has.
pub(super) const CELLS: u32 = 40;

/// From nothing to all of a cell.
const BLOCKS: [char; 5] = [' ', '░', '▒', '▓', '█'];
const LETTERS: [char; 5] = [' ', '.', '-', '+', '#'];

/// The strip over `whole`, of which `ranges`, in ascending order and apart from each other, are there.
pub(super) fn bar(whole: OffsetSpan, ranges: &[OffsetSpan], is_plain: bool) -> String {
    let letters = if is_plain { LETTERS } else { BLOCKS };
    (0..CELLS)
        .map(|cell| letters[level(part(whole, cell), ranges)])
        .collect()
}

/// The offsets that a cell stands for: at least one, so that where there are fewer than cells, cells share them.
fn part(whole: OffsetSpan, cell: u32) -> (i128, i128) {
    let base = i128::from(whole.base());
    let count = i128::from(whole.last()) - base + 1;
    let begins = |cell: u32| base + i128::from(cell) * count / i128::from(CELLS);
    let first = begins(cell);
    (first, begins(cell + 1).max(first + 1))
}

/// 0 if nothing of it is there, 4 if all of it is.
fn level((first, end): (i128, i128), ranges: &[OffsetSpan]) -> usize {
    let before = ranges.partition_point(|range| i128::from(range.last()) < first);
    let within = ranges.get(before..).unwrap_or_default().iter();
    let within = within.take_while(|range| i128::from(range.base()) < end);
    let held = within.map(|range| {
        let (from, to) = (i128::from(range.base()), i128::from(range.last()) + 1);
        to.min(end) - from.max(first)
    });
    let (held, count): (i128, i128) = (held.sum(), end - first);
    if held == count {
        return 4;
    }
    match held * 3 / count {
        0 if held == 0 => 0,
        0 => 1,
        1 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(base: i64, last: i64) -> OffsetSpan {
        OffsetSpan::new(base, last).unwrap()
    }

    fn plain(whole: OffsetSpan, ranges: &[OffsetSpan]) -> String {
        bar(whole, ranges, true)
    }

    #[test]
    fn cells_show_how_much_of_their_offsets_is_there() {
        // Ten offsets a cell.
        let whole = span(1_000, 1_399);
        assert_eq!(plain(whole, &[whole]), "#".repeat(40));
        assert_eq!(plain(whole, &[]), " ".repeat(40));
        let ranges = [
            span(1_000, 1_009),
            span(1_010, 1_010),
            span(1_020, 1_025),
            span(1_030, 1_038),
            span(1_395, 1_399),
        ];
        let expected = format!("#.-+{}-", " ".repeat(35));
        assert_eq!(plain(whole, &ranges), expected);
        let blocks = bar(whole, &ranges, false);
        assert_eq!(blocks, format!("█░▒▓{}▒", " ".repeat(35)));
    }

    #[test]
    fn few_and_very_many_offsets_fill_the_bar_too() {
        assert_eq!(plain(span(5, 5), &[span(5, 5)]), "#".repeat(40));
        let half = format!("{}{}", "#".repeat(20), " ".repeat(20));
        assert_eq!(plain(span(0, 1), &[span(0, 0)]), half);
        let all = span(i64::MIN, i64::MAX);
        assert_eq!(plain(all, &[span(i64::MIN, -1)]), half);
    }
}
