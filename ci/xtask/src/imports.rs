// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds import cycles among the files of a crate.
//!
//! An import counts for the file that defines the name, through however many re-exports. So a
//! module root that only declares and re-exports its children imports none of them, and a child may
//! use what its parent re-exports. Test modules do not count.

mod crate_tree;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use petgraph::graphmap::DiGraphMap;

use crate_tree::CrateTree;
pub(crate) use crate_tree::ReadError;

/// A crate that must have no import cycles.
pub(crate) struct CheckedCrate {
    /// Its root file.
    pub(crate) root: &'static str,
}

/// The crates that must have no import cycles.
pub(crate) const CHECKED_CRATES: &[CheckedCrate] = &[
    CheckedCrate {
        root: "device/src/lib.rs",
    },
    CheckedCrate {
        root: "guest-driver/module/virtio_hmm.rs",
    },
];

impl CheckedCrate {
    /// The cycles that the crate must not have.
    pub(crate) fn cycles(&self, repository: &Path) -> Result<Vec<Cycle>, ReadError> {
        cycles(&repository.join(self.root))
    }
}

/// Files that import each other, directly or through others of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cycle {
    /// For each file the files of the cycle that it imports, with the names that it takes.
    pub(crate) imports: BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>,
}

impl std::fmt::Display for Cycle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} files import each other:", self.imports.len())?;
        for (file, imported) in &self.imports {
            for (other, names) in imported {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                let names = names.join(", ");
                write!(f, "\n  {} -> {}: {names}", file.display(), other.display())?;
            }
        }
        Ok(())
    }
}

/// The import cycles of the crate with this root file.
fn cycles(root: &Path) -> Result<Vec<Cycle>, ReadError> {
    let tree = CrateTree::read(root)?;
    let imports = tree.imports();
    let mut graph = DiGraphMap::<usize, ()>::new();
    for &(from, to) in imports.keys() {
        graph.add_edge(from, to, ());
    }
    let mut cycles: Vec<_> = petgraph::algo::tarjan_scc(&graph)
        .into_iter()
        .filter(|members| members.len() > 1)
        .map(|members| {
            let members: BTreeSet<_> = members.into_iter().collect();
            let mut of_cycle: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
            for ((from, to), names) in &imports {
                if members.contains(from) && members.contains(to) {
                    let imported = of_cycle.entry(tree.file(*from).to_owned()).or_default();
                    imported.insert(tree.file(*to).to_owned(), names.clone());
                }
            }
            Cycle { imports: of_cycle }
        })
        .collect();
    cycles.sort_by(|a, b| a.imports.keys().cmp(b.imports.keys()));
    Ok(cycles)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate of these files, the first of which is its root, and its cycles as lists of files.
    fn cycles_of(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let cycles = cycles(&folder.path().join(files[0].0)).unwrap();
        let name = |file: &PathBuf| {
            let file = file.strip_prefix(folder.path()).unwrap();
            file.to_str().unwrap().to_owned()
        };
        cycles
            .iter()
            .map(|cycle| cycle.imports.keys().map(name).collect())
            .collect()
    }

    #[test]
    fn no_crate_of_the_project_has_a_cycle() {
        let repository = crate::build::repository().expect("the project");
        for checked in super::CHECKED_CRATES {
            let cycles = checked.cycles(&repository).expect("its files can be read");
            let cycles: Vec<String> = cycles.iter().map(ToString::to_string).collect();
            assert_eq!(cycles, [""; 0], "{}", checked.root);
        }
    }

    #[test]
    fn two_files_that_import_each_other_are_a_cycle() {
        let cycles = cycles_of(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "use crate::a::A; pub struct B(Box<A>);"),
            ("c.rs", "use crate::{a::A, b::B}; struct C(A, B);"),
        ]);
        assert_eq!(cycles, [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_cycle_through_a_child_is_found() {
        let cycles = cycles_of(&[
            ("lib.rs", "mod a; mod low;"),
            ("a.rs", "mod child; use self::child::C; pub struct A(C);"),
            (
                "a/child.rs",
                "use super::A; use crate::low::L; pub struct C(Box<A>, L);",
            ),
            ("low.rs", "pub struct L;"),
        ]);
        assert_eq!(cycles, [["a/child.rs", "a.rs"]]);
    }

    #[test]
    fn a_cycle_through_a_path_in_the_code_is_found() {
        let cycles = cycles_of(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use super::b; pub fn a() { b::b() }"),
            ("b.rs", "pub fn b() { println!(\"{}\", crate::a::a()) }"),
        ]);
        assert_eq!(cycles, [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_cycle_of_three_through_a_re_export_is_found() {
        let cycles = cycles_of(&[
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "mod one; mod two; pub use self::{one::One, two::Two};",
            ),
            ("a/one.rs", "use crate::b::B; pub struct One(B);"),
            ("a/two.rs", "use super::One; pub struct Two(One);"),
            ("b/mod.rs", "use crate::a::Two; pub struct B(Box<Two>);"),
        ]);
        assert_eq!(cycles, [["a/one.rs", "a/two.rs", "b/mod.rs"]]);
    }

    #[test]
    fn a_root_that_only_re_exports_is_in_no_cycle() {
        let cycles = cycles_of(&[
            ("lib.rs", "mod a;"),
            (
                "a.rs",
                "mod one; mod two; pub use self::{one::One, two::*};",
            ),
            ("a/one.rs", "pub struct One;"),
            ("a/two.rs", "use super::One; pub struct Two(One);"),
        ]);
        assert!(cycles.is_empty(), "{cycles:?}");
    }

    #[test]
    fn a_root_that_uses_what_it_re_exports_can_be_in_a_cycle() {
        let cycles = cycles_of(&[
            ("lib.rs", "mod a;"),
            (
                "a.rs",
                "mod one; pub use self::one::One; pub trait T { fn one() -> One; }",
            ),
            (
                "a/one.rs",
                "use super::T; pub struct One; impl T for One { fn one() -> One { One } }",
            ),
        ]);
        assert_eq!(cycles, [["a/one.rs", "a.rs"]]);
    }

    #[test]
    fn test_modules_do_not_count() {
        let cycles = cycles_of(&[
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod fixtures;"),
            (
                "a.rs",
                "#[cfg(test)] mod tests { use crate::b::B; } pub struct A;",
            ),
            (
                "b.rs",
                "use crate::a::A; pub struct B(A); #[kunit_tests(x)] mod tests { use crate::fixtures::F; }",
            ),
            ("fixtures.rs", "use crate::b::B; pub struct F(B);"),
        ]);
        assert!(cycles.is_empty(), "{cycles:?}");
    }

    #[test]
    fn names_that_macros_make_are_not_imports() {
        let cycles = cycles_of(&[
            ("lib.rs", "mod a; make! { a::A }"),
            ("a.rs", "pub struct A(crate::made::Parameter);"),
        ]);
        assert!(cycles.is_empty(), "{cycles:?}");
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("lib.rs");
        std::fs::write(&root, "mod a;").unwrap();
        let error = cycles(&root).unwrap_err();
        assert!(error.to_string().contains("a.rs"), "{error}");
    }
}
