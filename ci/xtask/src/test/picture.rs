// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! All results with the recordings of the guests whose cases they are, in one HTML file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hmm_report::html::{Part, Results, Row, State};
use hmm_tests::timing::Timing;

use super::program::Ran;
use super::results::Outcome;
use crate::report::{Pages, read_part};

/// Writes the file, with the recordings in `folder`.
pub(crate) fn write(
    pages: &mut Pages,
    folder: &Path,
    programs: &[Ran],
    timings: &[Timing],
) -> Result<()> {
    for path in recordings(folder)? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        pages.add(read_part(&name, &path, &path.with_extension("json")));
    }
    pages.write("test", &results(programs, timings, pages.parts()))
}

/// The recordings in a folder, in the order of their names.
fn recordings(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).context("cannot read the folder of recordings")? {
        let path = entry
            .context("cannot read the folder of recordings")?
            .path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn results(programs: &[Ran], timings: &[Timing], parts: &[Part]) -> Results {
    let seconds: HashMap<&str, f64> = (timings.iter())
        .map(|timing| (timing.name.as_str(), timing.seconds))
        .collect();
    let rows = programs.iter().flat_map(|ran| {
        let seconds = &seconds;
        ran.results.iter().map(move |result| {
            // The guest does not know on which kernel its cases count.
            let case = result.name.strip_prefix("debug/").unwrap_or(&result.name);
            let is_on_debug = case.len() < result.name.len();
            let part = parts.iter().position(|part| {
                part.name.starts_with("debug-") == is_on_debug
                    && part
                        .recording
                        .cases
                        .iter()
                        .any(|marked| marked.name == case)
            });
            let (word, state, text) = match &result.outcome {
                Outcome::Passed => ("ok", State::Good, String::new()),
                Outcome::Skipped(reason) => ("skipped", State::Other, reason.clone()),
                Outcome::Failed => {
                    let report = ran.failures.of(&result.name).unwrap_or_default();
                    ("failed", State::Bad, report.to_owned())
                }
            };
            let seconds = seconds.get(result.name.as_str());
            Row {
                cells: vec![
                    result.name.clone(),
                    ran.name.clone(),
                    word.to_owned(),
                    seconds.map_or_else(String::new, |seconds| format!("{seconds:.1} s")),
                ],
                state,
                text,
                part,
                case: part.map(|_| case.to_owned()),
            }
        })
    });
    Results {
        heads: ["test", "of", "result", "took"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use hmm_report::html::{Part, State};
    use hmm_report::recording::Recording;

    use super::super::program::Ran;
    use super::results;

    fn part(name: &str, case: &str) -> Part {
        let text = format!(
            "# hmm-record 1\n a-1 [000] ..... 1.0: tracing_mark_write: hmm_case: name={case}\n"
        );
        Part {
            name: name.to_owned(),
            recording: Recording::read(&text, None).unwrap(),
            trace: Vec::new(),
        }
    }

    #[test]
    fn each_result_leads_to_the_recording_of_its_case() {
        let mut ran = Ran::new("guest");
        for line in [
            "test fork/a ... ok",
            "test debug/fork/a ... FAILED",
            "test fork/b ... ignored, no swap",
        ] {
            ran.line(line);
        }
        let parts = [part("cases1", "fork/a"), part("debug-cases1", "fork/a")];
        let results = results(&[ran], &[], &parts);
        let told: Vec<_> = (results.rows.iter())
            .map(|row| (row.state, row.part, row.case.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                (State::Good, Some(0), Some("fork/a")),
                (State::Bad, Some(1), Some("fork/a")),
                (State::Other, None, None)
            ]
        );
        assert_eq!(results.rows[2].text, "no swap");
    }
}
