// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The names in a piece of Rust code.

use proc_macro2::{TokenStream, TokenTree};

/// A path as it stands in the code, such as `crate::pool::Pool`.
pub(super) type NamePath = Vec<String>;

/// What one leaf of a `use` item imports.
#[derive(Debug)]
pub(super) struct Import {
    /// The path, of modules only for a glob.
    pub(super) path: NamePath,
    /// The name that it has in the importing file; `None` for a glob.
    pub(super) name: Option<String>,
}

/// The leaves of a `use` tree.
pub(super) fn leaves(tree: &syn::UseTree) -> Vec<Import> {
    let mut imports = Vec::new();
    collect(tree, &mut Vec::new(), &mut imports);
    imports
}

fn collect(tree: &syn::UseTree, prefix: &mut NamePath, imports: &mut Vec<Import>) {
    match tree {
        syn::UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            collect(&path.tree, prefix, imports);
            prefix.pop();
        }
        syn::UseTree::Group(group) => {
            for item in &group.items {
                collect(item, prefix, imports);
            }
        }
        syn::UseTree::Name(name) => imports.push(leaf(prefix, &name.ident, &name.ident)),
        syn::UseTree::Rename(rename) => imports.push(leaf(prefix, &rename.ident, &rename.rename)),
        syn::UseTree::Glob(_) => imports.push(Import {
            path: prefix.clone(),
            name: None,
        }),
    }
}

fn leaf(prefix: &[String], ident: &syn::Ident, name: &syn::Ident) -> Import {
    let mut path = prefix.to_vec();
    let mut name = name.to_string();
    if ident == "self" {
        // `use a::{self}` imports `a`.
        if name == "self" {
            name = path.last().cloned().unwrap_or_default();
        }
    } else {
        path.push(ident.to_string());
    }
    Import {
        path,
        name: Some(name),
    }
}

/// All paths in `tokens`, also within macros; single names are paths of one segment.
pub(super) fn paths(tokens: TokenStream) -> Vec<NamePath> {
    let mut paths = Vec::new();
    collect_paths(tokens, &mut paths);
    paths
}

fn collect_paths(tokens: TokenStream, paths: &mut Vec<NamePath>) {
    let mut current = NamePath::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                if colons != 2 && !current.is_empty() {
                    paths.push(std::mem::take(&mut current));
                }
                current.push(ident.to_string());
                colons = 0;
                continue;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => collect_paths(group.stream(), paths),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        colons = 0;
        if !current.is_empty() {
            paths.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        paths.push(current);
    }
}
