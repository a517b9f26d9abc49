// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Finds what the kernel's log must not contain.
//!
//! Two lists of regular expressions, one a line: a line of the log that the first matches is a splat, unless the
//! second matches it as well. Each entry of the second list is a hole in the check, so the comment above it has to
//! say why it is there. A check without a list would find nothing in any log, so it is an error.

use regex::{Regex, RegexSet};
use std::path::Path;

/// How many lines of the log are shown with a splat.
const CONTEXT: usize = 40;
/// In how many lines lockdep says which lock is taken, and where.
const HEAD: usize = 6;

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A list cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing to look for.
    #[error("the list of splats is empty: every log would look clean")]
    Empty,
    /// An expression is none.
    #[error("line {line}: {source}")]
    Regex {
        /// The line of the list.
        line: usize,
        /// What is wrong.
        source: Box<regex::Error>,
    },
    /// An exception without a reason.
    #[error(
        "line {line}: '{expression}' is an exception without a reason: write a comment above it"
    )]
    NoReason {
        /// The line of the list.
        line: usize,
        /// The expression.
        expression: String,
    },
}

/// What to look for.
#[derive(Clone, Debug)]
pub struct Rules {
    deny: RegexSet,
    allow: RegexSet,
    /// A function of the kernel's own whose locks lockdep may complain about.
    tolerated: Option<&'static str>,
}

/// A line of the log that must not be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splat {
    /// The line's number, from 1.
    pub line: usize,
    /// The line and those that follow.
    pub text: String,
}

impl Rules {
    /// Reads `splat.deny` and `splat.allow` of a folder.
    ///
    /// # Errors
    /// When the lists cannot be read or make no sense.
    pub fn read(folder: &Path) -> Result<Self, RulesError> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|source| RulesError::Read {
                path: path.display().to_string(),
                source,
            })
        };
        Self::new(&read("splat.deny")?, &read("splat.allow")?)
    }

    /// Rules of two lists.
    ///
    /// # Errors
    /// When there is nothing to look for, or a list makes no sense.
    pub fn new(deny: &str, allow: &str) -> Result<Self, RulesError> {
        let deny = expressions(deny)?;
        if deny.is_empty() {
            return Err(RulesError::Empty);
        }
        let allow = expressions(allow)?;
        if let Some(entry) = allow.iter().find(|entry| !entry.has_comment) {
            return Err(RulesError::NoReason {
                line: entry.line,
                expression: entry.text.to_owned(),
            });
        }
        Ok(Self {
            deny: set(&deny)?,
            allow: set(&allow)?,
            tolerated: None,
        })
    }

    /// The same rules, which let a report pass of locks that are taken in both orders if `function` takes the last one: a function of the
    /// kernel's own that a guest cannot do without. Lockdep reports nothing after it.
    #[must_use]
    pub fn tolerating_locks_of(mut self, function: &'static str) -> Self {
        self.tolerated = Some(function);
        self
    }

    /// The splats of a log.
    pub fn scan(&self, log: &str) -> Vec<Splat> {
        let lines: Vec<&str> = log.lines().collect();
        let mut splats: Vec<Splat> = Vec::new();
        let mut shown_to = 0;
        for (index, line) in lines.iter().enumerate() {
            if !self.deny.is_match(line) || self.allow.is_match(line) {
                continue;
            }
            // One splat has several such lines.
            if index < shown_to {
                continue;
            }
            shown_to = (index + CONTEXT).min(lines.len());
            if line.contains("possible circular locking dependency")
                && let Some(function) = self.tolerated
                && lines[index..shown_to].iter().take(HEAD).any(|line| {
                    // Where the lock is taken, and not what happens to be on the stack.
                    line.contains("at: ") && line.contains(function)
                })
            {
                continue;
            }
            splats.push(Splat {
                line: index + 1,
                text: lines[index..shown_to].join("\n"),
            });
        }
        splats
    }
}

struct Entry<'a> {
    line: usize,
    text: &'a str,
    has_comment: bool,
}

fn expressions(list: &str) -> Result<Vec<Entry<'_>>, RulesError> {
    let mut entries = Vec::new();
    let mut has_comment = false;
    for (index, text) in list.lines().enumerate() {
        let text = text.trim_end();
        // The licence is no reason.
        if text.starts_with("# SPDX") || text.is_empty() {
            has_comment = false;
            continue;
        }
        if text.starts_with('#') {
            has_comment = true;
            continue;
        }
        let line = index + 1;
        Regex::new(text).map_err(|source| RulesError::Regex {
            line,
            source: Box::new(source),
        })?;
        entries.push(Entry {
            line,
            text,
            has_comment,
        });
    }
    Ok(entries)
}

