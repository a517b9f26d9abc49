// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! [`Granule`] against an array of what each page may.

use hmm_logic::{Granule, PageAccess, GRANULE_PAGES};
use proptest::prelude::*;

const KINDS: [PageAccess; 3] = [PageAccess::Read, PageAccess::Write, PageAccess::Atomic];

#[derive(Clone, Debug)]
enum Step {
    Give(usize, usize, usize),
    Take(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    // Ranges may be empty, reversed, or end beyond the last page.
    let page = 0..GRANULE_PAGES + 70;
    prop_oneof![
        (page.clone(), page.clone(), 0..3usize).prop_map(|(a, b, kind)| Step::Give(a, b, kind)),
        (page.clone(), page).prop_map(|(a, b)| Step::Take(a, b)),
    ]
}

proptest! {
    #[test]
    fn it_is_what_an_array_is(steps in prop::collection::vec(step(), 0..40), from in 0..600usize, to in 0..600usize) {
        let mut granule = Granule::new();
        let mut model = [None; GRANULE_PAGES];
        for step in steps {
            let (start, end, access) = match step {
                Step::Give(start, end, kind) => {
                    granule.give(start..end, KINDS[kind]);
                    (start, end, Some(KINDS[kind]))
                }
                Step::Take(start, end) => {
                    granule.take(start..end);
                    (start, end, None)
                }
            };
            let end = end.min(GRANULE_PAGES);
            if let Some(pages) = model.get_mut(start..end) {
                pages.fill(access);
            }
        }
        for (page, access) in model.iter().enumerate() {
            for kind in KINDS {
                prop_assert_eq!(granule.has(page, kind), access.is_some_and(|access| kind <= access));
            }
            prop_assert_eq!(granule.any(page..page + 1), access.is_some());
        }
        let expected = (from..to.min(GRANULE_PAGES)).any(|page| model[page].is_some());
        prop_assert_eq!(granule.any(from..to), expected);
        let pages = model.iter().flatten().count();
        prop_assert_eq!(granule.pages(), pages);
        prop_assert_eq!(granule.is_empty(), pages == 0);
    }
}

#[test]
fn no_page_beyond_the_last_may_be_accessed() {
    let mut granule = Granule::new();
    granule.give(0..usize::MAX, PageAccess::Atomic);
    assert_eq!(granule.pages(), GRANULE_PAGES);
    assert!(!granule.has(GRANULE_PAGES, PageAccess::Read));
    assert!(!granule.any(GRANULE_PAGES..usize::MAX));
}

#[test]
fn touches_are_remembered_without_pages() {
    let mut granule = Granule::default();
    assert_eq!((granule.touch(), granule.touch()), (1, 2));
    assert!(!granule.is_empty());
    granule.forget_touches();
    assert!(granule.is_empty());
}
