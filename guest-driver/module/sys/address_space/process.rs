// SPDX-License-Identifier: GPL-2.0-only

//! Processes and whose memory the caller may move.
//!
//! The rule is the kernel's own: the caller may move the memory of another process if it may open
//! `/proc/PID/mem`, that is if it may debug the process. [`ProcMount`] has the kernel check that.
//!
//! C headers: [`include/linux/sched.h`](srctree/include/linux/sched.h),
//! [`include/linux/pid.h`](srctree/include/linux/pid.h)

use crate::sys::{
    address_space::tracking,
    bindings,
    services::process_id::ProcessId, //
};
use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    mm::MmWithUser,
    prelude::*,
    sync::aref::ARef,
    task::{
        Pid,
        Task, //
    }, //
};

/// How often a process is looked at that executes another program meanwhile.
const TRIES: usize = 8;

/// A mount of procfs of the driver's own.
///
/// # Invariants
///
/// The pointer is a mount that this object owns, of the first process namespace.
pub(crate) struct ProcMount(NonNull<bindings::vfsmount>);

// SAFETY: A mount may be used and dropped on any thread.
unsafe impl Send for ProcMount {}
// SAFETY: As above.
unsafe impl Sync for ProcMount {}

impl ProcMount {
    /// Mounts procfs.
    ///
    /// # Errors
    ///
    /// `ENODEV` the kernel has no procfs, `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Has no requirements.
        let mount = from_err_ptr(unsafe { bindings::vhmm_proc_mount() })?;
        // INVARIANT: It was just made, by a worker of the kernel.
        NonNull::new(mount).map(Self).ok_or(ENODEV)
    }
}

impl Drop for ProcMount {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::vhmm_proc_unmount(self.0.as_ptr()) };
    }
}

/// A process, and the memory that it had when it was looked up.
#[derive(Clone)]
pub(crate) struct Process {
    task: ARef<Task>,
    mm: ARef<MmWithUser>,
}

impl Process {
    /// The process of the caller.
    ///
    /// # Errors
    ///
    /// `ESRCH`: it has no memory.
    pub(crate) fn current() -> Result<Self> {
        let current = current!();
        let mm = current.mm().map(ARef::from).ok_or(ESRCH)?;
        let task: &Task = current;
        Ok(Self {
            task: task.into(),
            mm,
        })
    }

    /// Finds a process by its id in the caller's namespace; 0 is the caller.
    ///
    /// # Errors
    ///
    /// `ESRCH` no such process or it has no memory (any more), `EPERM` the caller may not debug it,
    /// `EINTR` the caller was killed, `ENOMEM`.
    pub(crate) fn find(proc: &ProcMount, pid: Pid) -> Result<Self> {
        if pid == 0 {
            return Self::current();
        }
        let task = task_of(pid)?;
        for _ in 0..TRIES {
            let process = Self::of(task.clone())?;
            let is_own = current!()
                .mm()
                .is_some_and(|own| own.as_raw() == process.mm.as_raw());
            if is_own {
                return Ok(process);
            }
            match process.check_access(proc) {
                Ok(()) => return Ok(process),
                Err(error) if error == EAGAIN => {}
                Err(error) => return Err(error),
            }
        }
        Err(ESRCH)
    }

    /// Whether the process has a userfaultfd open, so that it may move its pages with it.
    pub(crate) fn has_userfaultfd(&self) -> bool {
        tracking::has_userfaultfd(&self.task)
    }

    /// The memory that a task has now.
    fn of(task: ARef<Task>) -> Result<Self> {
        // SAFETY: The task is valid. `get_task_mm` returns null or takes a reference to the mm.
        let mm = unsafe { bindings::get_task_mm(task.as_ptr()) };
        let mm = NonNull::new(mm).ok_or(ESRCH)?;
        // SAFETY: `get_task_mm` gave us a user reference.
        let mm: ARef<MmWithUser> = unsafe { ARef::from_raw(mm.cast()) };
        Ok(Self { task, mm })
    }

