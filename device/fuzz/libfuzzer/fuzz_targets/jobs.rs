// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! See `hmm_fuzz::jobs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hmm_fuzz::jobs::run(data));
