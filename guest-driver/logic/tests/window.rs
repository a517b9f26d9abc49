// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The window of a CPU fault.

use hmm_logic::{Window, WindowBounds, Windows, WINDOW_LEAST, WINDOW_MOST};
use proptest::prelude::*;

const PAGE: usize = 4096;
const SPACE: usize = 7;
/// What the second fault takes, up to the next multiple.
const WINDOW_SECOND: usize = 64 << 10;

/// Reads `range` upwards, page by page; returns how many faults that takes if what is fetched ahead
/// comes in time.
fn read(windows: &mut Windows<8>, space: usize, range: core::ops::Range<usize>) -> usize {
    let (mut faults, mut address) = (0, range.start);
    while address < range.end {
        let window = windows.of_fault(space, address, range.clone(), WindowBounds::DEFAULT);
        assert_eq!(window.ahead.start, window.now.end);
        address = window.ahead.end;
        faults += 1;
    }
    faults
}

#[test]
fn who_reads_on_gets_more_and_more() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..64 * WINDOW_MOST;
    let (mut last, mut last_ahead) = (0, 0);
    let mut address = 0;
    while address < mapping.end {
        let Window { now, ahead } =
            windows.of_fault(SPACE, address, mapping.clone(), WindowBounds::DEFAULT);
        assert!(now.len() >= last || now.end % WINDOW_MOST == 0);
        assert!(ahead.len() >= last_ahead || ahead.end == mapping.end);
        assert!(ahead.is_empty() || address >= WINDOW_MOST);
        (last, last_ahead) = (now.len(), ahead.len());
        address = ahead.end;
    }
    assert_eq!(last, WINDOW_MOST);
}

#[test]
fn reading_takes_about_one_fault_for_34_mib() {
    let mut windows = Windows::<8>::new();
    let faults = read(&mut windows, SPACE, 0..17 * 20 * WINDOW_MOST);
    assert!(faults <= 20 + 12, "{faults}");
}

#[test]
fn where_somebody_read_before_does_not_matter() {
    let mut windows = Windows::<8>::new();
    let range = 0..17 * 20 * WINDOW_MOST;
    let first = read(&mut windows, SPACE, range.clone());
    for _ in 0..20 {
        let again = read(&mut windows, SPACE, range.clone());
        assert!(again <= first, "{again} instead of {first}");
    }
}

#[test]
fn who_is_faster_than_what_is_fetched_gets_the_most() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..64 * WINDOW_MOST;
    let (mut faults, mut address) = (0, 0);
    while address < mapping.end {
        // Nothing that was to be fetched ahead has come.
        let window = windows.of_fault(SPACE, address, mapping.clone(), WindowBounds::DEFAULT);
        address = window.now.end;
        faults += 1;
    }
    assert!(faults <= 64 + 8, "{faults}");
}

#[test]
fn huge_pages_are_fetched_ahead_from_the_second_on() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..64 * WINDOW_MOST;
    let huge = WindowBounds::exactly(WINDOW_MOST);
    let first = windows.of_fault(SPACE, 0, mapping.clone(), huge);
    assert_eq!(first.now, 0..WINDOW_MOST);
    assert!(first.ahead.is_empty());
    let second = windows.of_fault(SPACE, WINDOW_MOST, mapping, huge);
    assert_eq!(second.now, WINDOW_MOST..2 * WINDOW_MOST);
    assert_eq!(second.ahead, 2 * WINDOW_MOST..3 * WINDOW_MOST);
}

#[test]
fn reading_downwards_is_learned_too() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..64 * WINDOW_MOST;
    let (mut faults, mut end) = (0, mapping.end);
    while end > 0 {
        let Window { now, ahead } =
            windows.of_fault(SPACE, end - PAGE, mapping.clone(), WindowBounds::DEFAULT);
        assert!(now.end >= end);
        assert!(ahead.is_empty() || ahead.end == now.start);
        end = now.start.min(ahead.start);
        faults += 1;
    }
    assert!(faults <= 13 + 12, "{faults}");
}

