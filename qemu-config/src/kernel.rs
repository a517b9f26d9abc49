// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel that the guest boots, and the tree that modules for it are built against.

mod image;
mod module_tree;
mod overlay;
mod prepared;
mod symbols;
mod test_hmm;
mod users_tree;

pub(crate) use image::{STEP as IMAGE_STEP, image, key as image_key};
pub(crate) use module_tree::ModuleTree;
pub(crate) use prepared::{PreparedTree, STEP as TREE_STEP};
pub use symbols::SymbolDifference;
pub(crate) use test_hmm::test_hmm;

/// The value of an option in a kernel configuration, without the quotes of a text.
fn config_value<'a>(config: &'a str, option: &str) -> Option<&'a str> {
    config.lines().find_map(|line| {
        let value = line.strip_prefix(option)?.strip_prefix('=')?;
        let text = value
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        Some(text.unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::config_value;

    #[test]
    fn options_are_read_whole() {
        let config = "# CONFIG_KASAN is not set\nCONFIG_RUST=y\nCONFIG_RUSTC_VERSION_TEXT=\"rustc 1.85.1 (x)\"\n";
        assert_eq!(config_value(config, "CONFIG_RUST"), Some("y"));
        assert_eq!(
            config_value(config, "CONFIG_RUSTC_VERSION_TEXT"),
            Some("rustc 1.85.1 (x)")
        );
        assert_eq!(config_value(config, "CONFIG_KASAN"), None);
        assert_eq!(config_value(config, "CONFIG_RUSTC"), None);
    }
}
