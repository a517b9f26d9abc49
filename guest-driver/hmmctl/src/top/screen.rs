// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The live view. `q`, Escape or Ctrl-C end it, `p` or the space bar hold it.

use super::rates::Rates;
use super::sample::Sample;
use super::source::Source;
use super::text::{SHOWN, fill, rate, total};
use crate::output::bytes;
use anyhow::Context;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Gauge, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many rates are kept for the curves; as wide as any terminal.
const HISTORY: usize = 512;

/// What is on the screen.
#[derive(Default)]
struct View {
    sample: Sample,
    rates: Rates,
    to_device: VecDeque<u64>,
    to_system: VecDeque<u64>,
    is_held: bool,
    has_ended: bool,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Redraw,
    Hold,
    Quit,
}

/// Shows samples until a key ends it.
pub(super) fn show(source: &mut dyn Source, interval: Duration) -> anyhow::Result<()> {
    // This puts the terminal back also when the program panics.
    let mut terminal = ratatui::try_init().context("cannot use the terminal")?;
    let result = run(&mut terminal, source, interval);
    ratatui::try_restore().context("cannot put the terminal back")?;
    result
}

fn run(
    terminal: &mut DefaultTerminal,
    source: &mut dyn Source,
    interval: Duration,
) -> anyhow::Result<()> {
    let mut view = View::default();
    loop {
        if !view.is_held && !view.has_ended {
            match source.next()? {
                Some(sample) => view.add(sample),
                None => view.has_ended = true,
            }
        }
        terminal
            .draw(|frame| view.draw(frame))
            .context("cannot draw")?;
        let is_idle = view.is_held || view.has_ended;
        let until = Instant::now() + if is_idle { interval } else { source.due_in() };
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if !event::poll(rest).context("cannot wait for a key")? {
                break;
            }
            match wish(&event::read().context("cannot read a key")?) {
                Wish::Nothing => {}
                Wish::Redraw => {
                    terminal
                        .draw(|frame| view.draw(frame))
                        .context("cannot draw")?;
                }
                Wish::Hold => {
                    view.is_held = !view.is_held;
                    break;
                }
                Wish::Quit => return Ok(()),
            }
        }
    }
}

fn wish(event: &Event) -> Wish {
    let Event::Key(key) = event else {
        return match event {
            Event::Resize(..) => Wish::Redraw,
            _ => Wish::Nothing,
        };
    };
    if key.kind != KeyEventKind::Press {
        return Wish::Nothing;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Wish::Quit,
        KeyCode::Char('q') | KeyCode::Esc => Wish::Quit,
        KeyCode::Char('p' | ' ') => Wish::Hold,
        _ => Wish::Nothing,
    }
}

impl View {
    fn add(&mut self, sample: Sample) {
        // The first sample has nothing before it.
        if !self.sample.node.is_empty() {
            self.rates = Rates::between(&self.sample, &sample);
            for (history, counter) in [
                (&mut self.to_device, "bytes_to_device"),
                (&mut self.to_system, "bytes_to_system"),
            ] {
                history.push_back(self.rates.counter(counter) as u64);
                if history.len() > HISTORY {
                    history.pop_front();
                }
            }
        }
        self.sample = sample;
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let [head, gauge, curves, tables, foot] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(5),
            Constraint::Min(4),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.head(), head);
        frame.render_widget(self.gauge(), gauge);
        self.draw_curves(frame, curves);
        let [left, right] =
            Layout::horizontal([Constraint::Length(50), Constraint::Min(20)]).areas(tables);
        // Rates, and below them the reasons, as far as there is room.
        let rates = u16::try_from(SHOWN.len()).unwrap_or(0) + 2;
        let [above, below] =
            Layout::vertical([Constraint::Length(rates), Constraint::Min(0)]).areas(left);
        self.draw_rates(frame, above);
        self.draw_skipped(frame, below);
        self.draw_processes(frame, right);
        let state = match (self.has_ended, self.is_held) {
            (true, _) => "end of the recording",
            (false, true) => "held",
            (false, false) => "",
        };
        frame.render_widget(Line::from(format!("q quit  p hold  {state}")).dim(), foot);
    }

    fn head(&self) -> Line<'_> {
        let device = self.sample.device.as_str();
        let device = match device {
            "present" => device.green(),
            _ => device.red().bold(),
        };
        Line::from(vec![
            "hmmctl top  ".bold(),
            self.sample.node.as_str().into(),
            " ".into(),
            device,
            format!("  {:.1} s", self.sample.seconds).dim(),
        ])
    }

    fn gauge(&self) -> Gauge<'_> {
        let resident = self.sample.counter("resident_bytes") as f64;
        let ratio = match self.sample.memory_bytes {
            0 => 0.0,
            bytes => (resident / bytes as f64).clamp(0.0, 1.0),
        };
        Gauge::default()
            .ratio(ratio)
            .label(format!("resident {}", fill(&self.sample)))
            .gauge_style(Style::new().blue())
    }

    fn draw_curves(&self, frame: &mut Frame<'_>, area: Rect) {
        let [left, right] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(area);
        let curves = [
            (left, "host to device", &self.to_device, "bytes_to_device"),
            (right, "device to host", &self.to_system, "bytes_to_system"),
        ];
        for (area, name, history, counter) in curves {
            let title = format!(" {name} {} ", rate(self.rates.counter(counter), true));
            // The newest are on the right.
            let shown = usize::from(area.width.saturating_sub(2)).min(history.len());
            let newest = history.iter().skip(history.len() - shown).copied();
            let curve = Sparkline::default()
                .data(newest)
                .style(Style::new().cyan())
                .block(Block::bordered().title(title));
            frame.render_widget(curve, area);
        }
    }

    fn draw_rates(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = SHOWN.iter().filter_map(|&(counter, name, is_bytes)| {
            let count = *self.sample.counters.get(counter)?;
            let cells = [
                name.to_owned(),
                rate(self.rates.counter(counter), is_bytes),
                total(count, is_bytes),
            ];
            Some(Row::new(cells.map(Cell::from)))
        });
        let widths = [
            Constraint::Length(17),
            Constraint::Length(14),
            Constraint::Length(12),
        ];
        let table = Table::new(rows, widths).block(Block::bordered().title(" rates, in all "));
        frame.render_widget(table, area);
    }

    fn draw_skipped(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.sample.skipped.iter().map(|(reason, count)| {
            let speed = self.rates.skipped.get(reason).copied().unwrap_or(0.0);
            let cells = [reason.clone(), rate(speed, false), count.to_string()];
            Row::new(cells.map(Cell::from))
        });
        let widths = [
            Constraint::Length(17),
            Constraint::Length(14),
            Constraint::Length(12),
        ];
        let table = Table::new(rows, widths).block(Block::bordered().title(" skipped pages "));
        frame.render_widget(table, area);
    }

    fn draw_processes(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.sample.processes.iter().map(|process| {
            let limit = process.limit_bytes.map_or("none".to_owned(), bytes);
            let cells = [
                process.pid.to_string(),
                bytes(process.resident_bytes),
                limit,
                process.name.clone(),
            ];
            Row::new(cells.map(Cell::from))
        });
        let widths = [
            Constraint::Length(8),
            Constraint::Length(11),
            Constraint::Length(11),
            Constraint::Min(8),
        ];
        let header = Row::new(["process", "resident", "limit", "program"]).bold();
        let table = Table::new(rows, widths)
            .header(header)
            .block(Block::bordered().title(" processes "));
        frame.render_widget(table, area);
    }
}
