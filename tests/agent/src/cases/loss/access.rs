// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Tasks that touch memory on a lost device.

use super::contents::Reader;
use super::trial::{Trial, counter, wait_for_more, wait_for_waiter};
use crate::cases::support::driver;
use crate::cases::support::prelude::*;
use rustix::process::Signal;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(super) const CASES: &[Case] = &[
    Case::new("loss/reader-waits-anon-4k", || {
        waits(Memory::single(PAGES)?, |memory| memory.check(1))
    }),
    Case::new("loss/reader-waits-anon-thp", || {
        waits(Memory::huge(2)?, |memory| memory.check(1))
    }),
    Case::new("loss/writer-waits-anon-4k", || {
        waits(Memory::single(PAGES)?, writes)
    }),
    Case::new("loss/writer-waits-anon-thp", || {
        waits(Memory::huge(2)?, writes)
    }),
    Case::new("loss/reader-in-kernel-waits-anon-4k", || {
        waits(Memory::single(PAGES)?, |memory| {
            Reader::new()?.check(memory, 0..PAGES, 1, false)?;
            Ok(())
        })
    }),
    Case::new("loss/call-to-system-waits-anon-4k", call_waits),
    Case::new("loss/killed-while-waiting-anon-4k", killed),
    Case::new(
        "loss/killed-while-waiting-in-kernel-anon-4k",
        killed_in_kernel,
    ),
    Case::new("loss/signal-while-waiting-anon-4k", signalled),
    Case::new("loss/many-wait-anon-4k", || many(Memory::single(PAGES)?)),
    Case::new("loss/many-wait-anon-thp", || many(Memory::huge(2)?)),
    Case::new(
        "loss/mapping-changes-while-waiting-anon-4k",
        mapping_changes,
    ),
    Case::new("loss/fork-anon-4k", forked),
    Case::new("loss/exit-of-owner-anon-4k", exit),
    Case::new("loss/unload-is-refused-anon-4k", unload),
    Case::new("loss/again-and-again-anon-4k", again),
    Case::new("loss/nothing-returns-anon-4k", || {
        nothing_returns(Memory::single(PAGES)?)
    }),
    Case::new("loss/nothing-returns-anon-thp", || {
        nothing_returns(Memory::huge(2)?)
    }),
    Case::new("loss/nothing-returns-to-kernel-anon-4k", kernel_gets_errors),
];

const PAGES: usize = 2 * HUGE / PAGE;

fn writes(memory: &mut Memory) -> Result<()> {
    memory.fill(2);
    memory.check(2)
}

/// A task touches the memory while the device is lost, and goes on when it is back.
fn waits(memory: Memory, touch: fn(&mut Memory) -> Result<()>) -> Result<()> {
    let trial = Trial::new()?;
    let mut memory = trial.placed(memory, 1)?;
    trial.lose()?;
    let before = counter("loss_fault_waits")?;
    let child = fork(|| touch(&mut memory))?;
    wait_for_waiter("loss_fault_waits", before, &child)?;
    trial.come_back()?;
    child.wait()?;
    memory.check(1)?;
    // All works as before.
    trial.mover.all_to_device(memory.range())?;
    memory.check(1)
}

/// A request that migrates back waits, too, and then does all of it.
fn call_waits() -> Result<()> {
    let trial = Trial::new()?;
    let memory = trial.memory(PAGES, 1)?;
    trial.lose()?;
    let before = counter("loss_call_waits")?;
    let child = fork(|| {
        trial
            .mover
            .to_system(memory.range())?
            .expect(PAGES, none())?;
        trial.mover.expect_in_system(memory.range())?;
        memory.check(1)
    })?;
    wait_for_waiter("loss_call_waits", before, &child)?;
    // What needs no device does not wait.
    trial.mover.expect_on_device(memory.range())?;
    ensure!(trial.mover.resident()? > 0, "nothing is resident");
    trial.come_back()?;
    child.wait()?;
    memory.check(1)
}

fn killed() -> Result<()> {
    killed_while(|memory| {
        memory.touch(3..4);
        Ok(())
    })
}

fn killed_in_kernel() -> Result<()> {
    killed_while(|memory| Reader::new()?.page(memory, 3).map(drop))
}

