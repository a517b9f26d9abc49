// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The window of a CPU fault.

use hmm_logic::window_around;
use proptest::prelude::*;

const PAGE: usize = 4096;

proptest! {
    #[test]
    fn contains_the_address_and_stays_within_bounds(
        start in 0usize..1 << 30,
        len in 1usize..1 << 12,
        offset in any::<prop::sample::Index>(),
        shift in 12u32..22,
    ) {
        let bounds = start * PAGE..(start + len) * PAGE;
        let address = bounds.start + offset.index(len) * PAGE;
        let window = window_around(address, bounds.clone(), 1 << shift);
        prop_assert!(window.contains(&address));
        prop_assert!(window.start >= bounds.start && window.end <= bounds.end);
        prop_assert!(window.len() <= 1 << shift);
        prop_assert!(window.start % PAGE == 0 && window.end % PAGE == 0);
        // No window crosses a multiple of its size, so two faults never share part of one.
        prop_assert_eq!(window.start >> shift, (window.end - 1) >> shift);
    }
}

#[test]
fn ends_at_the_last_address() {
    let top = usize::MAX & !(PAGE - 1);
    let window = window_around(top - PAGE, 0..top, 1 << 16);
    assert_eq!(window.end, top);
}
