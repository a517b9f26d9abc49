// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Steps that are made once, interrupted, damaged and raced for.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(Some(folder.path().join("cache"))).unwrap();
    (folder, cache)
}

fn key() -> Key {
    KeyBuilder::new("step", 1).finish()
}

fn write_file(work: &Path, text: &str) -> Result<Vec<PathBuf>> {
    fs::write(work.join("file"), text).unwrap();
    Ok(vec![PathBuf::from("file")])
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_step_is_made_once() {
    let (_folder, cache) = cache();
    assert_eq!(cache.find("step", &key()), None);
    let made = cache.step("step", &key(), &Progress::new(), |work| {
        write_file(work, "one")
    });
    let again = cache.step("step", &key(), &Progress::new(), |_| panic!("made twice"));
    assert_eq!(made.unwrap(), again.unwrap());
}

#[test]
fn a_step_that_failed_leaves_nothing_and_can_be_made_again() {
    let (_folder, cache) = cache();
    let failed = cache.step("step", &key(), &Progress::new(), |work| {
        write_file(work, "half")?;
        Err(SetupError::invalid(work, "made to fail"))
    });
    assert!(failed.unwrap_err().to_string().contains("made to fail"));
    assert_eq!(cache.find("step", &key()), None);
    assert_eq!(
        names(&cache.root.join("step")),
        [format!("{}.lock", key().short())]
    );
    let made = cache.step("step", &key(), &Progress::new(), |work| {
        write_file(work, "whole")
    });
    assert_eq!(
        fs::read_to_string(made.unwrap().join("file")).unwrap(),
        "whole"
    );
}

#[test]
fn what_a_killed_run_left_is_removed_by_the_next() {
    let (_folder, cache) = cache();
    let parent = cache.root.join("step");
    let leftover = parent.join(format!("{}{WORK_SUFFIX}killed", key().short()));
    let other = parent.join(format!(
        "{}{WORK_SUFFIX}x",
        KeyBuilder::new("other", 1).finish().short()
    ));
    fs::create_dir_all(leftover.join("deep")).unwrap();
    fs::write(leftover.join("deep/file"), "half").unwrap();
    fs::create_dir_all(&other).unwrap();
    cache
        .step("step", &key(), &Progress::new(), |work| {
            write_file(work, "one")
        })
        .unwrap();
    assert!(!leftover.exists());
    assert!(
        other.exists(),
        "the leftovers of another key are not ours to remove: its maker may be alive"
    );
}

#[test]
fn a_changed_file_is_noticed_and_the_step_made_again() {
    let (_folder, cache) = cache();
    let made = cache
        .step("step", &key(), &Progress::new(), |work| {
            write_file(work, "one")
        })
        .unwrap();
    for damage in ["two", "longer", ""] {
        fs::write(made.join("file"), damage).unwrap();
        assert_eq!(cache.find("step", &key()), None, "{damage:?}");
        cache
            .step("step", &key(), &Progress::new(), |work| {
                write_file(work, "one")
            })
            .unwrap();
        assert_eq!(fs::read_to_string(made.join("file")).unwrap(), "one");
    }
    fs::remove_file(made.join("file")).unwrap();
    assert_eq!(cache.find("step", &key()), None);
}

#[test]
fn of_many_runs_at_once_one_makes_the_step() {
    let (_folder, cache) = cache();
    let made = AtomicUsize::new(0);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                let folder = cache.step("step", &key(), &Progress::new(), |work| {
                    made.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(std::time::Duration::from_millis(50));
                    write_file(work, "one")
                });
                assert_eq!(
                    fs::read_to_string(folder.unwrap().join("file")).unwrap(),
                    "one"
                );
            });
        }
    });
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[test]
fn a_step_that_was_not_used_for_long_is_removed_when_another_is_made() {
    let (_folder, cache) = cache();
    let progress = Progress::new();
    let keys = [1, 2, 3].map(|version| KeyBuilder::new("step", version).finish());
    let make = |key| {
        cache
            .step("step", key, &progress, |work| write_file(work, "one"))
            .unwrap()
    };
    let folders = [make(&keys[0]), make(&keys[1])];
    for folder in &folders {
        let manifest = fs::File::options()
            .append(true)
            .open(folder.join("manifest.json"))
            .unwrap();
        manifest
            .set_modified(std::time::SystemTime::now() - UNUSED - Duration::from_secs(60))
            .unwrap();
    }
    assert!(cache.find("step", &keys[1]).is_some());
    make(&keys[2]);
    assert!(!folders[0].exists());
    assert!(folders[1].exists(), "it was used just now");
}
