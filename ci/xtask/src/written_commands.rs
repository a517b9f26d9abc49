// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Parses every `cargo xtask` command that the documents show.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;

use crate::Cli;

/// The documents: every Markdown file of the repository.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                documents(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The lines of the blocks of a document, with those that a backslash continues in one.
fn lines_of_blocks(text: &str) -> Vec<String> {
    let (mut is_block, mut lines, mut open) = (false, Vec::new(), String::new());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            match line.strip_suffix('\\') {
                Some(part) => open.push_str(part),
                None => lines.push(std::mem::take(&mut open) + line),
            }
        }
    }
    lines
}

/// The arguments of the first `cargo xtask` of a line, if there is one.
fn arguments(line: &str) -> Option<Vec<String>> {
    let line = line.trim_start();
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let words = shlex::split(line)?;
    let is_variable = |word: &&String| {
        (word.split_once('=')).is_some_and(|(name, _)| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        })
    };
    let start = words.iter().take_while(is_variable).count();
    let rest = words
        .get(start..)?
        .strip_prefix(&["cargo".to_owned(), "xtask".to_owned()])?;
    let ends = |word: &&String| !matches!(word.as_str(), "|" | "&&" | ";" | ">" | "2>" | "&" | "<");
    Some(rest.iter().take_while(ends).cloned().collect())
}

#[test]
fn every_command_of_the_documents_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    documents(&root, &mut files);
    let (mut count, mut wrong) = (0, Vec::new());
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for line in lines_of_blocks(&text) {
            let Some(words) = arguments(&line) else {
                continue;
            };
            count += 1;
            let words = ["cargo xtask".to_owned()].into_iter().chain(words);
            if let Err(error) = Cli::try_parse_from(words) {
                wrong.push(format!("{}: {line}\n{error}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 40, "{count} commands were found");
}

#[test]
fn a_command_is_found_behind_a_prompt_and_variables() {
    let found = |line| arguments(line).map(|words| words.join(" "));
    assert_eq!(
        found("$ cargo xtask demo   # a demo").as_deref(),
        Some("demo")
    );
    assert_eq!(
        found("HMM_LOAD_SEED=1 cargo xtask test --filter a/ | tail -1").as_deref(),
        Some("test --filter a/")
    );
    assert_eq!(found("cargo test"), None);
    assert_eq!(lines_of_blocks("a\n```\nb \\\n  c\n```\nd"), ["b   c"]);
}
