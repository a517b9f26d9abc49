// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `kunit/*`: the unit tests within the driver. A kernel with KUnit runs them when it loads the driver, and keeps what came of
//! them.

use super::support::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

pub(super) const CASES: &[Case] = &[
    Case::new("kunit/accounts", || suite("accounts")),
    Case::new("kunit/zap-guard", || suite("zap_guard")),
    Case::new("kunit/contexts", || suite("contexts")),
    Case::new("kunit/control", || suite("control")),
    Case::new("kunit/dmirror-command", || suite("dmirror_command")),
    Case::new("kunit/dmirror-migrate", || suite("dmirror_migrate")),
    Case::new("kunit/dmirror-snapshot", || suite("dmirror_snapshot")),
    Case::new("kunit/exclusive", || suite("exclusive")),
    Case::new("kunit/global", || suite("global")),
    Case::new("kunit/jobs", || suite("jobs")),
    Case::new("kunit/hmm-entries", || suite("hmm_entries")),
    Case::new("kunit/log-limit", || suite("log_limit")),
    Case::new("kunit/loss", || suite("loss")),
    Case::new("kunit/memory-region", || suite("memory_region")),
    Case::new("kunit/migrate", || suite("migrate")),
    Case::new("kunit/migrate-entry", || suite("migrate_entry")),
    Case::new("kunit/mirror", || suite("mirror")),
    Case::new("kunit/mm", || suite("mm")),
    Case::new("kunit/mmap-lock", || suite("mmap_lock")),
    Case::new("kunit/page", || suite("page")),
    Case::new("kunit/page-mapping", || suite("page_mapping")),
    Case::new("kunit/page-stock", || suite("page_stock")),
    Case::new("kunit/pagemap", || suite("pagemap")),
    Case::new("kunit/pool", || suite("pool")),
    Case::new("kunit/process", || suite("process")),
    Case::new("kunit/request", || suite("request")),
    Case::new("kunit/reserve", || suite("reserve")),
    Case::new("kunit/shape", || suite("shape")),
    Case::new("kunit/shared", || suite("shared")),
    Case::new("kunit/slot", || suite("slot")),
    Case::new("kunit/snapshot", || suite("snapshot")),
    Case::new("kunit/space-table", || suite("space_table")),
    Case::new("kunit/table", || suite("table")),
    Case::new("kunit/watch", || suite("watch")),
    Case::new("kunit/workqueue", || suite("workqueue")),
    Case::new("kunit/no-others", no_others),
];

const FOLDER: &str = "/sys/kernel/debug/kunit";
/// What the driver's suites begin with.
const PREFIX: &str = "virtio_hmm_";

/// Which suites a kernel with KUnit runs when a module is loaded.
const FILTER: &str = "/sys/module/kunit/parameters/filter_glob";
/// The name of no suite.
const NONE: &str = "none";

/// Runs no suite when the driver is loaded again. Cases load it some fifty times, and its unit tests take two seconds each time; the results
/// that count are those of the boot.
pub(super) fn not_again() -> Result<()> {
    match fs::write(FILTER, NONE) {
        // A kernel without KUnit.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("cannot write to {FILTER}")),
    }
}

/// Whether a case looks at what the unit tests of the boot have left.
pub(super) fn reads_results(case: &Case) -> bool {
    CASES.iter().any(|own| own.name == case.name)
}

fn folder() -> Result<&'static Path> {
    let folder = Path::new(FOLDER);
    if folder.exists() {
        Ok(folder)
    } else {
        Err(skip("the kernel has no KUnit"))
    }
}

/// All tests of a suite have run and passed.
fn suite(name: &str) -> Result<()> {
    let name = format!("{PREFIX}{name}");
    let file = folder()?.join(&name).join("results");
    let results =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let tests = passed(&results, &name).with_context(|| results.clone())?;
    eprintln!("{tests} tests");
    Ok(())
}

/// How many tests of a suite there are; an error unless all of them passed.
fn passed(results: &str, name: &str) -> Result<usize> {
    let lines = || results.lines().map(str::trim);
    let subtest = format!("# Subtest: {name}");
    let planned: usize = lines()
        .skip_while(|&line| line != subtest)
        .find_map(|line| line.strip_prefix("1.."))
        .context("the suite has no plan")?
        .parse()
        .context("the plan is no number")?;
    ensure!(planned > 0, "the suite has no tests");
    if let Some(line) = lines().find(|line| line.starts_with("not ok ")) {
        bail!("{line}");
    }
    let is_ok = |line: &&str| line.starts_with("ok ");
    let (last, tests) = (lines().rfind(is_ok), lines().filter(is_ok).count());
    // The last is the suite itself.
    ensure!(
        tests == planned + 1 && last.is_some_and(|line| line.split(' ').nth(2) == Some(name)),
        "{planned} tests were to run"
    );
    Ok(planned)
}

/// Each suite of the driver has a case.
fn no_others() -> Result<()> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder()?).context("cannot list the suites")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix(PREFIX) {
            found.insert(format!("kunit/{}", name.replace('_', "-")));
        }
    }
    let others = |case: &&Case| case.name != "kunit/no-others";
    let known = CASES.iter().filter(others).map(|case| case.name.to_owned());
    let known: BTreeSet<String> = known.collect();
    ensure!(
        found == known,
        "suites without a case: {:?}; cases without a suite: {:?}",
        found.difference(&known),
        known.difference(&found)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::passed;

    const GOOD: &str = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: virtio_hmm_gate\n    # module: virtio_hmm\n    1..2\n    \
                        ok 1 one\n    ok 2 two\n# virtio_hmm_gate: pass:2 fail:0 skip:0 total:2\n\
                        # Totals: pass:2 fail:0 skip:0 total:2\nok 1 virtio_hmm_gate\n";

    #[test]
    fn a_suite_passes_if_all_of_its_tests_do() {
        assert_eq!(passed(GOOD, "virtio_hmm_gate").unwrap(), 2);
        for (what, instead) in [
            ("    ok 2 two", "    not ok 2 two"),
            ("    ok 2 two\n", ""),
            ("1..2", "1..3"),
            ("1..2", "1..0"),
            ("1..2", "2 tests"),
            ("\nok 1 virtio_hmm_gate", ""),
            ("ok 1 virtio_hmm_gate", "not ok 1 virtio_hmm_gate"),
        ] {
            let bad = GOOD.replace(what, instead);
            assert!(passed(&bad, "virtio_hmm_gate").is_err(), "{bad}");
        }
        assert!(passed("", "virtio_hmm_gate").is_err());
        assert!(passed(GOOD, "virtio_hmm_page").is_err());
    }
}
