// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! The program's processes: the one that was started, and everything that came from it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// What /proc counts processor time in: USER_HZ is 100 on x86.
const TICK: Duration = Duration::from_millis(10);

/// What /proc/PID/stat says about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    pid: i32,
    parent: i32,
    /// Ticks from boot to its start: with the pid, the identity of a process.
    start: u64,
    /// Whether it has exited and waits for its parent.
    dead: bool,
    /// Processor time of all its threads.
    used: Duration,
}

impl Stat {
    /// Parses a stat file. The name in it may contain anything, also parentheses and blanks.
    fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once(' ')?;
        let (_name, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        // The parent is field 4 of the file, the ticks in user and kernel mode are 14 and 15, and the start is 22.
        let user: u64 = fields.nth(9)?.parse().ok()?;
        let kernel: u64 = fields.next()?.parse().ok()?;
        let start = fields.nth(6)?.parse().ok()?;
        Some(Self {
            pid: pid.parse().ok()?,
            parent,
            start,
            dead: matches!(state, "Z" | "X"),
            used: TICK
                .saturating_mul(u32::try_from(user.saturating_add(kernel)).unwrap_or(u32::MAX)),
        })
    }
}

/// The program's processes, followed through forks. A process once seen stays one of them, also
/// when its parent exits and it gets another.
#[derive(Debug)]
pub(crate) struct Tree {
    root: i32,
    known: BTreeMap<i32, u64>,
    seen: u64,
}

impl Tree {
    /// The tree that starts with this process.
    pub(crate) fn new(root: i32) -> Self {
        Self {
            root,
            known: BTreeMap::new(),
            seen: 0,
        }
    }

    /// How many processes have been seen so far.
    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Processor time of the processes that the last update found. That of processes which have ended since is missing.
    pub(super) fn processor_time(&self) -> Duration {
        self.known
            .keys()
            .filter_map(|pid| stat(*pid))
            .map(|stat| stat.used)
            .sum()
    }

    /// Looks at the system's processes, and gives the program's that are alive.
    pub(crate) fn update(&mut self) -> io::Result<Vec<i32>> {
        Ok(self.update_from(&all_processes()?))
    }

    fn update_from(&mut self, processes: &[Stat]) -> Vec<i32> {
        let mut children: BTreeMap<i32, Vec<&Stat>> = BTreeMap::new();
        for process in processes {
            children.entry(process.parent).or_default().push(process);
        }
        let mut open: Vec<&Stat> = processes
            .iter()
            .filter(|process| {
                process.pid == self.root || self.known.get(&process.pid) == Some(&process.start)
            })
            .collect();
        let mut found: BTreeSet<i32> = BTreeSet::new();
        let mut alive = BTreeMap::new();
        while let Some(process) = open.pop() {
            if !found.insert(process.pid) {
                continue;
            }
            alive.insert(process.pid, process.start);
            if self.known.get(&process.pid) != Some(&process.start) {
                self.seen += 1;
            }
            open.extend(children.get(&process.pid).into_iter().flatten());
        }
        self.known = alive;
        processes
            .iter()
            .filter(|process| !process.dead && found.contains(&process.pid))
            .map(|process| process.pid)
            .collect()
    }
}

fn all_processes() -> io::Result<Vec<Stat>> {
    let mut processes = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok());
        processes.extend(pid.and_then(stat));
    }
    Ok(processes)
}

/// What /proc says about a process; `None` if it has ended.
fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    Stat::parse(&String::from_utf8_lossy(&text))
}

#[cfg(test)]
mod tests {
    use super::{Stat, Tree, all_processes};
    use std::time::Duration;

    fn process(pid: i32, parent: i32) -> Stat {
        Stat {
            pid,
            parent,
            start: 100,
            dead: false,
            used: Duration::ZERO,
        }
    }

    #[test]
    fn names_may_contain_anything() {
        let text = "77 (a) R 1 (b) S 5 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 1000 2\n";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                pid: 77,
                parent: 5,
                start: 9876,
                dead: false,
                used: Duration::from_millis(110)
            })
        );
        assert!(
            Stat::parse("77 (sh) Z 5 0 0 0 -1 0 0 0 0 0 0 0 0 0 0 0 0 0 11")
                .unwrap()
                .dead
        );
        assert_eq!(Stat::parse("77 (sh) S 5"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn descendants_are_followed_and_others_are_not() {
        let mut tree = Tree::new(10);
        let all = [
            process(1, 0),
            process(10, 1),
            process(11, 10),
            process(12, 11),
            process(20, 1),
        ];
        assert_eq!(tree.update_from(&all), [10, 11, 12]);
        assert_eq!(tree.seen(), 3);
        assert_eq!(tree.update_from(&all), [10, 11, 12]);
        assert_eq!(tree.seen(), 3);
    }

    #[test]
    fn an_orphan_stays_one_of_the_program() {
        let mut tree = Tree::new(10);
        tree.update_from(&[process(1, 0), process(10, 1), process(11, 10)]);
        let orphaned = [process(1, 0), process(11, 1), process(12, 11)];
        assert_eq!(tree.update_from(&orphaned), [11, 12]);
    }

    #[test]
    fn a_pid_that_is_used_again_is_another_process() {
        let mut tree = Tree::new(10);
        tree.update_from(&[process(1, 0), process(10, 1), process(11, 10)]);
        let reused = Stat {
            start: 900,
            ..process(11, 1)
        };
        assert_eq!(
            tree.update_from(&[process(1, 0), process(10, 1), reused]),
            [10]
        );
    }

    #[test]
    fn the_dead_are_not_alive() {
        let mut tree = Tree::new(10);
        let dead = Stat {
            dead: true,
            ..process(11, 10)
        };
        assert_eq!(tree.update_from(&[process(10, 1), dead]), [10]);
    }

    #[test]
    fn this_process_is_among_all() {
        let own = std::process::id().cast_signed();
        assert!(
            all_processes()
                .unwrap()
                .iter()
                .any(|process| process.pid == own)
        );
    }
}
