// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Recordings that the guest's init makes while it runs cases or the benchmark: the driver's events, in the form of
//! `hmmctl record` (`ci/report/src/recording.rs`), but without looks at memory, for which the device would have to stay open.

/// The first argument that makes the guest's init write the recording to its standard output, or that in the file which the
/// second argument names.
pub const ARGUMENT: &str = "--recording";
/// Where the recording is in the guest.
pub const PATH: &str = "/tmp/hmm-events.txt";
/// So many events are kept, of each guest. A browser shows them without a pause.
pub const EVENTS: usize = 100_000;