fn set(entries: &[Entry<'_>]) -> Result<RegexSet, RulesError> {
    RegexSet::new(entries.iter().map(|entry| entry.text)).map_err(|source| RulesError::Regex {
        line: 0,
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::{Rules, RulesError};
    use std::path::Path;

    fn project_rules() -> Rules {
        Rules::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../ci")).unwrap()
    }

    /// The first lines of what kernels of this kind print.
    const SPLATS: &[&str] = &[
        "[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "[   12.345678] BUG: unable to handle page fault for address: ffffc90000a3f000",
        "[   10.000001] BUG: KASAN: slab-use-after-free in rmap_walk_anon+0x3f2/0x5a0",
        "[   10.000001] BUG: KFENCE: out-of-bounds read in foo+0x17/0x20",
        "[   10.000001] BUG: Bad page state in process hmm-agent  pfn:10ad3c",
        "[   10.000001] BUG: Bad rss-counter state mm:00000000c0ffee00 type:MM_ANONPAGES val:12 Comm:hmmctl Pid:77",
        "[   10.000001] BUG: Bad page map in process sort  pte:8000000012345067 pmd:12345067",
        "[   10.000001] BUG: sleeping function called from invalid context at mm/migrate.c:1234",
        "[   10.000001] BUG: scheduling while atomic: hmmctl/77/0x00000002",
        "[   10.000001] BUG: spinlock bad magic on CPU#1, hmmctl/77",
        "[  120.000001] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [hmmctl:77]",
        "[  120.000001] INFO: task hmm-agent:77 blocked for more than 120 seconds.",
        "[   60.000001] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "[   60.000001] rcu: INFO: rcu_preempt self-detected stall on CPU",
        "[    9.000001] WARNING: CPU: 1 PID: 77 at mm/memremap.c:420 free_zone_device_folio+0x1a0/0x1b0",
        "[    9.000001] WARNING: mm/memremap.c:420 at free_zone_device_folio+0x1a0/0x1b0, CPU#1: hmmctl/77",
        "[    9.000001] WARNING: possible circular locking dependency detected",
        "[    9.000001] WARNING: possible recursive locking detected",
        "[    9.000001] WARNING: inconsistent lock state",
        "[    9.000001] WARNING: suspicious RCU usage",
        "[    9.000001] WARNING: bad unlock balance detected!",
        "[    9.000001] Oops: Oops: 0000 [#1] SMP NOPTI",
        "[    9.000001] Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] SMP NOPTI",
        "[    9.000001] general protection fault, probably for non-canonical address 0x6b6b6b6b6b6b6b6b: 0000 [#1] PREEMPT SMP",
        "[    9.000001] invalid opcode: 0000 [#1] PREEMPT SMP",
        "[    9.000001] kernel BUG at mm/huge_memory.c:3456!",
        "[    9.000001] Kernel panic - not syncing: Fatal exception",
        "[    9.000001] list_add corruption. prev->next should be next (ffff888101234568), but was 0000000000000000.",
        "[    9.000001] list_del corruption, ffff888101234568->next is LIST_POISON1 (dead000000000100)",
        "[    9.000001] refcount_t: underflow; use-after-free.",
        "[    9.000001] refcount_t: addition on 0; use-after-free.",
        "[    9.000001] UBSAN: array-index-out-of-bounds in mm/foo.c:12:3",
        "[    9.000001] irq 11: nobody cared (try booting with the \"irqpoll\" option)",
        "[    9.000001] unregister_netdevice: waiting for lo to become free. Usage count = 2",
        "[    9.000001] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "[    9.000001] page:ffffea0004000000 refcount:0 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x100000",
        "[    9.000001] page dumped because: VM_BUG_ON_FOLIO(folio_test_locked(folio))",
        "[    9.000001] rust_kernel: panicked at guest-driver/module/link.rs:12:5:",
        "[    9.000001] DEBUG_LOCKS_WARN_ON(lock->magic != lock)",
        "[    9.000001] INFO: trying to register non-static key.",
        "[    9.000001] hmmctl: page allocation failure: order:9, mode:0x1400dc0",
        "[    9.000001] traps: hmm-agent[77] general protection fault ip:401000 sp:7ffd error:0 in hmm-agent",
        "[    9.000001] virtio_hmm virtio3: DMA-API: device driver failed to check map error",
    ];

    /// What the log of a healthy guest has.
    const HEALTHY: &[&str] = &[
        "[    0.000000] Linux version 7.3.4+deb13-amd64 (debian-kernel@lists.debian.org)",
        "[    0.000000] Kernel command line: console=ttyS0 panic=-1 oops=panic panic_on_warn=0 softlockup_all_cpu_backtrace=1",
        "[    0.000000] BIOS-provided physical RAM map:",
        "[    0.012345] Speculative Store Bypass: Vulnerable",
        "[    0.100000] debug: unmapping init [mem 0xffffffff81000000-0xffffffff81001000]",
        "[    0.100000] pci 0000:00:1f.2: reg 0x24: BUGS are fine",
        "[    2.345678] virtio_hmm: loading out-of-tree module taints kernel.",
        "[    2.345678] virtio_hmm: module verification failed: signature and/or required key missing - tainting kernel",
        "[    2.345678] virtio_hmm virtio3: 1024 MiB of device memory at /dev/hmm0",
        "[    4.000000] hmm-agent[91]: segfault at 7f12a4000000 ip 000000000040f0a0 sp 00007ffd error 7 in hmm-agent",
        "[    5.000000] virtio_hmm: the device did not answer in time; starting it anew",
        "[    6.000000] hmm-agent invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "[    6.000000] Memory cgroup out of memory: Killed process 99 (hmm-agent) total-vm:70000kB",
        "[    7.000000] reboot: Power down",
    ];

    #[test]
    fn a_report_of_locks_passes_only_with_the_function_in_it() {
        let rules = Rules::new("possible circular locking|BUG:", "").unwrap();
        let report =
            "WARNING: possible circular locking dependency detected\nat: pciehp_x+0x1/0x2\n";
        assert_eq!(rules.scan(report).len(), 1);
        let rules = rules.tolerating_locks_of("pciehp_x+");
        assert_eq!(rules.scan(report), []);
        assert_eq!(rules.scan(&report.replace("pciehp_x", "vhmm_x")).len(), 1);
        assert_eq!(rules.scan(&report.replace("at: ", "       ")).len(), 1);
        assert_eq!(
            rules
                .scan(&report.replace("WARNING: possible circular", "BUG:"))
                .len(),
            1
        );
    }

    #[test]
    fn every_known_kind_of_splat_is_found() {
        let rules = project_rules();
        for splat in SPLATS {
            let log = format!("{}\n{splat}\n{}", HEALTHY[0], HEALTHY[1]);
            let found = rules.scan(&log);
            assert_eq!(found.len(), 1, "not found: {splat}");
            assert_eq!(found[0].line, 2);
        }
    }

    #[test]
    fn a_healthy_log_is_clean() {
        let rules = project_rules();
        for line in HEALTHY {
            assert_eq!(rules.scan(line), [], "{line}");
        }
    }

    #[test]
    fn the_lines_of_one_splat_are_one() {
        let rules = Rules::new("BUG:|Oops", "").unwrap();
        let log = "start\nBUG: a\nOops: b\nCall Trace:\nend";
        let splats = rules.scan(log);
        assert_eq!(splats.len(), 1);
        assert_eq!(splats[0].text, "BUG: a\nOops: b\nCall Trace:\nend");
        let far = format!("BUG: a\n{}BUG: b\n", "line\n".repeat(100));
        assert_eq!(rules.scan(&far).len(), 2);
    }

    #[test]
    fn an_exception_holds_for_its_line_only() {
        let rules = Rules::new("WARNING", "# Known, see the list.\nWARNING: harmless\n").unwrap();
        assert_eq!(rules.scan("WARNING: harmless thing"), []);
        assert_eq!(rules.scan("WARNING: other thing").len(), 1);
    }

    #[test]
    fn lists_that_make_no_sense_are_errors() {
        assert!(matches!(Rules::new("", ""), Err(RulesError::Empty)));
        assert!(matches!(
            Rules::new("# only a comment\n\n", ""),
            Err(RulesError::Empty)
        ));
        assert!(matches!(
            Rules::new("good\n(bad", ""),
            Err(RulesError::Regex { line: 2, .. })
        ));
        assert!(matches!(
            Rules::new("good", "# SPDX-License-Identifier: x\nexception"),
            Err(RulesError::NoReason { line: 2, .. })
        ));
        assert!(matches!(
            Rules::new("good", "# A reason.\n\nexception"),
            Err(RulesError::NoReason { line: 3, .. })
        ));
        assert!(matches!(
            Rules::read(Path::new("/does/not/exist")),
            Err(RulesError::Read { .. })
        ));
    }
}
