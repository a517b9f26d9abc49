// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Runs a script once for each case and prints the exit codes as the Test Anything Protocol, with the script's own output
//! as remarks.

use super::declaration::Run;

/// Arguments: the script, how many seconds a case may take, the text that runs first, and the cases. What a case leaves
/// running cannot hold up the next one: its output goes to a file. `timeout` ends a case with 124.
const LOOP: &str = r#"
script=$1 limit=$2 before=$3
shift 3
echo "TAP version 13"
echo "1..$#"
eval "$before"
number=0
for case in "$@"; do
    number=$((number + 1))
    code=0
    timeout -k 10 "$limit" sh -euc "$script" suite "$case" </dev/null >/tmp/suite.output 2>&1 || code=$?
    sed 's/^/# /' /tmp/suite.output
    # A last line without an end must not hide the result.
    echo
    case $code in
        0) echo "ok $number $case" ;;
        4) echo "ok $number $case # SKIP $(tail -n 1 /tmp/suite.output | tr -d '#')" ;;
        124|137) echo "not ok $number $case # no end after $limit s" ;;
        *) echo "not ok $number $case # exit code $code" ;;
    esac
done
"#;

/// What the loop itself needs in the guest.
pub(super) const PROGRAMS: [&str; 6] = ["sh", "sed", "tail", "timeout", "tr", "cat"];

/// What stands behind `sh -euc`.
pub(super) fn arguments(run: &Run, name: &str, limit: u64, cases: &[&str]) -> Vec<String> {
    let fixed = [LOOP, name, &run.script, &limit.to_string(), &run.before].map(str::to_owned);
    (fixed.into_iter())
        .chain(cases.iter().map(|case| (*case).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::expected::Kind;
    use super::super::tap::Output;
    use super::*;

    #[test]
    fn each_exit_code_becomes_a_result_with_its_output() {
        let run: Run = toml::from_str(
            r#"
            script = 'echo "$ready: $1"; printf "ok 9 inner"; exit ${1#code }'
            before = "export ready=yes"
            verdict = "exit"
            limit_seconds = 1
            "#,
        )
        .unwrap();
        let cases = ["code 0", "code 4", "code 3"];
        let output = Command::new("sh")
            .arg("-euc")
            .args(arguments(&run, "suite", 60, &cases))
            .output()
            .unwrap();
        let output = Output::read(&String::from_utf8(output.stdout).unwrap());
        assert_eq!(output.problem(), None);
        let results: Vec<_> = (output.results.iter())
            .map(|result| (result.name.as_str(), result.kind))
            .collect();
        let kinds = [Kind::Pass, Kind::Skip, Kind::Fail];
        assert_eq!(results, cases.into_iter().zip(kinds).collect::<Vec<_>>());
        let remarks = output.results[2].remarks.join(",");
        assert!(remarks.contains("# yes: code 3,# ok 9 inner"), "{remarks}");
        assert_eq!(output.results[2].diagnostic, "exit code 3");
    }
}
