//! The lists of aborted transactions, by the last offset of the batch that they belong to.
//!
//! Sorted blocks of bounded length: an insertion moves as much as one block and, one time in many, the directory. Alloc's own map
//! does the same in more levels, and takes ten times the code in a module.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::transactions::Aborted;

/// Lists of one block at most.
const BLOCK_LISTS: usize = 64;

type Block = Vec<(i64, Arc<[Aborted]>)>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Lists {
    /// None is empty, and each ends in front of the next.
    blocks: Vec<Block>,
}

/// Where the list of `last_offset` is, or would be inserted.
fn position(block: &Block, last_offset: i64) -> usize {
    block.partition_point(|(last, _)| *last < last_offset)
}

impl Lists {
    /// The first block that ends at or behind an offset.
    fn block_of(&self, last_offset: i64) -> usize {
        let ends_before = |block: &Block| block.last().is_some_and(|(last, _)| *last < last_offset);
        self.blocks.partition_point(ends_before)
    }

    pub(super) fn get(&self, last_offset: i64) -> Option<&Arc<[Aborted]>> {
        let block = self.blocks.get(self.block_of(last_offset))?;
        let (end, list) = block.get(position(block, last_offset))?;
        (*end == last_offset).then_some(list)
    }

    /// Takes a list in, in the place of the one before it.
    pub(super) fn insert(&mut self, last_offset: i64, list: Arc<[Aborted]>) {
        let behind_all = self.block_of(last_offset);
        let at = behind_all.min(self.blocks.len().saturating_sub(1));
        let Some(block) = self.blocks.get_mut(at) else {
            self.blocks.push(Vec::from([(last_offset, list)]));
            return;
        };
        let place = position(block, last_offset);
        if let Some((last, known)) = block.get_mut(place)
            && *last == last_offset
        {
            *known = list;
            return;
        }
        block.insert(place, (last_offset, list));
        if block.len() > BLOCK_LISTS {
            // What grows at its end leaves full blocks behind.
            let kept = if behind_all > at {
                BLOCK_LISTS
            } else {
                BLOCK_LISTS / 2
            };
            let rest = block.split_off(kept);
            block.shrink_to_fit();
            self.blocks.insert(at + 1, rest);
        }
    }

    pub(super) fn remove(&mut self, last_offset: i64) {
        let at = self.block_of(last_offset);
        let Some(block) = self.blocks.get_mut(at) else {
            return;
        };
        let place = position(block, last_offset);
        if block.get(place).is_some_and(|(last, _)| *last == last_offset) {
            block.remove(place);
            self.join_small(at);
        }
    }

    /// Joins a block that has become small with its neighbours, so that blocks do not outnumber what is in them.
    fn join_small(&mut self, at: usize) {
        self.join_with_next(at);
        if let Some(before) = at.checked_sub(1) {
            self.join_with_next(before);
        }
    }

    fn join_with_next(&mut self, at: usize) {
        if let Some([block, next]) = self.blocks.get_mut(at..at + 2)
            && block.len().min(next.len()) < BLOCK_LISTS / 4
            && block.len() + next.len() <= BLOCK_LISTS / 2
        {
            block.append(next);
            self.blocks.remove(at + 1);
        }
        let Some(block) = self.blocks.get_mut(at) else {
            return;
        };
        if block.is_empty() {
            self.blocks.remove(at);
        } else if block.len() < block.capacity() / 2 {
            block.shrink_to_fit();
        }
    }

    /// Removes those of batches that end at `offset` or behind it.
    pub(super) fn remove_from(&mut self, offset: i64) {
        let at = self.block_of(offset);
        self.blocks.truncate(at + 1);
        if let Some(block) = self.blocks.get_mut(at) {
            block.truncate(position(block, offset));
        }
        self.join_small(at);
    }

    /// Removes those of batches that end before `offset`.
    pub(super) fn remove_below(&mut self, offset: i64) {
        self.blocks.drain(..self.block_of(offset));
        if let Some(block) = self.blocks.first_mut() {
            block.drain(..position(block, offset));
        }
        self.join_small(0);
    }

    pub(super) fn clear(&mut self) {
        self.blocks.clear();
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    impl Lists {
        fn entries(&self) -> Vec<(i64, usize)> {
            let entries = self.blocks.iter().flatten();
            entries.map(|(last, list)| (*last, list.len())).collect()
        }

        fn room(&self) -> usize {
            self.blocks.iter().map(Vec::capacity).sum()
        }
    }

    fn list(length: usize) -> Arc<[Aborted]> {
        let aborted = Aborted {
            producer_id: 0,
            first_offset: 0,
            marker_offset: None,
        };
        alloc::vec![aborted; length].into()
    }

    #[test]
    fn lists_are_those_of_a_map() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut lists, mut map) = (Lists::default(), BTreeMap::new());
            let mut ascending = 0;
            for _ in 0..2000 {
                ascending += 1;
                let offset = if seed % 2 == 0 {
                    random.i64(..1000)
                } else {
                    ascending
                };
                match random.u32(..1000) {
                    0 => {
                        let from = random.i64(..1000) + ascending / 2;
                        lists.remove_from(from);
                        map.split_off(&from);
                    }
                    1 => {
                        let below = random.i64(..200) + ascending / 4;
                        lists.remove_below(below);
                        map = map.split_off(&below);
                    }
                    2..600 => {
                        let length = random.usize(1..5);
                        lists.insert(offset, list(length));
                        map.insert(offset, length);
                    }
                    _ => {
                        let offset = random.i64(..1000);
                        lists.remove(offset);
                        map.remove(&offset);
                    }
                }
                let expected: Vec<(i64, usize)> = map.iter().map(|(last, length)| (*last, *length)).collect();
                assert_eq!(lists.entries(), expected, "seed {seed}");
                assert!(lists.blocks.iter().all(|block| !block.is_empty()), "seed {seed}");
                let found = lists.get(offset).map(|list| list.len());
                assert_eq!(found, map.get(&offset).copied(), "seed {seed}");
            }
        }
    }

    #[test]
    fn few_lists_do_not_keep_the_room_of_many() {
        let mut lists = Lists::default();
        for last in 0..10_000 {
            lists.insert(last, list(1));
        }
        assert!(lists.room() <= 10_000 + 2 * BLOCK_LISTS, "{}", lists.room());
        for last in (0..10_000).filter(|last| last % 100 != 0) {
            lists.remove(last);
        }
        assert!(lists.room() <= 100 * 8, "{}", lists.room());
        let mut block = Lists::default();
        for last in 0..64 {
            block.insert(last, list(1));
        }
        block.remove_from(2);
        assert!(block.room() <= 4, "{}", block.room());
    }
}
