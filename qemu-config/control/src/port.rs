// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The names of the virtio-serial ports.

/// Requests and reports, one JSON value a line.
pub const CONTROL: &str = "hmm.control";
/// Standard input of the command, from the host.
pub const STDIN: &str = "hmm.stdin";
/// Standard output of the command, to the host.
pub const STDOUT: &str = "hmm.stdout";
/// Standard error of the command, to the host.
pub const STDERR: &str = "hmm.stderr";
/// Results of the guest's cases as KTAP, to the host.
pub const KTAP: &str = "hmm.ktap";
/// What the guest's init does, one JSON value a line, to the host.
pub const EVENTS: &str = "hmm.events";

/// All ports, in the order in which the machine has them.
pub const ALL: [&str; 6] = [CONTROL, STDIN, STDOUT, STDERR, KTAP, EVENTS];