/// A task that waits can be killed at once.
fn killed_while(touch: fn(&Memory) -> Result<()>) -> Result<()> {
    let trial = Trial::new()?;
    let memory = trial.memory(PAGES, 1)?;
    trial.lose()?;
    let before = counter("loss_fault_waits")?;
    let child = fork(|| touch(&memory))?;
    wait_for_waiter("loss_fault_waits", before, &child)?;
    child.signal(Signal::KILL)?;
    // The device is still lost.
    child.wait_for_signal(Signal::KILL)?;
    trial.come_back()?;
    memory.check(1)
}

/// A task that waits handles its signals.
fn signalled() -> Result<()> {
    extern "C" fn leave(_: libc::c_int) {
        // SAFETY: _exit() may be called in a handler.
        unsafe { libc::_exit(17) }
    }
    let trial = Trial::new()?;
    let memory = trial.memory(PAGES, 1)?;
    trial.lose()?;
    let before = counter("loss_fault_waits")?;
    let child = fork(|| {
        // SAFETY: The handler only ends the process.
        unsafe { libc::signal(libc::SIGUSR1, leave as *const () as libc::sighandler_t) };
        memory.touch(3..4);
        bail!("the lost page was touched")
    })?;
    wait_for_waiter("loss_fault_waits", before, &child)?;
    child.signal(Signal::USR1)?;
    let ended = child.wait();
    ensure!(
        ended.is_err_and(|error| error.to_string().contains("code 17")),
        "the handler did not run"
    );
    trial.come_back()?;
    memory.check(1)
}

/// Several tasks wait for the same pages.
fn many(memory: Memory) -> Result<()> {
    const TASKS: u64 = 6;
    let trial = Trial::new()?;
    let memory = trial.placed(memory, 1)?;
    trial.lose()?;
    let before = counter("loss_fault_waits")?;
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..TASKS)
            .map(|_| scope.spawn(|| memory.check(1)))
            .collect();
        wait_for_more("loss_fault_waits", before + 5 * TASKS)?;
        trial.come_back()?;
        for thread in threads {
            match thread.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread panicked"),
            }
        }
        Ok(())
    })
}

/// While a thread waits, another maps and unmaps memory of the same process, part of what is lost, too.
fn mapping_changes() -> Result<()> {
    let trial = Trial::new()?;
    let memory = trial.memory(PAGES, 1)?;
    let lost = trial.memory(PAGES, 3)?;
    trial.lose()?;
    let before = counter("loss_fault_waits")?;
    std::thread::scope(|scope| -> Result<()> {
        let reader = scope.spawn(|| memory.check(1));
        wait_for_more("loss_fault_waits", before)?;
        for seed in 0..50 {
            let mut other = Memory::single(20)?;
            other.fill(seed);
            other.check(seed)?;
        }
        let resident = trial.mover.resident()?;
        lost.unmap(0..PAGES / 2)?;
        ensure!(
            trial.mover.resident()? < resident,
            "what was unmapped is still counted"
        );
        trial.come_back()?;
        match reader.join() {
            Ok(result) => result,
            Err(_) => bail!("the reader panicked"),
        }
    })?;
    lost.check_pages(PAGES / 2..PAGES, 3)
}

/// A process that is forked while the device is lost has the memory as well.
fn forked() -> Result<()> {
    let trial = Trial::new()?;
    let mut memory = trial.memory(PAGES, 1)?;
    trial.lose()?;
    let before = counter("loss_fault_waits")?;
    let child = fork(|| {
        memory.check(1)?;
        memory.fill(2);
        memory.check(2)
    })?;
    wait_for_waiter("loss_fault_waits", before, &child)?;
    trial.come_back()?;
    memory.check(1)?;
    memory.fill(3);
    child.wait()?;
    memory.check(3)
}

/// The owner of what is lost ends. Its memory is free.
fn exit() -> Result<()> {
    let trial = Trial::new()?;
    let gone = crate::cases::support::gate::Gate::new()?;
    let ready = crate::cases::support::gate::Gate::new()?;
    let owner = fork(|| {
        let _memory = trial.memory(PAGES, 1)?;
        ready.open()?;
        gone.wait()
    })?;
    ready.wait()?;
    trial.lose()?;
    ensure!(trial.mover.resident()? > 0, "nothing is resident");
    gone.open()?;
    owner.wait()?;
    while trial.mover.resident()? > 0 {
        std::thread::yield_now();
    }
    trial.come_back()?;
    let memory = trial.memory(PAGES, 2)?;
    memory.check(2)
}

