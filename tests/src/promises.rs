// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Holds the promises of `docs/security.md` against the tests that there are.
//!
//! A row of a table whose last column is `tests` is a promise. Its last cell names host tests as `FILE::FUNCTION` and guest
//! cases as `group/name`, each in backquotes.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A promise and the names of its tests.
#[derive(Debug, PartialEq, Eq)]
struct Promise<'a> {
    text: &'a str,
    tests: Vec<&'a str>,
}

fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(str::trim).collect())
}

fn promises(document: &str) -> Vec<Promise<'_>> {
    let mut promises = Vec::new();
    let mut is_promise = false;
    for line in document.lines() {
        let Some(cells) = cells(line) else {
            is_promise = false;
            continue;
        };
        match cells.as_slice() {
            [.., "tests"] => is_promise = true,
            [rule, ..] if rule.starts_with("---") => {}
            [text, .., tests] if is_promise => promises.push(Promise {
                text,
                // What is between the first and the second backquote, the third and the fourth …
                tests: tests.split('`').skip(1).step_by(2).collect(),
            }),
            _ => {}
        }
    }
    promises
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether `source` has a test of this name: a function below `#[test]`, with other attributes between them at most.
fn has_host_test(source: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let mut is_below = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with(&head) && is_below {
            return true;
        }
        is_below = line == "#[test]" || (is_below && line.starts_with("#["));
    }
    false
}

/// The sources that name guest cases: those of the agent, and of the cases that have boots of their own.
fn sources_of_cases() -> Vec<String> {
    fn read(folder: &Path, sources: &mut Vec<String>) {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                read(&path, sources);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_name() != Some("promises.rs".as_ref())
            {
                sources.push(fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    let mut sources = Vec::new();
    for folder in ["tests/agent/src/cases", "tests/src"] {
        read(&root().join(folder), &mut sources);
    }
    sources
}

/// Whether the test exists.
fn exists(test: &str, cases: &[String]) -> bool {
    match test.split_once("::") {
        Some((file, function)) => fs::read_to_string(root().join(file))
            .is_ok_and(|source| has_host_test(&source, function)),
        None => {
            let literal = format!("\"{test}\"");
            cases.iter().any(|source| source.contains(&literal))
        }
    }
}

#[test]
fn every_promise_names_tests_that_exist() {
    let document = fs::read_to_string(root().join("docs/security.md")).expect("the threat model");
    let promises = promises(&document);
    assert!(promises.len() >= 20, "{} promises", promises.len());
    let cases = sources_of_cases();
    let mut wrong = Vec::new();
    for promise in &promises {
        if promise.tests.is_empty() {
            wrong.push(format!("no test: {}", promise.text));
        }
        let missing = promise.tests.iter().filter(|test| !exists(test, &cases));
        wrong.extend(missing.map(|test| format!("{test} does not exist: {}", promise.text)));
    }
    assert!(wrong.is_empty(), "docs/security.md: {wrong:#?}");
}

#[test]
fn promises_are_the_rows_of_tables_with_tests() {
    let document = "| a | b |\n| --- | --- |\n| no | `promise` |\n\n\
        | promise | tests |\n| --- | --- |\n| one | `a/b`, `c.rs::d` |\n| two | |\n\ntext\n| no | more |\n";
    let expected = [
        Promise {
            text: "one",
            tests: vec!["a/b", "c.rs::d"],
        },
        Promise {
            text: "two",
            tests: Vec::new(),
        },
    ];
    assert_eq!(promises(document), expected);
}

#[test]
fn names_that_are_not_those_of_tests_are_noticed() {
    let cases = sources_of_cases();
    let this = "tests/src/promises.rs";
    assert!(exists(
        &format!("{this}::names_that_are_not_those_of_tests_are_noticed"),
        &cases
    ));
    assert!(exists("errors/ioctl-permission", &cases));
    for wrong in [
        format!("{this}::root"),
        format!("{this}::no_such_test"),
        "tests/src/no_such_file.rs::test".to_owned(),
        "errors/no-such-case".to_owned(),
    ] {
        assert!(!exists(&wrong, &cases), "{wrong}");
    }
}
