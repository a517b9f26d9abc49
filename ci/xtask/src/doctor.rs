// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask doctor`.

use std::path::Path;
use std::process::ExitCode;

use hmm_vm::KernelChoice;
use hmm_vm::host::{Finding, Need, install_commands};

use crate::setup_arguments::SetupArguments;

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
}

/// Looks at the machine; ends with the code of a lacking environment when something is missing that set-up cannot make.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let options = arguments.setup.options();
    let survey = hmm_vm::survey(&options)?;

    println!("This machine");
    host_lines(&survey.host);
    if let Some(problem) = &survey.sandbox_problem {
        println!("  bwrap cannot do its work: {problem}");
    }
    match &survey.host_qemu {
        Some(path) => println!("  QEMU with the device: {}", path.display()),
        None => println!("  QEMU with the device: none; Debian's is unpacked into the cache"),
    }
    match &survey.mirror {
        Ok(mirror) => println!("  mirror: {mirror}"),
        Err(error) => println!("  mirror: {error}"),
    }

    println!("The cache, {}", survey.cache.display());
    for step in &survey.steps {
        line(step.name, step.folder.as_deref(), step.purpose);
    }
    if options.kernel == KernelChoice::Stock {
        let debug = hmm_vm::survey(&arguments.setup.options_for(KernelChoice::Debug))?;
        println!("For the tests on the debug kernel");
        for step in (debug.steps.iter()).filter(|step| !survey.steps.contains(step)) {
            line(step.name, step.folder.as_deref(), step.purpose);
        }
    }
    let to_make = survey
        .steps
        .iter()
        .filter(|step| step.folder.is_none())
        .count();

    println!("For `cargo xtask fuzz` only");
    host_lines(&survey.fuzzer);

    let missing = |findings: &[Finding]| -> Vec<Need> {
        (findings.iter())
            .filter(|finding| finding.found.is_none())
            .map(|finding| finding.need)
            .collect()
    };
    // A lack that concerns only the fuzzer is reported, and is no failure.
    let (missing, for_fuzzer) = (missing(&survey.host), missing(&survey.fuzzer));
    let all = [missing.as_slice(), &for_fuzzer].concat();
    if !all.is_empty() {
        let (apt, dnf) = install_commands(&all);
        println!("Missing on this machine. On Debian and its relatives:\n  {apt}");
        println!("On Fedora and its relatives:\n  {dnf}");
    }
    if missing.is_empty() && survey.sandbox_problem.is_none() {
        match to_make {
            0 => println!("Everything is ready."),
            _ => println!("`cargo xtask setup` makes what is missing in the cache."),
        }
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(crate::ENVIRONMENT))
}

fn host_lines(findings: &[Finding]) {
    for finding in findings {
        let need = finding.need;
        line(need.name, finding.found.as_deref(), need.purpose);
    }
}

fn line(name: &str, found: Option<&Path>, purpose: &str) {
    match found {
        Some(path) => println!("  ok       {name:24} {}", path.display()),
        None => println!("  missing  {name:24} {purpose}"),
    }
}