/// The module serves the faults of what is lost, so it stays.
fn unload() -> Result<()> {
    let trial = Trial::new()?;
    let memory = trial.memory(PAGES, 1)?;
    trial.lose()?;
    trial.unbind()?;
    let device = trial.device();
    let driver = trial.close();
    let refused = driver::unload();
    ensure!(
        refused == Err(rustix::io::Errno::AGAIN),
        "the module was to be unloaded with memory in use: {refused:?}"
    );
    driver::bind(&device, 1)?;
    memory.check(1)?;
    drop(driver);
    memory.check(1)
}

fn again() -> Result<()> {
    let trial = Trial::new()?;
    let mut memory = trial.memory(PAGES, 0)?;
    for round in 0..5 {
        trial.mover.all_to_device(memory.range())?;
        trial.lose()?;
        trial.come_back()?;
        memory.check_pages(0..PAGES / 2, round)?;
        memory.fill(round + 1);
    }
    memory.check(5)
}

static BAD_ADDRESS: AtomicUsize = AtomicUsize::new(0);
static BAD_CODE: AtomicUsize = AtomicUsize::new(0);

/// Puts a new page in the place of the lost one, as a program does that can make its contents anew.
extern "C" fn replace(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: The kernel passes a valid structure, and SIGBUS has an address. The page is private memory of the case.
    unsafe {
        let address = (*info).si_addr() as usize;
        BAD_ADDRESS.store(address, Ordering::Relaxed);
        BAD_CODE.store((*info).si_code as usize, Ordering::Relaxed);
        let page = address & !(PAGE - 1);
        libc::mmap(
            page as *mut libc::c_void,
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
    }
}

/// The device does not come back in time: an access is an error at the right address, and the process lives.
fn nothing_returns(memory: Memory) -> Result<()> {
    const BUS_MCEERR_AR: usize = 4;
    let trial = Trial::with_short_wait()?;
    let memory = trial.placed(memory, 1)?;
    let mut other = Memory::single(PAGES)?;
    other.fill(2);
    trial.lose()?;
    // SAFETY: All zero is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = replace as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: The handler only maps a page in the place of one of the case's.
    let set = unsafe { libc::sigaction(libc::SIGBUS, &action, std::ptr::null_mut()) };
    ensure!(set == 0, std::io::Error::last_os_error());
    let resident = trial.mover.resident()?;
    for page in [3, PAGES - 1] {
        // Waits, then is replaced.
        memory.touch(page..page + 1);
        memory.check_zero(page..page + 1)?;
        let address = memory.part(page..page + 1).start as usize;
        let found = BAD_ADDRESS.load(Ordering::Relaxed);
        ensure!(
            found & !(PAGE - 1) == address,
            "SIGBUS for {found:#x}, and the page is at {address:#x}"
        );
        ensure!(
            BAD_CODE.load(Ordering::Relaxed) == BUS_MCEERR_AR,
            "SIGBUS has the code {}",
            BAD_CODE.load(Ordering::Relaxed)
        );
    }
    trial.wait_until_gone();
    other.check(2)?;
    // What is lost is counted until it is free.
    ensure!(
        trial.mover.resident()? > 0 && trial.mover.resident()? <= resident,
        "lost memory is not accounted"
    );
    drop(memory);
    while trial.mover.resident()? > 0 {
        std::thread::yield_now();
    }
    // The same device serves again, as a new one.
    trial.unbind()?;
    trial.begin_anew()?;
    Mover::open()?.all_to_device(other.range())?;
    other.check(2)
}

fn kernel_gets_errors() -> Result<()> {
    let trial = Trial::with_short_wait()?;
    let memory = trial.memory(PAGES, 1)?;
    trial.lose()?;
    let lost = Reader::new()?.check(&memory, 0..PAGES, 1, true)?;
    ensure!(
        lost == PAGES,
        "the kernel read lost memory: {lost} of {PAGES}"
    );
    fork(|| {
        memory.touch(5..6);
        Ok(())
    })?
    .wait_for_signal(Signal::BUS)
}
