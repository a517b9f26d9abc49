// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `cargo xtask browser`: opens reports in Debian's Chromium without a screen, zooms and clicks in them as a user does, and
//! fails on any error of their scripts. The browser comes with the other packages of the set-up and has no network.

mod page;
mod pipe;
mod sample;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use hmm_report::html::{self, Part, Results, Row, State};
use hmm_report::recording::Recording;
use hmm_vm::Progress;

use crate::FAILURE;
use crate::setup_arguments::SetupArguments;
use page::Page;
use pipe::Browser;

/// The package of Debian, and a font that has all letters of a report.
const PACKAGES: [&str; 2] = ["chromium-headless-shell", "fonts-dejavu-core"];
/// As many events as a report must take.
const EVENTS: usize = 100_000;

/// As many are enough to see that a page works.
const FEW_EVENTS: usize = 1000;

/// Options of `browser`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    setup: SetupArguments,
    /// Write pictures of each report that is given, in light and dark, into this folder.
    #[arg(long, value_name = "FOLDER")]
    screenshots: Option<PathBuf>,
    /// Reports that 'report' or 'run --report' made. Generated ones, one of them with 100,000 events, are opened in any case.
    #[arg(value_name = "REPORT")]
    reports: Vec<PathBuf>,
}

/// Opens all reports.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let packages = PACKAGES.map(str::to_owned);
    let root = hmm_vm::packages(
        "browser",
        &packages,
        &arguments.setup.options(),
        &Progress::new(),
    )?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut pages = vec![
        ("generated".to_owned(), generated(EVENTS)?),
        ("results".to_owned(), results_of_two()?),
    ];
    let made_up = pages.len();
    for report in &arguments.reports {
        let text = fs::read_to_string(report)
            .with_context(|| format!("cannot read {}", report.display()))?;
        let name = report.file_stem().unwrap_or(report.as_os_str());
        pages.push((name.to_string_lossy().into_owned(), text));
    }
    if let Some(folder) = &arguments.screenshots {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut failed = 0;
    for (number, (name, text)) in pages.iter().enumerate() {
        let file = format!("{number}.html");
        fs::write(folder.path().join(&file), text).context("cannot write the report")?;
        // Nobody needs pictures of what was made up.
        let pictures = arguments
            .screenshots
            .as_deref()
            .filter(|_| number >= made_up);
        let outcome = use_report(&root, folder.path(), &file, name, pictures);
        match outcome {
            Ok(told) => println!("test report {name} ... ok ({told})"),
            Err(error) => {
                failed += 1;
                println!("test report {name} ... FAILED: {error:#}");
            }
        }
    }
    println!(
        "\n{} passed, {failed} failed, 0 skipped",
        pages.len() - failed
    );
    Ok(match failed {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(FAILURE),
    })
}

fn generated(events: usize) -> Result<String> {
    let (text, trace) = sample::recording(events);
    let recording = Recording::read(&text, None).context("the generated recording")?;
    Ok(html::report(&recording, &trace))
}

/// A report with results of two guests. That of the second one comes first, so that its link leads to another recording than
/// the one that is shown.
fn results_of_two() -> Result<String> {
    let part = |name: &str| -> Result<Part> {
        let (text, trace) = sample::recording(FEW_EVENTS);
        Ok(Part {
            name: name.to_owned(),
            recording: Recording::read(&text, None).context("the generated recording")?,
            trace,
        })
    };
    let row = |name: &str, state, part| Row {
        cells: vec![name.to_owned(), format!("{state:?}")],
        state,
        text: format!("what is to be said of {name}"),
        part,
        case: part.map(|_| name.to_owned()),
    };
    let results = Results {
        heads: vec!["test".to_owned(), "result".to_owned()],
        rows: vec![
            row("fork/second", State::Bad, Some(1)),
            row("fork/first", State::Good, Some(0)),
            row("host", State::Good, None),
            row("fork/skipped", State::Other, Some(0)),
        ],
    };
    let parts = [part("first guest")?, part("second guest")?];
    Ok(html::collection("generated", &results, &parts))
}

/// Opens a report and uses all of it; what is worth telling.
fn use_report(
    root: &Path,
    folder: &Path,
    file: &str,
    name: &str,
    pictures: Option<&Path>,
) -> Result<String> {
    let browser = Browser::start(root, folder)?;
    let mut page = Page::open(browser, &format!("file://{}/{file}", pipe::FOLDER))?;
    let items = page.number("report.items")?;
    let found = page.number("report.results")?;
    if page.number("report.parts")? == 0.0 {
        ensure!(found > 0.0, "the report is empty");
        results(&mut page)?;
        page.check_errors()?;
        return Ok(format!("{found} results, and no recording"));
    }
    ensure!(items > 0.0, "the report is empty");
    let charts = page.evaluate("report.charts()")?;
    ensure!(
        charts[0] == "timeline",
        "the first chart is no timeline: {charts}"
    );
    let drawing = page.number("report.drawing()")?;
    if let Some(folder) = pictures {
        screenshots(&mut page, name, folder)?;
    }
    zoom(&mut page)?;
    links(&mut page)?;
    if found > 0.0 {
        results(&mut page)?;
    }
    page.check_errors()?;
    Ok(format!(
        "{items} events, the timeline is drawn in {drawing:.1} ms"
    ))
}

