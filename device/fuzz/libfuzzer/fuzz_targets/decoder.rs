// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! See `hmm_fuzz::decoder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hmm_fuzz::decoder::run(data));
