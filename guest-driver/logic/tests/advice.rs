// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! Advice by range against advice by page.

use hmm_logic::{Advice, AdviceEntry, AdviceMap, NoRoom, Side, WindowBounds};
use proptest::prelude::*;
use std::ops::Range;

const PAGES: usize = 64;

#[derive(Clone, Debug)]
enum Step {
    Side(Range<usize>, Option<Side>),
    Keep(Range<usize>, bool),
    Window(Range<usize>, Option<WindowBounds>),
    Touches(Range<usize>, Option<u32>),
    Forget(Range<usize>),
    Clear(Range<usize>),
}

fn range() -> impl Strategy<Value = Range<usize>> {
    (0..PAGES, 0..PAGES).prop_map(|(a, b)| a.min(b)..a.max(b) + 1)
}

fn step() -> impl Strategy<Value = Step> {
    let side = prop_oneof![
        Just(None),
        Just(Some(Side::Device)),
        Just(Some(Side::System))
    ];
    let window = prop_oneof![
        Just(None),
        (1usize..3, 3usize..5).prop_map(|(least, most)| Some(WindowBounds { least, most }))
    ];
    prop_oneof![
        (range(), side).prop_map(|(range, side)| Step::Side(range, side)),
        (range(), any::<bool>()).prop_map(|(range, keep)| Step::Keep(range, keep)),
        (range(), window).prop_map(|(range, window)| Step::Window(range, window)),
        (range(), prop::option::of(1u32..4)).prop_map(|(range, count)| Step::Touches(range, count)),
        range().prop_map(Step::Forget),
        range().prop_map(Step::Clear),
    ]
}

/// The fewest ranges that say the same as the pages do.
fn ranges(pages: &[Advice]) -> usize {
    let starts = (0..pages.len()).filter(|&page| page == 0 || pages[page - 1] != pages[page]);
    starts
        .filter(|&page| pages[page] != Advice::default())
        .count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn behaves_like_advice_by_page(steps in prop::collection::vec(step(), 0..60)) {
        // As much as the model can need, and the room for a change.
        let mut map = AdviceMap::new(vec![AdviceEntry::UNUSED; 2 * PAGES + 2]);
        let mut pages = [Advice::default(); PAGES];
        for step in steps {
            let (range, result) = match step {
                Step::Side(range, side) => {
                    pages[range.clone()].iter_mut().for_each(|advice| advice.side = side);
                    (range.clone(), map.update(range, |advice| advice.side = side))
                }
                Step::Keep(range, keep) => {
                    pages[range.clone()].iter_mut().for_each(|advice| advice.keep = keep);
                    (range.clone(), map.update(range, |advice| advice.keep = keep))
                }
                Step::Window(range, window) => {
                    pages[range.clone()].iter_mut().for_each(|advice| advice.window = window);
                    (range.clone(), map.update(range, |advice| advice.window = window))
                }
                Step::Touches(range, count) => {
                    pages[range.clone()].iter_mut().for_each(|advice| advice.touches = count);
                    (range.clone(), map.update(range, |advice| advice.touches = count))
                }
                Step::Forget(range) => {
                    pages[range.clone()].fill(Advice::default());
                    (range.clone(), map.update(range, |advice| *advice = Advice::default()))
                }
                Step::Clear(range) => {
                    pages[range.clone()].fill(Advice::default());
                    map.clear(range.clone());
                    (range, Ok(()))
                }
            };
            prop_assert_eq!(result, Ok(()), "{:?}", range);
            for (page, &advice) in pages.iter().enumerate() {
                prop_assert_eq!(map.get(page), advice, "page {}", page);
                let (same, end) = map.run(page..PAGES);
                prop_assert_eq!(same, advice);
                prop_assert!(end > page && end <= PAGES);
                prop_assert!(pages[page..end].iter().all(|&other| other == advice));
                prop_assert!(end == PAGES || pages[end] != advice, "a run ends early at {}", end);
            }
            prop_assert_eq!(map.len(), ranges(&pages));
            prop_assert_eq!(map.is_empty(), ranges(&pages) == 0);
            let kept = |part: Range<usize>| pages[part].iter().filter(|advice| advice.keep).count();
            for part in [0..PAGES, range] {
                prop_assert_eq!(map.kept(part.clone()), kept(part));
            }
        }
    }

    /// Whatever the room: nothing is advised that was not asked for, and a refusal changes nothing.
    #[test]
    fn short_of_room_advice_is_lost_and_never_invented(
        room in 0usize..8,
        steps in prop::collection::vec((range(), any::<bool>()), 0..60),
    ) {
        let mut map = AdviceMap::new(vec![AdviceEntry::UNUSED; room]);
        let mut pages = [false; PAGES];
        for (range, set) in steps {
            if set {
                let before: Vec<_> = (0..PAGES).map(|page| map.get(page)).collect();
                match map.update(range.clone(), |advice| advice.keep = true) {
                    Ok(()) => pages[range].fill(true),
                    Err(NoRoom) => {
                        let after: Vec<_> = (0..PAGES).map(|page| map.get(page)).collect();
                        prop_assert_eq!(before, after);
                    }
                }
            } else {
                pages[range.clone()].fill(false);
                map.clear(range);
            }
            for (page, &kept) in pages.iter().enumerate() {
                prop_assert!(kept || !map.get(page).keep, "page {} is kept", page);
            }
            prop_assert!(map.len() <= room);
        }
    }
}

#[test]
fn storage_grows_without_a_change() {
    let mut map = AdviceMap::new(vec![AdviceEntry::UNUSED; 1]);
    assert!(map.room_for(&(5..9)) <= map.room());
    map.update(5..9, |advice| advice.keep = true).unwrap();
    map.update(20..30, |advice| advice.side = Some(Side::Device))
        .unwrap_err();
    let old = map.move_to(vec![AdviceEntry::UNUSED; 16]).unwrap();
    assert_eq!(old.len(), 1);
    map.update(20..30, |advice| advice.side = Some(Side::Device))
        .unwrap();
    assert!(map.get(8).keep);
    assert_eq!(map.get(29).side, Some(Side::Device));
    assert_eq!(map.move_to(vec![AdviceEntry::UNUSED; 1]), Err(NoRoom));
    assert_eq!(map.len(), 2);
}

#[test]
fn memory_moves_at_the_touch_that_is_advised() {
    let advice = |side, touches| Advice {
        side,
        touches,
        ..Advice::default()
    };
    for (advice, expected) in [
        (advice(None, None), None),
        (advice(Some(Side::System), None), None),
        (advice(Some(Side::Device), None), Some(1)),
        (advice(Some(Side::Device), Some(u32::MAX)), None),
        (advice(Some(Side::Device), Some(3)), Some(3)),
        (advice(None, Some(3)), Some(3)),
        (advice(None, Some(u32::MAX)), None),
    ] {
        assert_eq!(advice.moves_at_touch(), expected, "{advice:?}");
    }
}
