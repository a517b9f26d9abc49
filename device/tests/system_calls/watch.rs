// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Watches every system call of every thread of a process, as a debugger does.

use std::{
    collections::{BTreeMap, HashSet},
    os::unix::process::CommandExt,
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// A process that is watched.
pub(crate) struct Watched {
    pub(crate) pid: Pid,
    pub(crate) stdout: ChildStdout,
    tracer: JoinHandle<Watch>,
}

/// Called with the arguments of each `msync()`, while the process stands still before it.
pub(crate) type OnSync = Box<dyn FnMut([u64; 6]) + Send>;

/// What was seen.
#[derive(Default)]
pub(crate) struct Watch {
    /// The numbers of the system calls since the last filter was installed, and how often each was made.
    pub(crate) calls: BTreeMap<i64, usize>,
    /// Filters that were installed.
    pub(crate) filters: usize,
    /// How the process ended.
    pub(crate) end: Option<WaitStatus>,
    threads: HashSet<Pid>,
    on_sync: Option<OnSync>,
}

impl Watched {
    /// Starts `command`; its output is piped. Something may be done at each `msync()`.
    pub(crate) fn start(mut command: Command, on_sync: Option<OnSync>) -> Self {
        let (tell, told) = mpsc::channel();
        // Only the thread that starts a process is told of it.
        let tracer = thread::spawn(move || {
            command.stdout(Stdio::piped());
            // SAFETY: asking to be traced is a single system call.
            unsafe {
                command.pre_exec(|| Ok(ptrace::traceme()?));
            }
            #[expect(
                clippy::zombie_processes,
                reason = "its end is waited for below, with all else"
            )]
            let mut child = command.spawn().expect("the program starts");
            let pid = Pid::from_raw(child.id() as i32);
            let first = waitpid(pid, None).expect("the program stops before it begins");
            assert_eq!(first, WaitStatus::Stopped(pid, Signal::SIGTRAP));
            let options = Options::PTRACE_O_TRACESYSGOOD
                | Options::PTRACE_O_TRACECLONE
                | Options::PTRACE_O_EXITKILL;
            ptrace::setoptions(pid, options).expect("options");
            tell.send((pid, child.stdout.take().expect("piped")))
                .expect("somebody waits");
            let mut watch = Watch {
                on_sync,
                ..Watch::default()
            };
            watch.threads.insert(pid);
            go_on(pid, None);
            while watch.end.is_none() {
                watch.step(pid);
            }
            watch
        });
        let (pid, stdout) = told.recv().expect("the program starts");
        Self {
            pid,
            stdout,
            tracer,
        }
    }

    /// Waits for the end and returns what was seen.
    pub(crate) fn end(self) -> Watch {
        self.tracer.join().expect("it is watched to its end")
    }
}

impl Watch {
    /// Takes the next thing that happens.
    fn step(&mut self, main: Pid) {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        let status = waitpid(Pid::from_raw(-1), Some(flags)).expect("something happens");
        match status {
            WaitStatus::PtraceSyscall(thread) => {
                self.system_call(thread);
                go_on(thread, None);
            }
            WaitStatus::Stopped(thread, signal) => {
                // A thread begins with a stop that is for us alone, and one that stops with the others has no signal.
                let ours = self.threads.insert(thread) || ptrace::getsiginfo(thread).is_err();
                go_on(thread, (!ours).then_some(signal));
            }
            WaitStatus::PtraceEvent(thread, ..) => go_on(thread, None),
            WaitStatus::Exited(thread, _) | WaitStatus::Signaled(thread, ..) => {
                if thread == main {
                    self.end = Some(status);
                }
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn system_call(&mut self, thread: Pid) {
        let info = match ptrace::syscall_info(thread) {
            Ok(info) => info,
            // It was killed meanwhile.
            Err(Errno::ESRCH) => return,
            Err(error) => panic!("the system call cannot be read: {error}"),
        };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return;
        }
        // SAFETY: the kernel says that it is an entry, so the entry's fields are what it filled in.
        let entry = unsafe { info.u.entry };
        let number = entry.nr as i64;
        if number == libc::SYS_seccomp && entry.args[0] == u64::from(libc::SECCOMP_SET_MODE_FILTER)
        {
            self.filters += 1;
            self.calls.clear();
            return;
        }
        if number == libc::SYS_msync
            && let Some(on_sync) = &mut self.on_sync
        {
            on_sync(entry.args);
        }
        *self.calls.entry(number).or_default() += 1;
    }
}

fn go_on(thread: Pid, signal: Option<Signal>) {
    match ptrace::syscall(thread, signal) {
        // It was killed meanwhile, and its end is told of.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => panic!("a thread cannot go on: {error}"),
    }
}
