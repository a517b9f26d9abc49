// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program `hmmctl`. Everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hmmctl::main()
}
