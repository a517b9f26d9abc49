// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Parses every `cargo xtask` and `hmmctl` command that the documents show, follows their links, and holds the book's table
//! of contents against the folder.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;

use std::collections::BTreeSet;

use crate::Cli;

/// The documents with their texts: every Markdown file of the repository.
fn documents() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    find_documents(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
        &mut files,
    );
    (files.into_iter())
        .map(|file| {
            let text = fs::read_to_string(&file).unwrap();
            (file, text)
        })
        .collect()
}

fn find_documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                find_documents(&path, found);
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
    let (mut count, mut wrong) = (0, Vec::new());
    for (file, text) in documents() {
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

/// The words after each `hmmctl` of a line: it stands alone, behind `cargo xtask run --`, behind another `hmmctl`, or in the
/// text that a shell runs.
fn of_hmmctl(line: &str) -> Vec<Vec<String>> {
    let line = line.trim_start().trim_start_matches(['$', '#']);
    let Some(words) = shlex::split(line) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let is_end =
        |word: &&String| matches!(word.as_str(), "|" | "&&" | "||" | ">" | "2>" | "<" | "&");
    // Only a command begins with it: a word such as `hmmctl` in `apt install hmmctl` is an argument.
    let begins = |place: usize| {
        place == 0 || matches!(words[place - 1].as_str(), "--" | "|" | "&&" | "||" | "$")
    };
    for (place, word) in words.iter().enumerate() {
        if word == "hmmctl" && begins(place) {
            found.push(
                words[place..]
                    .iter()
                    .take_while(|word| !is_end(word))
                    .cloned()
                    .collect(),
            );
        } else if word.contains("hmmctl ") && words[..place].last().is_some_and(|word| word == "-c")
        {
            for part in word.split([';', '\n', '|']) {
                found.extend(of_hmmctl(part));
            }
        }
    }
    found
}

#[test]
fn every_hmmctl_command_of_the_documents_is_understood() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (file, text) in documents() {
        for line in lines_of_blocks(&text) {
            for words in of_hmmctl(&line) {
                count += 1;
                // A process id stands for itself.
                let words = words
                    .iter()
                    .map(|word| if word == "$$" { "1" } else { word });
                if let Err(error) = hmmctl::command_line().try_get_matches_from(words) {
                    wrong.push(format!("{}: {line}\n{error}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 10, "{count} commands were found");
}

#[test]
fn a_command_of_hmmctl_is_found_wherever_it_stands() {
    let found = |line| -> Vec<String> {
        (of_hmmctl(line).iter())
            .map(|words| words.join(" "))
            .collect()
    };
    assert_eq!(found("# hmmctl info"), ["hmmctl info"]);
    assert_eq!(
        found("cargo xtask run -- hmmctl record -- hmmctl run -- sort x | tail"),
        [
            "hmmctl record -- hmmctl run -- sort x",
            "hmmctl run -- sort x"
        ]
    );
    assert_eq!(
        found("cargo xtask run -- sh -c 'echo 1; hmmctl info --json'"),
        ["hmmctl info --json"]
    );
    assert!(found("apt install hmmctl").is_empty());
}

/// The anchor that a heading has: as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim();
    (text.chars())
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            letter if letter.is_alphanumeric() || letter == '-' || letter == '_' => {
                Some(letter.to_ascii_lowercase())
            }
            _ => None,
        })
        .collect()
}

/// The anchors of a document.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(anchor)
        .collect()
}

/// The lines of a document that are in no block.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_block = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_block ^= is_fence;
        !is_block && !is_fence
    })
}

/// The targets of the links and pictures of a document.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let mut rest = line;
        while let Some((_, after)) = rest.split_once("](") {
            let (target, after) = after.split_once(')').unwrap_or((after, ""));
            found.push(target.to_owned());
            rest = after;
        }
    }
    found
}

#[test]
fn every_link_within_the_repository_leads_somewhere() {
    let (mut count, mut wrong) = (0, Vec::new());
    for (file, text) in documents() {
        for link in links(&text) {
            if link.contains("://") {
                continue;
            }
            count += 1;
            let (path, place) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => file.clone(),
                path => file.parent().unwrap().join(path),
            };
            let is_there = target.exists()
                && (place.is_empty()
                    || fs::read_to_string(&target)
                        .is_ok_and(|text| anchors(&text).contains(place)));
            if !is_there {
                wrong.push(format!("{}: {link}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 80, "{count} links were found");
}

#[test]
fn links_and_anchors_are_found() {
    assert_eq!(
        links("a [b](c.md#d) and ![e](f.webp)\n```\n[g](h)\n```"),
        ["c.md#d", "f.webp"]
    );
    assert_eq!(anchor("## Reports, of `hmmctl`"), "reports-of-hmmctl");
    assert!(anchors("```\n# no heading\n```\n### A b").contains("a-b"));
}

#[test]
fn the_book_has_each_page_once() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let summary = fs::read_to_string(folder.join("SUMMARY.md")).unwrap();
    let mut told = links(&summary);
    told.sort();
    let mut pages: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md") && name != "SUMMARY.md")
        .collect();
    pages.sort();
    assert_eq!(told, pages);
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
