// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The modules of the device form layers: no module imports, over any number of steps, itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Which modules of the crate each of them imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_module_imports_itself_by_way_of_others() {
    let mut imports = Imports::new();
    read_folder(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        None,
        &mut imports,
    );
    assert!(imports["engine"].contains("memory"), "{imports:?}");
    assert!(imports["main"].is_empty(), "{imports:?}");
    let cycle = cycle_of(imports);
    assert!(cycle.is_empty(), "these import each other: {cycle:?}");
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::{a, b::{self, c}, d::E};\nfn f() { crate::f::g(); } // crate::h\n\
                #[cfg(test)]\nmod tests { use crate::i; }\n";
    assert_eq!(
        imports_of(text).into_iter().collect::<Vec<_>>(),
        ["a", "b", "d", "f"]
    );
    let chain = |pairs: &[(&str, &str)]| -> Imports {
        pairs
            .iter()
            .map(|(from, to)| ((*from).to_owned(), BTreeSet::from([(*to).to_owned()])))
            .collect()
    };
    let open = chain(&[("a", "b"), ("b", "c")]);
    assert!(cycle_of(open).is_empty());
    let closed = chain(&[("a", "b"), ("b", "c"), ("c", "b")]);
    assert_eq!(cycle_of(closed).into_keys().collect::<Vec<_>>(), ["b", "c"]);
}

/// Adds the imports of the files in `folder`, which belong to `module`, or each to its own.
fn read_folder(folder: &Path, module: Option<&str>, imports: &mut Imports) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path: PathBuf = entry.expect("an entry").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let module = module.or(stem).expect("a name");
        if path.is_dir() {
            read_folder(&path, Some(module), imports);
        } else if module != "lib" {
            let text = std::fs::read_to_string(&path).expect("a source file");
            let found = imports_of(&text);
            let known = imports.entry(module.to_owned()).or_default();
            known.extend(found.into_iter().filter(|name| name != module));
        }
    }
}

/// The modules that follow `crate::`, outside comments and unit tests.
fn imports_of(text: &str) -> BTreeSet<String> {
    let code: String = text
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => first_names(group),
            None => vec![first_name(rest)],
        })
        .collect()
}

/// The first name of each item of a group, up to its closing brace.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0u32, 0, Vec::new());
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn first_name(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

/// What is left when modules that import nothing else, or that nothing else imports, are taken away again and again.
fn cycle_of(mut imports: Imports) -> Imports {
    loop {
        let names: BTreeSet<String> = imports.keys().cloned().collect();
        let imported: BTreeSet<String> = imports.values().flatten().cloned().collect();
        let before = imports.len();
        imports.retain(|name, uses| !uses.is_disjoint(&names) && imported.contains(name));
        if imports.len() == before {
            return imports;
        }
    }
}
