// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The modules of a crate, and which file takes which name from which other file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use quote::ToTokens;

use super::names::{self, Import, NamePath};

/// Why a crate could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// A file of the crate cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file is not Rust code.
    #[error("cannot parse {}: {error}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        error: syn::Error,
    },
}

/// For each pair of files, the importing one first, the names.
pub(super) type Imports = BTreeMap<(usize, usize), BTreeSet<String>>;

/// A module that has a file of its own.
struct Module {
    file: PathBuf,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    /// What the file itself defines.
    items: HashSet<String>,
    uses: Vec<Use>,
    /// The paths in its code, without those of `use` items.
    paths: Vec<NamePath>,
}

struct Use {
    import: Import,
    is_re_export: bool,
}

/// All modules of a crate; the first is its root.
pub(super) struct CrateTree {
    modules: Vec<Module>,
}

/// How many re-exports are followed for one name; more are a cycle of globs.
const HOPS: usize = 16;

impl CrateTree {
    /// Reads the crate with this root file.
    pub(super) fn read(root: &Path) -> Result<Self, ReadError> {
        let mut tree = Self {
            modules: Vec::new(),
        };
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        tree.add(root.to_owned(), &folder, None)?;
        Ok(tree)
    }

    /// The file of a module.
    pub(super) fn file(&self, module: usize) -> &Path {
        &self.modules[module].file
    }

    /// Adds the module in `file`, whose children are in `folder`.
    fn add(
        &mut self,
        file: PathBuf,
        folder: &Path,
        parent: Option<usize>,
    ) -> Result<usize, ReadError> {
        let text = std::fs::read_to_string(&file).map_err(|error| ReadError::Read {
            path: file.clone(),
            error,
        })?;
        let parsed = syn::parse_file(&text).map_err(|error| ReadError::Parse {
            path: file.clone(),
            error,
        })?;
        let module = self.modules.len();
        self.modules.push(Module {
            file,
            parent,
            children: HashMap::new(),
            items: HashSet::new(),
            uses: Vec::new(),
            paths: Vec::new(),
        });
        self.add_items(module, folder, &parsed.items)?;
        Ok(module)
    }

    fn add_items(
        &mut self,
        module: usize,
        folder: &Path,
        items: &[syn::Item],
    ) -> Result<(), ReadError> {
        for item in items {
            match item {
                syn::Item::Mod(inner) if is_of_tests(&inner.attrs) => {}
                syn::Item::Mod(inner) => {
                    let name = inner.ident.to_string();
                    if let Some((_, items)) = &inner.content {
                        // What is within belongs to the file.
                        self.add_items(module, &folder.join(&name), items)?;
                        continue;
                    }
                    let below = folder.join(&name);
                    let as_root = below.join("mod.rs");
                    let file = match as_root.exists() {
                        true => as_root,
                        false => folder.join(format!("{name}.rs")),
                    };
                    let child = self.add(file, &below, Some(module))?;
                    self.modules[module].children.insert(name, child);
                }
                syn::Item::Use(item) if is_of_tests(&item.attrs) => {}
                syn::Item::Use(item) => {
                    let is_re_export = !matches!(item.vis, syn::Visibility::Inherited);
                    let leaves = names::leaves(&item.tree).into_iter();
                    self.modules[module].uses.extend(leaves.map(|import| Use {
                        import,
                        is_re_export,
                    }));
                }
                other => {
                    let (attributes, name) = attributes_and_name(other);
                    if is_of_tests(attributes) {
                        continue;
                    }
                    let of = &mut self.modules[module];
                    of.items.extend(name);
                    of.paths.extend(names::paths(other.to_token_stream()));
                }
            }
        }
        Ok(())
    }

    /// Which file takes which names from which other file.
    pub(super) fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (from, module) in self.modules.iter().enumerate() {
            let mentioned: HashSet<_> = module.paths.iter().map(|path| &path[0]).collect();
            let mut add = |path: &[String]| {
                if let Some((to, name)) = self.defines(from, path, HOPS)
                    && to != from
                {
                    imports.entry((from, to)).or_default().insert(name);
                }
            };
            for Use {
                import,
                is_re_export,
            } in &module.uses
            {
                // A re-export is an import where the file uses the name itself.
                let counts = match &import.name {
                    Some(name) => !is_re_export || mentioned.contains(name),
                    None => false,
                };
                if counts {
                    add(&import.path);
                }
            }
            for path in module.paths.iter().filter(|path| path.len() > 1) {
                add(path);
            }
        }
        imports
    }

    /// The file that defines what `path` means in the module `at`, and its name there; `None` for
    /// modules, other crates, and what macros make.
    fn defines(&self, at: usize, path: &[String], hops: usize) -> Option<(usize, String)> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.within(0, rest, hops),
            "self" => self.within(at, rest, hops),
            "super" => self.within(self.modules[at].parent?, rest, hops),
            _ => self.within(at, path, hops),
        }
    }

    /// As [`Self::defines`], for a path that begins with a name of the module.
    fn within(&self, module: usize, path: &[String], hops: usize) -> Option<(usize, String)> {
        let hops = hops.checked_sub(1)?;
        let (first, rest) = path.split_first()?;
        if first == "super" {
            return self.within(self.modules[module].parent?, rest, hops);
        }
        let of = &self.modules[module];
        if of.items.contains(first) {
            return Some((module, first.clone()));
        }
        if let Some(&child) = of.children.get(first) {
            return self.within(child, rest, hops);
        }
        let named = of
            .uses
            .iter()
            .filter(|entry| entry.import.name.as_ref() == Some(first));
        let globs = of.uses.iter().filter(|entry| entry.import.name.is_none());
        named
            .map(|entry| entry.import.path.iter().chain(rest).cloned().collect())
            .chain(globs.map(|entry| entry.import.path.iter().chain(path).cloned().collect()))
            .find_map(
                |path: NamePath| match path == *std::slice::from_ref(first) {
                    // The name of another crate.
                    true => None,
                    false => self.defines(module, &path, hops),
                },
            )
    }
}

/// Whether an item is only there for tests.
fn is_of_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        let tokens = attribute.meta.to_token_stream().to_string();
        let words = || tokens.split(|c: char| !c.is_alphanumeric() && c != '_');
        attribute.path().is_ident("kunit_tests")
            || is_cfg
                && words().any(|word| word == "test" || word == "CONFIG_KUNIT")
                && !words().any(|word| word == "not")
    })
}

/// The attributes of an item, and its name if it has one.
fn attributes_and_name(item: &syn::Item) -> (&[syn::Attribute], Option<String>) {
    match item {
        syn::Item::Const(item) => (&item.attrs, Some(item.ident.to_string())),
        syn::Item::Enum(item) => (&item.attrs, Some(item.ident.to_string())),
        syn::Item::Fn(item) => (&item.attrs, Some(item.sig.ident.to_string())),
        syn::Item::Impl(item) => (&item.attrs, None),
        syn::Item::Macro(item) => (&item.attrs, item.ident.as_ref().map(ToString::to_string)),
        syn::Item::Static(item) => (&item.attrs, Some(item.ident.to_string())),
        syn::Item::Struct(item) => (&item.attrs, Some(item.ident.to_string())),
        syn::Item::Trait(item) => (&item.attrs, Some(item.ident.to_string())),
        syn::Item::Type(item) => (&item.attrs, Some(item.ident.to_string())),
        syn::Item::Union(item) => (&item.attrs, Some(item.ident.to_string())),
        _ => (&[], None),
    }
}
