// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 OR BSD-3-Clause
//! The description for syzkaller tells of the same ioctls, sizes and fields as the crate.

use super::structures::expected;
use hmm_uapi::*;
use std::collections::BTreeMap;

const TEXT: &str = include_str!("../../syzlang/dev_hmm.txt");

/// The size of a type of the description, bytes.
fn size(kind: &str) -> usize {
    let (name, arguments) = match kind.split_once('[') {
        Some((name, rest)) => (name, rest.strip_suffix(']').expect(kind)),
        None => (kind, ""),
    };
    let last = || arguments.rsplit(", ").next().expect(kind);
    match name {
        "int8" => 1,
        "int32" | "pid" | "fd_event" => 4,
        "int64" | "vma64" | "ptr64" | "hmm_prefetch_id" | "hmm_job_id" | "hmm_job_argument" => 8,
        "const" | "flags" => size(last()),
        "array" => {
            let (element, count) = arguments.rsplit_once(", ").expect(kind);
            size(element) * count.parse::<usize>().expect(kind)
        }
        _ => panic!("a type that this test does not know: {kind}"),
    }
}

/// The structures of the description: names of fields with offset and size.
fn described() -> BTreeMap<&'static str, Vec<(&'static str, usize, usize)>> {
    let mut found = BTreeMap::new();
    let mut open: Option<(&str, Vec<_>, usize)> = None;
    for line in TEXT.lines() {
        if let Some(name) = line
            .strip_suffix(" {")
            .and_then(|line| line.strip_prefix("hmm_"))
        {
            open = Some((name, Vec::new(), 0));
        } else if line == "}" {
            let (name, fields, _) = open.take().expect("a structure ends that has not begun");
            found.insert(name, fields);
        } else if let Some((_, fields, offset)) = &mut open {
            let mut words = line.trim_start().split('\t');
            let field = words.next().expect(line);
            let bytes = size(words.next().expect(line));
            fields.push((field, *offset, bytes));
            *offset += bytes;
        }
    }
    found
}

#[test]
fn structures_have_the_fields_of_the_crate() {
    let mut described = described();
    for expected in expected() {
        let found = described.remove(expected.name).expect(expected.name);
        assert_eq!(found, expected.fields, "{}", expected.name);
        let bytes = found.last().map_or(0, |(_, offset, bytes)| offset + bytes);
        assert_eq!(bytes, expected.size, "{}", expected.name);
    }
    assert!(described.is_empty(), "unknown: {described:?}");
}

#[test]
fn calls_have_the_numbers_of_the_crate() {
    let expected = expected();
    for call in &expected {
        let upper = call.name.to_uppercase();
        let define = format!(
            "define HMM_{upper}\t_IOC(_IOC_READ|_IOC_WRITE, {IOCTL_TYPE:#x}, {}, {})",
            call.number, call.size
        );
        let ioctl = format!(
            "ioctl$HMM_{upper}(fd fd_hmm, cmd const[HMM_{upper}], arg ptr[inout, hmm_{}])",
            call.name
        );
        for line in [define, ioctl] {
            assert!(TEXT.lines().any(|found| found == line), "missing: {line}");
        }
    }
    let calls = TEXT.lines().filter(|line| line.starts_with("ioctl$"));
    assert_eq!(calls.count(), expected.len());
    // The last number that this version of the interface has.
    assert_eq!(usize::from(JOB_WAIT_NR) + 1, expected.len());
}

#[test]
fn flags_are_those_of_the_crate() {
    let bits = |name: &str| -> u32 {
        let line = TEXT
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
            .expect(name);
        line.split(", ")
            .map(|bit| bit.parse::<u32>().expect(line))
            .fold(0, |all, bit| all | bit)
    };
    assert_eq!(bits("hmm_migrate_flags"), MigrateFlags::ALL.0);
    assert_eq!(bits("hmm_advise_flags"), AdviseFlags::ALL.0);
    assert_eq!(bits("hmm_wait_flags"), WaitFlags::ALL.0);
    assert_eq!(bits("hmm_limit_flags"), LimitFlags::ALL.0);
    assert_eq!(bits("hmm_job_flags"), JobFlags::ALL.0);
    assert_eq!(bits("hmm_job_wait_flags"), JobWaitFlags::ALL.0);
}
