// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Which thread runs where. Processors of one machine are not equally fast, if only because their other halves are in use; so
//! memcpy and the device take turns on the same ones.

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// The processors that this process may use.
pub(crate) struct Processors {
    all: CpuSet,
    numbers: Vec<usize>,
}

impl Processors {
    pub(crate) fn new() -> Self {
        let all = sched_getaffinity(None).expect("the processors of this process");
        let numbers = (0..CpuSet::MAX_CPU)
            .filter(|number| all.is_set(*number))
            .collect();
        Self { all, numbers }
    }

    /// For round `round`: the processor that copies, and one for the front end. They are the same if there is only one.
    pub(crate) fn pair(&self, round: usize) -> (usize, usize) {
        let number = |index: usize| self.numbers[index % self.numbers.len()];
        (number(round), number(round + 1))
    }

    /// This thread runs on `processor` from now on.
    pub(crate) fn move_self_to(&self, processor: usize) {
        sched_setaffinity(None, &only(processor)).expect("a processor of this process");
    }

    /// This thread runs anywhere again.
    pub(crate) fn free_self(&self) {
        sched_setaffinity(None, &self.all).expect("the processors of this process");
    }

    /// All threads of process `pid` run on `processor` from now on.
    pub(crate) fn move_process_to(&self, pid: u32, processor: usize) {
        set_all(pid, &only(processor));
    }

    /// All threads of process `pid` run anywhere again.
    pub(crate) fn free_process(&self, pid: u32) {
        set_all(pid, &self.all);
    }
}

fn only(processor: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(processor);
    set
}

fn set_all(pid: u32, set: &CpuSet) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the device's threads");
    for task in tasks {
        let name = task.expect("a thread").file_name();
        let thread = name
            .to_str()
            .and_then(|name| Pid::from_raw(name.parse().ok()?));
        sched_setaffinity(thread, set).expect("the device's threads are this user's");
    }
}
