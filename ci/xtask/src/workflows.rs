// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Holds the workflows of `ci/workflows` against themselves and against the command line.
//!
//! The action's script runs as it is, with a `cargo` that writes its arguments to a file in place of running anything. What
//! it was asked for is then parsed by the real command line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Parser;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::Cli;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../workflows")
}

fn yaml<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    let text = fs::read_to_string(folder().join(name)).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    #[serde(rename = "name")]
    _name: String,
    #[serde(rename = "description")]
    _description: String,
    inputs: BTreeMap<String, Input>,
    outputs: BTreeMap<String, OutputOf>,
    runs: Runs,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    description: String,
    #[serde(rename = "default")]
    _default: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputOf {
    description: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Runs {
    using: String,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    id: String,
    shell: String,
    run: String,
    env: BTreeMap<String, String>,
}

/// What a run of the action's script did.
struct Ran {
    output: Output,
    /// What `cargo xtask` was asked for; nothing if it was not called.
    asked: Option<Vec<String>>,
    /// What it wrote for the steps after it.
    outputs: BTreeMap<String, String>,
    /// What the double of `cargo` printed, as kept for the workflow.
    log: Option<String>,
}

/// Runs the action's script with these inputs and a `cargo` that ends with `code`.
fn run(inputs: &[(&str, &str)], code: u8) -> Ran {
    let home = TempDir::new().unwrap();
    let tools = home.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let cargo = tools.join("cargo");
    fs::write(
        &cargo,
        "#!/bin/sh\nprintf '%s\\0' \"$@\" > \"$ASKED\"\necho printed\nexit \"$CODE\"\n",
    )
    .unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let (asked, told) = (home.path().join("asked"), home.path().join("told"));
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    let results = home.path().join("results");
    let mut command = Command::new(folder().join("action/run"));
    command
        .current_dir(home.path())
        .env("PATH", path)
        .env("ASKED", &asked)
        .env("CODE", code.to_string())
        .env("GITHUB_OUTPUT", &told)
        .env("HMM_RESULTS", "results");
    for name in yaml::<Action>("action/action.yml").runs.steps[0].env.keys() {
        if name != "HMM_RESULTS" {
            command.env(name, "");
        }
    }
    command.envs(inputs.iter().copied());
    let output = command.output().unwrap();
    let read = |path: &Path| fs::read_to_string(path).ok();
    Ran {
        output,
        asked: read(&asked).map(|text| {
            let mut words: Vec<_> = text.split('\0').map(str::to_owned).collect();
            assert_eq!(words.pop().as_deref(), Some(""));
            let start = words.iter().position(|word| word == "--").unwrap();
            words.split_off(start + 1)
        }),
        outputs: (read(&told).unwrap_or_default().lines())
            .map(|line| line.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        log: read(&results.join("output.log")),
    }
}

#[test]
fn every_input_reaches_the_script_and_every_output_comes_from_it() {
    let action: Action = yaml("action/action.yml");
    assert_eq!(action.runs.using, "composite");
    let [step] = action.runs.steps.as_slice() else {
        panic!("the action has one step");
    };
    assert_eq!(step.shell, "bash");
    assert_eq!(step.run, "\"$GITHUB_ACTION_PATH/run\"");
    let passed: BTreeSet<_> = step.env.values().cloned().collect();
    let declared: BTreeSet<_> = (action.inputs.keys())
        .map(|name| format!("${{{{ inputs.{name} }}}}"))
        .collect();
    assert_eq!(passed, declared);
    let script = fs::read_to_string(folder().join("action/run")).unwrap();
    for name in step.env.keys() {
        assert!(script.contains(&format!("${{{name}:-")), "{name}");
    }
    let ran = run(&[], 0);
    let written: BTreeSet<_> = ran.outputs.keys().cloned().collect();
    assert_eq!(written, action.outputs.keys().cloned().collect());
    for (name, output) in &action.outputs {
        let value = format!("${{{{ steps.{}.outputs.{name} }}}}", step.id);
        assert_eq!(output.value, value);
        assert!(output.description.ends_with('.'), "{name}");
    }
    assert!((action.inputs.values()).all(|input| input.description.ends_with('.')));
}

#[test]
fn what_the_script_asks_for_is_understood() {
    for (inputs, expected) in [
        (&[][..], "test --kernel stock --junit RESULTS/junit.xml"),
        (
            &[
                ("HMM_PARTITION", "2/3"),
                ("HMM_KERNEL", "debug"),
                ("HMM_DEPTH", "long"),
            ],
            "test --kernel debug --junit RESULTS/junit.xml --partition 2/3 --depth long",
        ),
        (
            &[("HMM_SUITE", "mm-selftests"), ("HMM_DEPTH", "short")],
            "suite mm-selftests --kernel stock --junit RESULTS/junit.xml --depth short",
        ),
        (
            &[
                ("HMM_COMMAND", "make check"),
                ("HMM_POLICY", "churn"),
                ("HMM_KERNEL", "/a tree"),
            ],
            "run --kernel '/a tree' -- hmmctl run --policy churn -- sh -c 'make check'",
        ),
        (
            &[("HMM_COMMAND", "echo '$HOME'; exit 7")],
            "run --kernel stock -- sh -c \"echo '\\$HOME'; exit 7\"",
        ),
    ] {
        let ran = run(inputs, 0);
        let asked = ran.asked.unwrap_or_else(|| panic!("{:?}", ran.output));
        let results = Path::new(&ran.outputs["log"]).parent().unwrap();
        let expected: Vec<_> = (shlex::split(expected).unwrap().into_iter())
            .map(|word| word.replace("RESULTS", results.to_str().unwrap()))
            .collect();
        assert_eq!(asked, expected);
        let words = ["cargo xtask".to_owned()].into_iter().chain(asked);
        if let Err(error) = Cli::try_parse_from(words) {
            panic!("{error}");
        }
        assert!(ran.output.status.success());
        assert_eq!(ran.outputs["exit-code"], "0");
        assert_eq!(ran.log.as_deref(), Some("printed\n"));
    }
}

#[test]
fn the_code_of_what_ran_is_the_code_of_the_step() {
    let ran = run(&[("HMM_COMMAND", "false")], 125);
    assert_eq!(ran.output.status.code(), Some(125));
    assert_eq!(ran.outputs["exit-code"], "125");
    assert_eq!(ran.outputs["junit"], "");
}

#[test]
fn inputs_that_contradict_each_other_run_nothing() {
    for inputs in [
        [("HMM_COMMAND", "true"), ("HMM_SUITE", "stress-ng")],
        [("HMM_SUITE", "stress-ng"), ("HMM_POLICY", "churn")],
        [("HMM_SUITE", "stress-ng"), ("HMM_PARTITION", "1/3")],
        [("HMM_COMMAND", "true"), ("HMM_DEPTH", "short")],
    ] {
        let ran = run(&inputs, 0);
        assert_eq!(ran.output.status.code(), Some(2), "{inputs:?}");
        assert_eq!(ran.asked, None);
        let message = String::from_utf8(ran.output.stderr).unwrap();
        assert!(message.starts_with("virtio-hmm: "), "{message}");
    }
}

/// All mappings in a document.
fn mappings<'a>(value: &'a Value, found: &mut Vec<&'a serde_json::Map<String, Value>>) {
    match value {
        Value::Object(map) => {
            found.push(map);
            map.values().for_each(|value| mappings(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| mappings(value, found)),
        _ => {}
    }
}

#[test]
fn the_workflows_use_inputs_and_outputs_that_there_are() {
    let action: Action = yaml("action/action.yml");
    let inputs = &action.inputs;
    let workflow: Value = yaml("github.yml");
    let mut all = Vec::new();
    mappings(&workflow, &mut all);
    let uses = |map: &&&serde_json::Map<String, Value>| {
        (map.get("uses").and_then(Value::as_str))
            .is_some_and(|uses| uses.contains("ci/workflows/action"))
    };
    let steps: Vec<_> = all.iter().filter(uses).collect();
    assert_eq!(steps.len(), 2);
    for step in steps {
        for name in step["with"].as_object().unwrap().keys() {
            assert!(inputs.contains_key(name), "{name}");
        }
    }
    let template: Value = yaml("gitlab.yml");
    let mut all = Vec::new();
    mappings(&template, &mut all);
    let names = &action.runs.steps[0].env;
    let mut set = 0;
    for variables in all.iter().filter_map(|map| map.get("variables")) {
        for name in variables.as_object().unwrap().keys() {
            if name.starts_with("HMM_") {
                assert!(names.contains_key(name), "{name}");
                set += 1;
            }
        }
    }
    assert_eq!(set, 4);
    let commands = [&workflow, &template].map(|document| {
        let mut all = Vec::new();
        mappings(document, &mut all);
        let text = |map: &&serde_json::Map<String, Value>, name| match map.get(name) {
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(lines)) => (lines.iter())
                .map(|line| line.as_str().unwrap().to_owned())
                .collect(),
            _ => Vec::new(),
        };
        (all.iter())
            .flat_map(|map| {
                ["run", "script", "before_script"]
                    .into_iter()
                    .flat_map(move |name| text(map, name))
            })
            .collect::<Vec<_>>()
    });
    for script in commands.iter().flatten() {
        let checked = (Command::new("bash").args(["-n", "-c", script]))
            .output()
            .unwrap();
        assert!(checked.status.success(), "{script}: {checked:?}");
    }
    assert!(commands.iter().all(|scripts| !scripts.is_empty()));
}
