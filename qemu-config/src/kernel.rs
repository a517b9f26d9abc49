// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The kernel that the guest boots, and the tree that modules for it are built against.

mod build_tree;
mod debug;
mod fixes;
mod fragment;
mod image;
mod module_tree;
mod modules;
mod overlay;
mod own_module;
mod prepared;
mod programs;
mod source;
mod symbols;
mod users_tree;

pub(crate) use debug::DebugKernel;
pub(crate) use fixes::{STEP as FIXES_STEP, key as fixes_key};
pub(crate) use image::{STEP as IMAGE_STEP, key as image_key};
pub(crate) use module_tree::ModuleTree;
pub(crate) use modules::Modules;
pub use own_module::OwnModule;
pub(crate) use own_module::own_module;
pub(crate) use prepared::{STEP as TREE_STEP, key as tree_key};
pub use programs::ProgramBuild;
pub(crate) use programs::programs;
pub(crate) use source::{STEP as SOURCE_STEP, key as source_key};
pub use symbols::SymbolDifference;

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
