// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Page tables against a plain map from each small page to what it is mapped to.

use std::collections::BTreeMap;

use hmm_protocol::MapFlags;
use proptest::prelude::*;

use super::{
    super::{
        budget::Budget,
        change::{Change, Progress},
    },
    Charge, LEAF_BYTES, Leaf, PAGES, PageTable, SMALL_BYTES,
};

/// The tables cover so many granules here, in two places that are far from each other.
const GRANULES: u64 = 3;
const PLACES: [u64; 2] = [0, (1 << 57) - (GRANULES << 21)];
const FLAGS: [u8; 6] = [1, 3, 7, 1 | 8, 3 | 8, 7 | 8];

/// What is mapped at each small page: its target and its flags.
type Model = BTreeMap<u64, (u64, u8)>;

fn change() -> impl Strategy<Value = Change> {
    let pages = GRANULES * PAGES as u64;
    let place = prop::sample::select(&PLACES[..]);
    let flags = prop::sample::select(&FLAGS[..]);
    let small = (place, 0..pages, 1..pages, 0u64..1 << 40, flags).prop_map(
        move |(place, first, count, target, flags)| {
            let start = place + (first << 12);
            let end = place + ((first + count).min(pages) << 12);
            Change::Map {
                start,
                end,
                target: target << 12,
                flags: MapFlags(flags),
                huge: false,
            }
        },
    );
    let place = prop::sample::select(&PLACES[..]);
    let flags = prop::sample::select(&FLAGS[..]);
    let huge = (place, 0..GRANULES, 1..GRANULES, 0u64..1 << 30, flags).prop_map(
        |(place, first, count, target, flags)| Change::Map {
            start: place + (first << 21),
            end: place + ((first + count).min(GRANULES) << 21),
            target: target << 21,
            flags: MapFlags(flags),
            huge: true,
        },
    );
    let ends = [0, 1 << 57];
    let border = move || {
        prop_oneof![
            1 => prop::sample::select(&[0u64, 1 << 57][..]),
            8 => (prop::sample::select(&PLACES[..]), 0..=pages).prop_map(|(place, page)| place + (page << 12)),
        ]
    };
    let restrict = (
        border(),
        border(),
        prop::sample::select(&[0u8, 1, 3, 7][..]),
    )
        .prop_map(move |(one, other, keep)| {
            let (start, end) = (one.min(other), one.max(other));
            Change::Restrict {
                start,
                end: if start == end { ends[1] } else { end },
                keep: MapFlags(keep),
            }
        });
    prop_oneof![3 => small, 3 => huge, 4 => restrict]
}

/// What the change means, page by page.
fn apply_to_model(model: &mut Model, change: &Change) {
    match *change {
        Change::Map {
            start,
            end,
            target,
            flags,
            ..
        } => {
            for at in (start..end).step_by(4096) {
                model.insert(at, (target + (at - start), flags.0));
            }
        }
        Change::Restrict { start, end, keep } => {
            let pages: Vec<u64> = model.range(start..end).map(|(at, _)| *at).collect();
            for at in pages {
                let Some((_, flags)) = model.get_mut(&at) else {
                    continue;
                };
                *flags &= keep.0 | MapFlags::DEVICE.0;
                if !keep.contains(MapFlags::READ) {
                    model.remove(&at);
                }
            }
        }
    }
}

fn apply(table: &mut PageTable, change: &Change) -> Result<(), hmm_protocol::Status> {
    let mut at = change.start();
    loop {
        match change.slice(table, at)? {
            Progress::Done => return Ok(()),
            Progress::Upto(reached) => {
                assert!(reached > at, "a slice of nothing");
                at = reached;
            }
        }
    }
}

/// What the tables say, page by page.
fn pages_of(table: &PageTable) -> Model {
    let mut pages = Model::new();
    let mut granule = 0;
    while let Some((found, leaf)) = table.next_leaf(granule) {
        let mut mapped = 0;
        for page in 0..PAGES {
            let entry = leaf.entry(page);
            if entry.is_mapped() {
                mapped += 1;
                let at = (found << 21) + ((page as u64) << 12);
                pages.insert(at, (entry.target(), entry.flags().0));
            }
        }
        match leaf {
            Leaf::Huge(_) => assert_eq!(mapped, PAGES),
            Leaf::Small { mapped: noted, .. } => assert_eq!(mapped, usize::from(*noted)),
        }
        assert_ne!(mapped, 0, "a granule without a page is kept");
        granule = found + 1;
    }
    pages
}

fn bytes_of(table: &PageTable) -> u64 {
    let mut bytes = 0;
    let mut granule = 0;
    while let Some((found, leaf)) = table.next_leaf(granule) {
        bytes += leaf.bytes();
        granule = found + 1;
    }
    bytes
}

proptest! {
    // Each case looks at thousands of pages after each change.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn tables_follow_a_plain_map(changes in proptest::collection::vec(change(), 1..16)) {
        let budget = Budget::new(1 << 20);
        let mut table = PageTable::new(Charge::new(budget.clone()));
        let mut model = Model::new();
        for change in &changes {
            apply(&mut table, change).expect("there is memory");
            apply_to_model(&mut model, change);
            prop_assert!(pages_of(&table) == model, "after {:?}", change);
            prop_assert_eq!(table.bytes(), bytes_of(&table));
            prop_assert_eq!(budget.used(), table.bytes());
        }
        for (at, (target, flags)) in &model {
            let leaf = table.leaf(at >> 21).expect("mapped");
            let page = (*at >> 12) as usize % PAGES;
            let run = leaf.run(page, PAGES - page);
            let expected = (0..)
                .take_while(|index: &u64| {
                    (at + (index << 12)) >> 21 == at >> 21
                        && model.get(&(at + (index << 12))) == Some(&(target + (index << 12), *flags))
                })
                .count();
            prop_assert_eq!(run, expected, "from {:#x}", at);
        }
        drop(table);
        prop_assert_eq!(budget.used(), 0);
    }

    /// With too little memory a map may fail, and an unmap takes a whole huge page; but nothing stays that was taken away,
    /// nothing is there that was not given, and the limit is kept.
    #[test]
    fn little_memory_takes_away_too_much_and_never_too_little(
        changes in proptest::collection::vec(change(), 1..16),
        tables in 0u64..4,
    ) {
        let budget = Budget::new(tables * SMALL_BYTES + 6 * LEAF_BYTES);
        let mut table = PageTable::new(Charge::new(budget.clone()));
        let mut model = Model::new();
        for change in &changes {
            // What a map that failed left behind may be the old or the new: the union would be needed, so it is unmapped.
            if apply(&mut table, change).is_err() {
                if let Change::Map { start, end, .. } = *change {
                    let undo = Change::Restrict { start, end, keep: MapFlags::default() };
                    apply(&mut table, &undo).expect("an unmap never fails");
                    apply_to_model(&mut model, &undo);
                }
            } else {
                apply_to_model(&mut model, change);
            }
            prop_assert!(budget.used() <= budget.limit());
            prop_assert_eq!(budget.used(), bytes_of(&table));
            for (at, (target, flags)) in pages_of(&table) {
                let (expected, permitted) = model.get(&at).copied().unwrap_or_default();
                prop_assert_eq!(target, expected, "at {:#x}", at);
                prop_assert_eq!(flags & !permitted, 0, "at {:#x}", at);
            }
        }
    }
}
