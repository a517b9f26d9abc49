// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The C header has the structures and numbers of the crate, as a C compiler sees them.

use super::structures::expected;
use hmm_uapi::*;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

#[test]
fn structures_and_numbers_are_those_of_the_crate() {
    let mut text =
        String::from("#include \"virtio_hmm.h\"\n#include <assert.h>\n#include <stddef.h>\n");
    let mut expect = |what: String, value: u64| {
        writeln!(text, "static_assert(({what}) == {value}u, \"\");").unwrap();
    };
    for structure in expected() {
        let name = format!("struct hmm_{}", structure.name);
        expect(format!("sizeof({name})"), structure.size as u64);
        for (field, offset, bytes) in structure.fields {
            expect(format!("offsetof({name}, {field})"), offset as u64);
            expect(format!("sizeof((({name} *)0)->{field})"), bytes as u64);
        }
        expect(
            format!("_IOC_NR(HMM_{})", structure.name.to_uppercase()),
            structure.number.into(),
        );
        expect(
            format!("_IOC_SIZE(HMM_{})", structure.name.to_uppercase()),
            structure.size as u64,
        );
    }
    for (name, value) in [
        ("HMM_IOCTL_TYPE", IOCTL_TYPE.into()),
        ("HMM_JOB_NO_FAULT", JobFlags::NO_FAULT.0),
        ("HMM_JOB_WRITE", JobFlags::WRITE.0),
        ("HMM_JOB_EVENTFD", JobFlags::EVENTFD.0),
        ("HMM_JOB_WAIT_CANCEL", JobWaitFlags::CANCEL.0),
        ("HMM_WAIT_FOR_EVER", WAIT_FOR_EVER),
        ("HMM_JOB_RUNNING", JobState::Running as u32),
        ("HMM_JOB_DONE", JobState::Done as u32),
        ("HMM_JOB_CANCELLED", JobState::Cancelled as u32),
        ("HMM_JOB_FAILED", JobState::Failed as u32),
        ("HMM_TO_DEVICE", Direction::ToDevice as u32),
        ("HMM_TO_SYSTEM", Direction::ToSystem as u32),
        ("HMM_MIGRATE_POPULATE", MigrateFlags::POPULATE.0),
        ("HMM_MIGRATE_MLOCKED", MigrateFlags::MLOCKED.0),
        ("HMM_ADVISE_SIDE", AdviseFlags::SIDE.0),
        ("HMM_ADVISE_KEEP", AdviseFlags::KEEP.0),
        ("HMM_ADVISE_WINDOW", AdviseFlags::WINDOW.0),
        ("HMM_ADVISE_TOUCHES", AdviseFlags::TOUCHES.0),
        ("HMM_NEVER_TOUCHES", NEVER_TOUCHES),
        ("HMM_SIDE_NONE", PreferredSide::None as u32),
        ("HMM_SIDE_DEVICE", PreferredSide::Device as u32),
        ("HMM_SIDE_SYSTEM", PreferredSide::System as u32),
        ("HMM_LIMIT_SET", LimitFlags::SET.0),
        ("HMM_WAIT_CANCEL", WaitFlags::CANCEL.0),
        ("HMM_PREFETCH_RUNNING", PrefetchState::Running as u32),
        ("HMM_PREFETCH_DONE", PrefetchState::Done as u32),
        ("HMM_PREFETCH_CANCELLED", PrefetchState::Cancelled as u32),
        ("HMM_PREFETCH_FAILED", PrefetchState::Failed as u32),
    ] {
        expect(name.to_owned(), value.into());
    }
    for kind in JobKind::ALL {
        let name = kind.name().to_uppercase().replace('-', "_");
        expect(format!("HMM_JOB_{name}"), u64::from(kind as u32));
    }
    for reason in SkipReason::ALL {
        let name = reason.name().to_uppercase();
        expect(format!("HMM_SKIP_{name}"), reason as u64);
    }
    compile("cc", "virtio_hmm_header.c", "-std=gnu11", &text);
    compile("c++", "virtio_hmm_header.cc", "-std=c++11", &text);
}

/// Has a compiler look at `text`, which names the header.
fn compile(compiler: &str, name: &str, standard: &str, text: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, text).unwrap();
    let output = Command::new(compiler)
        .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
        .arg("-fsyntax-only")
        .arg("-I")
        .arg(folder.join("c"))
        .arg(&file)
        .output()
        .unwrap_or_else(|error| panic!("cannot start {compiler}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler}: {said}");
}
