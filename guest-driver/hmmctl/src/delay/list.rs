// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `hmmctl delay --list`.

use super::control::Entry;
use crate::output;

pub(super) fn print(entries: &[Entry], json: bool) -> anyhow::Result<()> {
    output::print(json, &entries, |out| {
        for entry in entries {
            writeln!(out, "{entry}")?;
        }
        Ok(())
    })
}
