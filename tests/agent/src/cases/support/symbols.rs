// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Where the kernel's functions are.

use anyhow::{Context, Result, ensure};
use std::fs;

/// The addresses of a function's code, the second one behind it.
pub(in crate::cases) fn text_of(function: &str) -> Result<(u64, u64)> {
    let symbols = fs::read_to_string("/proc/kallsyms").context("cannot list the symbols")?;
    let (start, end) = range(&symbols, function)
        .with_context(|| format!("the kernel has no function '{function}'"))?;
    ensure!(start != 0, "the kernel does not tell its addresses");
    Ok((start, end))
}

/// From a symbol to the next one, in whatever order they are listed.
fn range(symbols: &str, function: &str) -> Option<(u64, u64)> {
    let all = || {
        symbols.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((address, words.nth(1)?))
        })
    };
    let start = all().find(|(_, name)| *name == function)?.0;
    let end = all()
        .map(|(address, _)| address)
        .filter(|address| *address > start)
        .min()?;
    Some((start, end))
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn a_function_ends_where_the_next_begins() {
        let symbols =
            "1000 T first\n3000 t third [module]\n2000 T second\n2000 T alias\nnonsense\n";
        assert_eq!(range(symbols, "second"), Some((0x2000, 0x3000)));
        assert_eq!(range(symbols, "first"), Some((0x1000, 0x2000)));
        assert_eq!(range(symbols, "third"), None);
        assert_eq!(range(symbols, "fourth"), None);
    }
}
