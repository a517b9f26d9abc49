// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Seccomp: the system calls that a process needs that copies memory and answers on sockets, and no others.
//!
//! Three filters, of which the kernel obeys the strictest: one refuses to open files, one refuses `clone3`, whose
//! arguments a filter cannot see, so that the C library takes `clone`; and one is the list.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

use super::SandboxError;

/// What happens to a system call that is not on the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SeccompMode {
    /// It ends the process.
    #[default]
    Kill,
    /// The kernel logs it and executes it.
    Log,
    /// There is no list.
    Off,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Allowed whatever their arguments are. A test watches a device at work and compares: what is not seen there has its
/// reason there.
const ALLOWED: &[libc::c_long] = &[
    // Reading and writing: sockets, eventfds, standard error, the account of mappings, statistics and trace.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_preadv2,
    libc::SYS_close,
    libc::SYS_fcntl,
    // Opening is on the list so that it can be refused without ending the process.
    libc::SYS_openat,
    // Sockets.
    libc::SYS_accept4,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_msync,
    libc::SYS_fallocate,
    // Threads and the end.
    libc::SYS_clone3,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Things that have an old name, and on newer architectures another one only.
#[cfg(target_arch = "x86_64")]
const ALLOWED_HERE: &[libc::c_long] = &[libc::SYS_epoll_wait];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_HERE: &[libc::c_long] = &[libc::SYS_epoll_pwait];

const OPENING: &[libc::c_long] = &[libc::SYS_openat];

/// Installs the filters on all threads.
pub(super) fn close(mode: SeccompMode) -> Result<(), SandboxError> {
    let beyond = match mode {
        SeccompMode::Off => return Ok(()),
        SeccompMode::Log => SeccompAction::Log,
        SeccompMode::Kill => SeccompAction::KillProcess,
    };
    // The list last: it allows installing no further filter.
    for (rules, action) in [
        (whatever(OPENING), libc::EACCES),
        (whatever(&[libc::SYS_clone3]), libc::ENOSYS),
    ] {
        let error = SeccompAction::Errno(action.unsigned_abs());
        install(rules, SeccompAction::Allow, error)?;
    }
    install(list()?, beyond, SeccompAction::Allow)
}

fn install(
    rules: Rules,
    others: SeccompAction,
    matching: SeccompAction,
) -> Result<(), SandboxError> {
    let architecture = std::env::consts::ARCH
        .try_into()
        .map_err(|_| SandboxError::Architecture)?;
    let filter = SeccompFilter::new(rules, others, matching, architecture)?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter_all_threads(&program).map_err(SandboxError::Install)
}

fn whatever(calls: &[libc::c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// The numbers of all system calls on the list, whatever arguments it allows them.
pub(super) fn numbers() -> Result<Vec<i64>, SandboxError> {
    Ok(list()?.into_keys().collect())
}

fn list() -> Result<Rules, SandboxError> {
    let mut rules = whatever(ALLOWED);
    rules.extend(whatever(ALLOWED_HERE));
    // A process id has 32 bits, whatever the upper half of its register has.
    let own = u64::from(std::process::id());
    let exec = libc::PROT_EXEC as u64;
    let thread = libc::CLONE_THREAD as u64;
    let masked = SeccompCmpOp::MaskedEq;
    for (call, argument, len, compare, value) in [
        // A thread that aborts, or dies on command, signals itself.
        (
            libc::SYS_tgkill,
            0,
            SeccompCmpArgLen::Dword,
            SeccompCmpOp::Eq,
            own,
        ),
        // No memory becomes code.
        (libc::SYS_mmap, 2, SeccompCmpArgLen::Qword, masked(exec), 0),
        (
            libc::SYS_mprotect,
            2,
            SeccompCmpArgLen::Qword,
            masked(exec),
            0,
        ),
        // Threads, and no processes.
        (
            libc::SYS_clone,
            0,
            SeccompCmpArgLen::Qword,
            masked(thread),
            thread,
        ),
        (
            libc::SYS_ioctl,
            1,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::Eq,
            libc::FIONBIO,
        ),
        // Threads give themselves names.
        (
            libc::SYS_prctl,
            0,
            SeccompCmpArgLen::Qword,
            SeccompCmpOp::Eq,
            libc::PR_SET_NAME as u64,
        ),
    ] {
        let condition = SeccompCondition::new(argument, len, compare, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))?;
        rules.entry(call).or_default().push(condition);
    }
    Ok(rules)
}