/// Zooms by dragging, by the wheel, and out again. All charts over time follow.
fn zoom(page: &mut Page) -> Result<()> {
    let all = page.range()?;
    let over = page.place_of("#timeline .u-over")?;
    page.drag(over.at(0.25, 0.5), over.at(0.75, 0.5))?;
    let half = page.range()?;
    ensure!(
        half.length() < all.length() * 0.6 && half.length() > all.length() * 0.4,
        "half of {all:?} was dragged over, and {half:?} is shown"
    );
    let all_follow = "report.ranges().every(([min, max]) => \
                      Math.abs(min - report.range()[0]) < 1e-6 && Math.abs(max - report.range()[1]) < 1e-6)";
    ensure!(
        page.evaluate(all_follow)? == true,
        "the charts show different times: {}",
        page.evaluate("report.ranges()")?
    );
    page.wheel(over.at(0.5, 0.5), -120.0)?;
    let closer = page.range()?;
    ensure!(
        closer.length() < half.length() * 0.9,
        "the wheel zoomed from {half:?} to {closer:?}"
    );
    page.double_click(over.at(0.5, 0.5))?;
    let again = page.range()?;
    ensure!(
        (again.length() - all.length()).abs() < all.length() * 1e-6,
        "a double click shows {again:?} of {all:?}"
    );
    // The pointer over the lanes shows what is there.
    page.hover(over.at(0.5, 0.1))
}

/// Follows the link of the slowest fault, and from there to its batch, if there are such.
fn links(page: &mut Page) -> Result<()> {
    if page.evaluate("document.querySelector('#slowest button') !== null")? == true {
        page.click("#slowest button")?;
        let fault = page.number("report.selected()")?;
        ensure!(
            fault >= 0.0,
            "the link of the slowest fault selects nothing"
        );
        let told = page.evaluate("document.querySelector('#detail').textContent")?;
        ensure!(
            told.as_str().is_some_and(|told| told.contains("fault")),
            "of the fault only this is told: {told}"
        );
        if page.evaluate("document.querySelector('#detail button') !== null")? == true {
            page.click("#detail button")?;
            let batch = page.number("report.selected()")?;
            ensure!(batch >= 0.0 && batch != fault, "the link leads nowhere");
        }
    }
    let theme = "document.documentElement.dataset.theme";
    let before = page.evaluate(theme)?;
    page.click("#theme")?;
    let after = page.evaluate(theme)?;
    ensure!(before != after, "the theme is {before} still");
    Ok(())
}

/// Chooses results by how they are, and follows the link of one to its recording.
fn results(page: &mut Page) -> Result<()> {
    let rows = "document.querySelectorAll('#result-table tbody tr').length";
    let all = page.number(rows)?;
    ensure!(
        all == page.number("report.results")?,
        "{all} results are shown"
    );
    page.click("#result-states button:nth-child(4)")?;
    let good = page.number(rows)?;
    let told =
        page.evaluate("document.querySelector('#result-states button:nth-child(4)').textContent")?;
    ensure!(
        told.as_str() == Some(&format!("good {good}")),
        "{good} good results are shown, and the button says {told}"
    );
    page.click("#result-states button:nth-child(1)")?;
    ensure!(page.number(rows)? == all, "not all results are shown again");
    let link = "#result-table tbody td:last-child > button";
    let is_linked = format!("document.querySelector('{link}') !== null");
    if page.evaluate(&is_linked)? == true {
        let first = "JSON.parse(document.querySelector('#contents').textContent)\
                     .results.rows.find((row) => row.part !== null).part";
        let is_shown = page.number(first)? == page.number("report.part")?;
        page.check_errors()?;
        page.click(link)?;
        if !is_shown {
            page.loaded()?;
        }
        ensure!(page.number("report.items")? > 0.0, "the link leads nowhere");
    }
    Ok(())
}

fn screenshots(page: &mut Page, name: &str, folder: &Path) -> Result<()> {
    for _ in 0..2 {
        let theme = page.evaluate("document.documentElement.dataset.theme")?;
        let path = folder.join(format!("{name}-{}.webp", theme.as_str().unwrap_or("")));
        let picture = page.picture("#latency")?;
        fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
        page.click("#theme")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{generated, sample};
    use hmm_report::recording::Recording;

    #[test]
    fn the_generated_report_has_all_events() {
        let (text, trace) = sample::recording(1000);
        let recording = Recording::read(&text, None).unwrap();
        assert_eq!(recording.events.len(), 1000);
        assert!(!recording.looks.is_empty() && !recording.times.is_empty() && !trace.is_empty());
        assert!(generated(1000).unwrap().contains("\"execution\""));
    }
}
