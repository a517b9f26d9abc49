// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Every input that was worth keeping is tried again.

use std::path::Path;

fn replay(name: &str) {
    let run = hmm_fuzz::target(name).expect("a target");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(name);
    let seeds = hmm_fuzz::read_seeds(&folder);
    assert!(
        !seeds.is_empty(),
        "there are no seeds in {}",
        folder.display()
    );
    for seed in &seeds {
        run(seed);
    }
}

#[test]
fn decoder() {
    replay("decoder");
}

#[test]
fn rings() {
    replay("rings");
    // Seeds that only ever fail at the first check would prove nothing.
    let results = hmm_fuzz::rings::results();
    for status in [
        "ok",
        "bad-length",
        "bad-guest-address",
        "bad-count",
        "bad-op",
        "bad-device-range",
    ] {
        assert!(
            results.contains_key(status),
            "no batch was {status}: {results:?}"
        );
    }
}

#[test]
fn queues() {
    replay("queues");
}

#[test]
fn jobs() {
    replay("jobs");
}

#[test]
fn translations() {
    replay("translations");
    let results = hmm_fuzz::translations::results();
    for status in [
        "ok",
        "bad-op",
        "bad-flags",
        "bad-address",
        "bad-guest-address",
        "bad-device-range",
        "bad-fault",
        "looks",
    ] {
        assert!(
            results.contains_key(status),
            "no batch was {status}: {results:?}"
        );
    }
}

#[test]
fn messages() {
    replay("messages");
}

#[test]
fn programs() {
    replay("programs");
}
