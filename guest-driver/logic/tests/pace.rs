// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The size of batches follows the speed of the device.

use hmm_logic::Pace;
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const LEAST: usize = 2 * MIB;
const MOST: usize = 16 * MIB;
const TARGET: u64 = 1_000_000;

fn pace() -> Pace {
    Pace::new(TARGET, LEAST, MOST)
}

#[test]
fn nothing_measured_means_small_batches() {
    assert_eq!(pace().batch_bytes(), LEAST);
}

#[test]
fn small_copies_tell_nothing() {
    let mut pace = pace();
    pace.record(4096, 1);
    assert_eq!(pace.batch_bytes(), LEAST);
}

#[test]
fn a_new_speed_is_learned() {
    let mut pace = pace();
    // 8 MiB a millisecond, then a tenth of it.
    for _ in 0..64 {
        pace.record(8 << 20, 1_000_000);
    }
    assert_eq!(pace.batch_bytes(), 8 * MIB);
    for _ in 0..64 {
        pace.record(8 << 20, 10_000_000);
    }
    assert_eq!(pace.batch_bytes(), LEAST);
}

#[test]
fn who_is_held_up_now_and_then_is_no_slower() {
    let mut pace = pace();
    for sample in 0..64 {
        let delay = if sample % 4 == 0 { 1_000_000 } else { 0 };
        pace.record(8 << 20, 1_000_000 + delay);
    }
    for delay in [1_000_000, 0, 0, 0] {
        pace.record(8 << 20, 1_000_000 + delay);
        assert_eq!(pace.batch_bytes(), 8 * MIB);
    }
}

proptest! {
    #[test]
    fn size_is_bounded_and_takes_the_time_asked_for(
        samples in prop::collection::vec((0u64..1 << 40, any::<u32>()), 0..50),
        (bytes, ns) in (1u64 << 20..1 << 26, 1u32..1 << 30),
    ) {
        let mut pace = pace();
        for (bytes, ns) in samples {
            pace.record(bytes, ns);
            let size = pace.batch_bytes();
            prop_assert!((LEAST..=MOST).contains(&size) && size % LEAST == 0);
        }
        // Whatever came before, a steady speed wins.
        for _ in 0..512 {
            pace.record(bytes, ns);
        }
        let size = pace.batch_bytes() as f64;
        let exact = TARGET as f64 * bytes as f64 / f64::from(ns);
        let half = LEAST as f64 / 2.0;
        prop_assert!(size - half <= exact * 1.02 || size as usize == LEAST, "{size} of {exact}");
        prop_assert!(size + half >= exact * 0.98 || size as usize == MOST, "{size} of {exact}");
    }
}