    /// Whether the caller may debug the process as far as it has this memory; `EAGAIN` if it has other
    /// memory by now.
    fn check_access(&self, proc: &ProcMount) -> Result {
        // SAFETY: The mount, the task and the memory are valid.
        let result = unsafe {
            bindings::vhmm_proc_may_access(proc.0.as_ptr(), self.task.as_ptr(), self.mm.as_raw())
        };
        to_result(result).map_err(|error| match error {
            EACCES => EPERM,
            ENOENT => ESRCH,
            other => other,
        })
    }

    /// Its memory.
    pub(crate) fn mm(&self) -> &ARef<MmWithUser> {
        &self.mm
    }

    /// The process of `task` with the memory that it had.
    pub(crate) fn with_memory(task: ARef<Task>, mm: ARef<MmWithUser>) -> Self {
        Self { task, mm }
    }

    /// Its first thread, or the one that was asked for.
    pub(crate) fn task(&self) -> &ARef<Task> {
        &self.task
    }

    /// Whether it has other memory by now, or is about to end. Then it is not worth moving.
    pub(crate) fn has_left(&self) -> bool {
        // SAFETY: Both are valid.
        unsafe { bindings::vhmm_task_has_left(self.task.as_ptr(), self.mm.as_raw()) }
    }

    /// How many pages it may keep from moving, by its `RLIMIT_MEMLOCK` and the capabilities of the
    /// caller.
    pub(crate) fn memlock_limit(&self) -> usize {
        if is_capable(bindings::CAP_IPC_LOCK) {
            return usize::MAX;
        }
        // SAFETY: The task is valid.
        unsafe { bindings::vhmm_task_memlock_limit(self.task.as_ptr()) }
    }

    /// What tells it from others.
    ///
    /// # Errors
    ///
    /// `ESRCH`: it has ended.
    pub(crate) fn id(&self) -> Result<ProcessId> {
        ProcessId::of(&self.task)
    }
}

/// A task by its id in the caller's namespace.
fn task_of(pid: Pid) -> Result<ARef<Task>> {
    // SAFETY: `find_get_pid` takes any number. `get_pid_task` takes a referenced pid or null, and
    // `put_pid` drops that reference.
    let task = unsafe {
        let pid = bindings::find_get_pid(pid);
        let task = bindings::get_pid_task(pid, bindings::pid_type_PIDTYPE_PID);
        bindings::put_pid(pid);
        task
    };
    let task = NonNull::new(task).ok_or(ESRCH)?;
    // SAFETY: `get_pid_task` gave us a reference. `Task` is a transparent wrapper of the structure.
    Ok(unsafe { ARef::from_raw(task.cast()) })
}

/// Whether the caller may deal with the memory of every process (`CAP_SYS_PTRACE`).
pub(crate) fn may_touch_all() -> bool {
    is_capable(bindings::CAP_SYS_PTRACE)
}

/// Whether the caller may exceed limits (`CAP_SYS_RESOURCE`).
pub(crate) fn may_raise_limits() -> bool {
    is_capable(bindings::CAP_SYS_RESOURCE)
}

/// Device memory belongs to the whole system, so this asks for capabilities in the first user
/// namespace.
fn is_capable(capability: u32) -> bool {
    // SAFETY: Has no requirements. CAST: The capability's number is small.
    unsafe { bindings::capable(capability as c_int) }
}

#[kunit_tests(virtio_hmm_process)]
mod tests {
    use super::*;
    use crate::sys::services::kunit::TestMemory;

    #[test]
    fn the_own_process_has_no_number() -> Result {
        let mm = TestMemory::new(1)?.mm()?;
        let proc = ProcMount::new()?;
        let own = Process::find(&proc, 0)?;
        assert!(own.mm().as_raw() == mm.as_raw());
        let first = Process::find(&proc, 1)?;
        assert!(first.mm().as_raw() != mm.as_raw() && !first.has_left());
        assert!(Process::with_memory(first.task().clone(), own.mm().clone()).has_left());
        assert!(first.id()? == Process::find(&proc, 1)?.id()? && first.id()? != own.id()?);
        assert_eq!(Process::find(&proc, -1).err(), Some(ESRCH));
        Ok(())
    }
}
