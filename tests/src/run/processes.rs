// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! A command as a set of processes: how it ends, what it can signal, and what it leaves behind.

use super::site::{Site, host_command, image_command, script};
use super::{Outcome, RunTest};
use anyhow::{Result, ensure};
use hmm_vm::guest::{CommandEnd, ExecError, ExitStatus};

pub(super) const TESTS: &[RunTest] = &[
    RunTest::new("run/ends-as-the-command", ends_as_the_command),
    RunTest::new("run/pid-means-the-command-s-process", pids),
    RunTest::new("run/the-whole-guest-can-be-seen", whole_guest),
    RunTest::new("run/nothing-is-left-behind", nothing_is_left),
    RunTest::new("run/orphans-are-reaped", orphans),
    RunTest::new("run/memory-runs-out", memory_runs_out),
    RunTest::new("run/powers-off", powers_off),
    RunTest::new("run/signals-every-process", every_process),
];

fn ends_as_the_command(site: &mut Site) -> Result<Outcome> {
    let ends = [
        ("exit 7", ExitStatus::Code(7)),
        ("kill -SEGV $$", ExitStatus::Signal(11)),
        ("kill -KILL $$", ExitStatus::Signal(9)),
    ];
    for (text, status) in ends {
        site.run(&script(text))?.expect(status, "")?;
    }
    for (program, expected) in [
        ("hmm-no-such-program", ExecError::NotFound),
        ("/etc/passwd", ExecError::NotExecutable),
    ] {
        let ended = site.run(&host_command(&[program]))?;
        let is_expected = |end: &CommandEnd| matches!(end, CommandEnd::NotStarted { error, .. } if *error == expected);
        ensure!(is_expected(&ended.end), "{program}: {ended:?}");
    }
    Ok(Outcome::Passed)
}

/// hmmctl and the driver mean the same process as the shell.
fn pids(site: &mut Site) -> Result<Outcome> {
    let command = script(
        "(while :; do :; done) & hmmctl migrate --pid $! --to device > /dev/null \
         && hmmctl residency --pid $! > /dev/null && echo $(($! < 100)) && kill $!",
    );
    site.run(&command)?.expect_output("1\n")?;
    Ok(Outcome::Passed)
}

fn whole_guest(site: &mut Site) -> Result<Outcome> {
    const PROC: &str = "/run/hmm/proc";
    let command = script(&format!(
        "read -r first < {PROC}/1/comm && read -r second < {PROC}/2/comm && echo $first $second && dmesg | grep -c 'Linux version' \
         && test -e /sys/kernel/mm && test -e /proc/sysrq-trigger"
    ));
    site.run(&command)?.expect_output("init kthreadd\n1\n")?;
    site.run(&image_command(&["cat", &format!("{PROC}/2/comm")]))?
        .expect_output("kthreadd\n")?;
    Ok(Outcome::Passed)
}

fn nothing_is_left(site: &mut Site) -> Result<Outcome> {
    const FIND: &str = "grep -lx hmm-left-behind /run/hmm/proc/[0-9]*/comm 2> /dev/null | wc -l";
    let leave = host_command(&["perl", "-e", LEAVE]);
    site.run(&leave)?.expect_output("there\n")?;
    site.run(&script(FIND))?.expect_output("0\n")?;
    Ok(Outcome::Passed)
}

/// Leaves a process behind that has a session of its own and none of the command's streams.
const LEAVE: &str = r#"
pipe(my $ready, my $told) or die;
if (!fork) {
    syscall(112); # setsid()
    $0 = "hmm-left-behind";
    open(STDOUT, ">", "/dev/null"); open(STDERR, ">", "/dev/null");
    syswrite($told, "x");
    sleep 1000;
}
sysread($ready, my $byte, 1);
print "there\n";
"#;

/// Processes whose parents are gone do not stay as zombies while the command runs.
fn orphans(site: &mut Site) -> Result<Outcome> {
    let command = host_command(&["perl", "-e", ORPHANS]);
    site.run(&command)?.expect_output("reaped\n")?;
    Ok(Outcome::Passed)
}

/// Makes orphans that end, and waits until all of them are gone.
const ORPHANS: &str = r#"
pipe(my $all, my $each) or die;
for (1..20) {
    my $child = fork;
    if (!$child) {
        my $orphan = fork;
        syswrite($each, "$orphan\n") if $orphan;
        exit;
    }
    waitpid($child, 0);
}
close $each;
for my $orphan (<$all>) {
    chomp $orphan;
    1 while -e "/proc/$orphan";
}
print "reaped\n";
"#;

/// The kernel ends the command, which is small, and not what serves the host.
fn memory_runs_out(site: &mut Site) -> Result<Outcome> {
    // The same choice as when there is no memory left: sysrq-f of the kernel.
    let command = script("echo f > /proc/sysrq-trigger; while :; do :; done");
    site.run(&command)?.expect(ExitStatus::Signal(9), "")?;
    Ok(Outcome::Passed)
}

/// The command ends, as a container does.
fn powers_off(site: &mut Site) -> Result<Outcome> {
    let command = host_command(&[
        "perl",
        "-e",
        // reboot(LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF)
        "syscall(169, 0xfee1dead, 672274793, 0x4321fedc); die \"$!\\n\"",
    ]);
    let ended = site.run(&command)?;
    // The process ends itself while the kernel ends all of its namespace.
    ensure!(
        matches!(
            ended.end,
            CommandEnd::Ended(ExitStatus::Code(0) | ExitStatus::Signal(9))
        ),
        "{ended:?}"
    );
    Ok(Outcome::Passed)
}

fn every_process(site: &mut Site) -> Result<Outcome> {
    for (signal, code) in [("ALRM", "142\n"), ("KILL", "137\n")] {
        let text = format!("(while :; do :; done) & kill -{signal} -1; wait $!; echo $?; exit 7");
        site.run(&script(&text))?
            .expect(ExitStatus::Code(7), code)?;
    }
    // The guest is as it was.
    site.run(&script("hmmctl info | wc -l | grep -vx 0 > /dev/null"))?
        .expect_output("")?;
    Ok(Outcome::Passed)
}