#[test]
fn readers_do_not_disturb_each_other() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..1 << 40;
    let mut next: Vec<usize> = (0..8).map(|reader| reader << 36).collect();
    let mut sizes = vec![0; 8];
    for _ in 0..64 {
        for (next, size) in next.iter_mut().zip(&mut sizes) {
            let window = windows.of_fault(SPACE, *next, mapping.clone(), WindowBounds::DEFAULT);
            (*next, *size) = (window.now.end, window.now.len());
        }
    }
    assert!(sizes.iter().all(|&size| size == WINDOW_MOST), "{sizes:?}");
}

#[test]
fn who_jumps_about_gets_little() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..1 << 40;
    for step in 0..1000usize {
        let address = (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % mapping.end) & !(PAGE - 1);
        let window = windows.of_fault(SPACE, address, mapping.clone(), WindowBounds::DEFAULT);
        assert_eq!(window.now.len(), WINDOW_LEAST);
        assert!(window.ahead.is_empty());
    }
}

#[test]
fn who_jumps_about_where_somebody_read_gets_little_soon() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..34 * WINDOW_MOST;
    read(&mut windows, SPACE, mapping.clone());
    let mut taken = 0;
    for step in 0..1000usize {
        let address = (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % mapping.end) & !(PAGE - 1);
        let window = windows.of_fault(SPACE, address, mapping.clone(), WindowBounds::DEFAULT);
        taken = if step < 100 {
            0
        } else {
            taken + window.now.len()
        };
    }
    // By chance some of them are near each other.
    assert!(taken < 900 * 4 * PAGE, "{taken}");
}

#[test]
fn address_spaces_are_told_apart() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..1 << 30;
    let first = windows.of_fault(1, 0, mapping.clone(), WindowBounds::DEFAULT);
    let next = first.now.end;
    let other = windows.of_fault(2, next, mapping.clone(), WindowBounds::DEFAULT);
    assert_eq!(other.now.len(), WINDOW_LEAST);
    let same = windows.of_fault(1, next, mapping, WindowBounds::DEFAULT);
    assert_eq!(same.now.len(), WINDOW_SECOND);
}

#[test]
fn who_goes_on_nearby_counts_as_a_reader() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..1 << 30;
    let mut address = 0;
    let mut faults = 0;
    while address < 64 << 20 {
        // Every third page is read.
        let window = windows.of_fault(SPACE, address, mapping.clone(), WindowBounds::DEFAULT);
        faults += 1;
        while address < window.now.end {
            address += 3 * PAGE;
        }
    }
    assert!(faults < 48, "{faults}");
}

#[test]
fn bounds_are_kept() {
    let mut windows = Windows::<8>::new();
    let mapping = 0..1 << 30;
    let one = WindowBounds::exactly(PAGE);
    let mut address = 0;
    for _ in 0..100 {
        let window = windows.of_fault(SPACE, address, mapping.clone(), one);
        assert_eq!(window.now, address..address + PAGE);
        assert!(window.ahead.is_empty());
        address = window.now.end;
    }
}

proptest! {
    #[test]
    fn contains_the_address_and_stays_within_bounds(
        faults in prop::collection::vec(
            (1usize..4, 0usize..1 << 12, 0u32..10, 0u32..10), 1..200,
        ),
        start in 0usize..1 << 20,
    ) {
        let mapping = start * PAGE..(start + (1 << 12)) * PAGE;
        let mut windows = Windows::<4>::new();
        for (space, page, least, more) in faults {
            let least = PAGE << least;
            let bounds = WindowBounds { least, most: least << more };
            let address = mapping.start + page * PAGE;
            let Window { now: window, ahead } =
                windows.of_fault(space, address, mapping.clone(), bounds);
            prop_assert!(ahead.is_empty() || bounds.most >= WINDOW_MOST);
            prop_assert!(ahead.is_empty() || ahead.start == window.end || ahead.end == window.start);
            prop_assert!(ahead.start >= mapping.start && ahead.end <= mapping.end);
            prop_assert!(ahead.start % PAGE == 0 && ahead.end % PAGE == 0);
            prop_assert!(window.contains(&address));
            prop_assert!(window.start >= mapping.start && window.end <= mapping.end);
            prop_assert!(window.len() <= WINDOW_MOST && window.len() <= bounds.most.max(least));
            prop_assert!(window.start % PAGE == 0 && window.end % PAGE == 0);
            prop_assert_eq!(window.start / WINDOW_MOST, (window.end - 1) / WINDOW_MOST);
        }
    }
}
