// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Whether the Rust crates that were built here are those in the stock kernel.
//!
//! A mangled Rust name holds a hash of its crate, which depends on the compiler and on everything that the crate is
//! made of. A module refers to these names, so that one built against crates with other hashes does not load, and one
//! built against crates with other contents under the same names would be worse.

use std::collections::BTreeSet;
use std::fmt;

/// Mangled names that only one of the two sides has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SymbolDifference {
    /// How many names the stock kernel exports.
    pub stock_count: usize,
    /// How many names the rebuilt crates export.
    pub rebuilt_count: usize,
    /// Names of the stock kernel that the rebuilt crates lack.
    pub missing: Vec<String>,
    /// Names of the rebuilt crates that the stock kernel lacks.
    pub extra: Vec<String>,
}

impl SymbolDifference {
    /// Compares two lists; `Ok` is the number of names, which are the same and more than none.
    pub(super) fn check(
        stock: &BTreeSet<String>,
        rebuilt: &BTreeSet<String>,
    ) -> Result<usize, Self> {
        if stock == rebuilt && !stock.is_empty() {
            return Ok(stock.len());
        }
        Err(Self {
            stock_count: stock.len(),
            rebuilt_count: rebuilt.len(),
            missing: stock.difference(rebuilt).cloned().collect(),
            extra: rebuilt.difference(stock).cloned().collect(),
        })
    }
}

impl fmt::Display for SymbolDifference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        write!(
            formatter,
            "the stock kernel exports {} Rust symbols and the rebuilt crates {}; {} of stock are missing, {} are not in \
             stock",
            self.stock_count,
            self.rebuilt_count,
            self.missing.len(),
            self.extra.len()
        )?;
        for (side, names) in [("missing", &self.missing), ("not in stock", &self.extra)] {
            for name in names.iter().take(SHOWN) {
                write!(formatter, "\n  {side}: {name}")?;
            }
            if names.len() > SHOWN {
                write!(formatter, "\n  {side}: and {} more", names.len() - SHOWN)?;
            }
        }
        Ok(())
    }
}

/// The Rust names of a `Module.symvers`: `CRC NAME MODULE EXPORT NAMESPACE`, separated by tabs. Only those in the
/// kernel's own image count.
pub(super) fn stock_symbols(symvers: &str) -> BTreeSet<String> {
    (symvers.lines())
        .filter_map(|line| {
            let mut fields = line.split('\t').skip(1);
            let (name, module) = (fields.next()?, fields.next()?);
            (is_rust(name) && module == "vmlinux").then(|| name.to_owned())
        })
        .collect()
}

/// The Rust names of the headers from which the build exports the crates' symbols: `EXPORT_SYMBOL_RUST_GPL(NAME);`.
/// The build makes those headers from the symbol tables of the crates' objects.
pub(super) fn rebuilt_symbols(header: &str) -> BTreeSet<String> {
    (header.lines())
        .filter_map(|line| {
            let name = (line.trim().strip_prefix("EXPORT_SYMBOL_RUST_GPL("))?
                .split_once(')')?
                .0;
            is_rust(name).then(|| name.to_owned())
        })
        .collect()
}

/// Whether a name is mangled by Rust. The C helpers are exported in the same way and have names of their own.
fn is_rust(name: &str) -> bool {
    name.starts_with("_RN") || name.starts_with("_RI")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMVERS: &str = "0x00000000\t_RNvCsA_6kernel3one\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
                           0x00000000\t_RNvCsA_6kernel3two\tvmlinux\tEXPORT_SYMBOL_GPL\t\n\
                           0x00000000\t_RNvCsB_7mymodule\tdrivers/rust\tEXPORT_SYMBOL_GPL\t\n\
                           0x00000000\tmigrate_vma_setup\tvmlinux\tEXPORT_SYMBOL\t\n";
    const HEADER: &str = "EXPORT_SYMBOL_RUST_GPL(_RNvCsA_6kernel3one);\n\
                          EXPORT_SYMBOL_RUST_GPL(rust_helper_get_page);\n\
                          EXPORT_SYMBOL_RUST_GPL(_RNvCsA_6kernel3two);\n";

    #[test]
    fn the_same_symbols_fit() {
        let (stock, rebuilt) = (stock_symbols(SYMVERS), rebuilt_symbols(HEADER));
        assert_eq!(SymbolDifference::check(&stock, &rebuilt), Ok(2));
    }

    #[test]
    fn a_different_symbol_is_named_on_both_sides() {
        let rebuilt = rebuilt_symbols(&HEADER.replace("3two", "3owt"));
        let difference = SymbolDifference::check(&stock_symbols(SYMVERS), &rebuilt).unwrap_err();
        assert_eq!(difference.missing, ["_RNvCsA_6kernel3two"]);
        assert_eq!(difference.extra, ["_RNvCsA_6kernel3owt"]);
        let text = difference.to_string();
        for part in ["exports 2", "crates 2", "3two", "3owt"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_symbol_too_few_or_too_many_is_noticed() {
        let stock = stock_symbols(SYMVERS);
        let fewer = rebuilt_symbols(HEADER.lines().next().unwrap());
        assert_eq!(
            SymbolDifference::check(&stock, &fewer)
                .unwrap_err()
                .missing
                .len(),
            1
        );
        let more = rebuilt_symbols(&format!(
            "{HEADER}EXPORT_SYMBOL_RUST_GPL(_RNvCsA_6kernel5three);\n"
        ));
        assert_eq!(
            SymbolDifference::check(&stock, &more)
                .unwrap_err()
                .extra
                .len(),
            1
        );
    }

    #[test]
    fn two_empty_lists_do_not_fit() {
        let none = BTreeSet::new();
        assert!(SymbolDifference::check(&none, &none).is_err());
    }

    #[test]
    fn a_long_difference_is_cut() {
        let stock = (0..10).map(|index| format!("_RN{index}")).collect();
        let difference = SymbolDifference::check(&stock, &BTreeSet::new()).unwrap_err();
        assert!(difference.to_string().contains("and 7 more"));
    }
}
