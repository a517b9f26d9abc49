// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Reads the Test Anything Protocol as the kernel's selftests speak it: other output may stand between its lines.

use super::expected::Kind;

/// The result of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CaseResult {
    /// Its name.
    pub(super) name: String,
    /// How it ended.
    pub(super) kind: Kind,
    /// Why it was skipped, or what else the line says of it.
    pub(super) diagnostic: String,
    /// What was printed since the result before.
    pub(super) remarks: Vec<String>,
}

/// What a program printed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Output {
    /// How many results it promised.
    pub(super) plan: Option<usize>,
    /// The results that came.
    pub(super) results: Vec<CaseResult>,
    /// What was printed after the last result.
    pub(super) rest: Vec<String>,
}

impl Output {
    /// Reads everything that a program printed.
    pub(super) fn read(text: &str) -> Self {
        let mut output = Self::default();
        for line in text.lines() {
            output.line(line.trim_end());
        }
        output
    }

    fn line(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("1..").and_then(|text| text.parse().ok())
            && self.plan.is_none()
        {
            self.plan = Some(count);
            return;
        }
        match result(line) {
            Some((name, kind, diagnostic)) => self.results.push(CaseResult {
                name,
                kind,
                diagnostic,
                remarks: std::mem::take(&mut self.rest),
            }),
            None => self.rest.push(line.to_owned()),
        }
    }

    /// Why the results are not all that there should be.
    pub(super) fn problem(&self) -> Option<String> {
        match self.plan {
            None => Some(
                "there is no plan: the suite did not say how many results to expect".to_owned(),
            ),
            Some(plan) if plan != self.results.len() => Some(format!(
                "{} of {plan} planned results came",
                self.results.len()
            )),
            Some(_) => None,
        }
    }
}

/// `ok 1 NAME`, `ok 2 NAME # SKIP REASON`, `not ok 3 NAME # DIAGNOSTIC`.
fn result(line: &str) -> Option<(String, Kind, String)> {
    let (rest, kind) = match line.strip_prefix("not ok ") {
        Some(rest) => (rest, Kind::Fail),
        None => (line.strip_prefix("ok ")?, Kind::Pass),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = match rest.split_once('#') {
        Some((name, directive)) => (name.trim(), directive.trim()),
        None => (rest.trim(), ""),
    };
    if name.is_empty() {
        return None;
    }
    let skipped = (directive.get(..4))
        .filter(|word| word.eq_ignore_ascii_case("skip"))
        .map(|word| directive[word.len()..].trim());
    Some(match skipped {
        Some(reason) if kind == Kind::Pass => (name.to_owned(), Kind::Skip, reason.to_owned()),
        _ => (name.to_owned(), kind, directive.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "TAP version 13
1..4
# Starting 4 tests from 2 test cases.
#  RUN           hmm.private.open ...
#            OK  hmm.private.open
ok 1 hmm.private.open
# hmm-tests.c:351:read:Expected ret (-14) == 0 (0)
#          FAIL  hmm.private.read
not ok 2 hmm.private.read
could not open hmm dmirror driver (/dev/hmm_dmirror2)
#      SKIP      DEVICE_COHERENT not available
ok 3 hmm.coherent.open # SKIP DEVICE_COHERENT not available
";

    #[test]
    fn results_have_what_was_printed_before_them() {
        let output = Output::read(TEXT);
        let kinds: Vec<_> = (output.results.iter())
            .map(|result| (result.name.as_str(), result.kind))
            .collect();
        assert_eq!(
            kinds,
            [
                ("hmm.private.open", Kind::Pass),
                ("hmm.private.read", Kind::Fail),
                ("hmm.coherent.open", Kind::Skip),
            ]
        );
        assert_eq!(
            output.results[2].diagnostic,
            "DEVICE_COHERENT not available"
        );
        assert!(output.results[1].remarks[0].contains("Expected ret"));
        assert_eq!(output.results[2].remarks.len(), 2);
        assert!(output.rest.is_empty());
    }

    #[test]
    fn missing_results_and_a_missing_plan_are_problems() {
        let problem = Output::read(TEXT).problem().unwrap();
        assert!(problem.contains("3 of 4"), "{problem}");
        let whole = format!("{TEXT}ok 4 hmm.coherent.read\n# Totals: pass:2\n");
        assert_eq!(Output::read(&whole).problem(), None);
        assert_eq!(Output::read(&whole).rest, ["# Totals: pass:2"]);
        assert!(
            Output::read("sh: not found")
                .problem()
                .unwrap()
                .contains("no plan")
        );
    }

    #[test]
    fn lines_that_only_look_like_results_are_none() {
        for line in [
            "ok",
            "ok 1",
            "ok then",
            "not ok",
            "ok x name",
            "ok 1  # SKIP",
            "okay 1 a",
        ] {
            assert_eq!(result(line), None, "{line}");
        }
        let named = |line| result(line).map(|(name, kind, _)| (name, kind)).unwrap();
        assert_eq!(named("ok 7 - a b"), ("a b".to_owned(), Kind::Pass));
        assert_eq!(named("not ok 7 a # SKIP b"), ("a".to_owned(), Kind::Fail));
        assert_eq!(named("ok 7 a # XFAIL b"), ("a".to_owned(), Kind::Pass));
        assert_eq!(named("ok 7 a # skip"), ("a".to_owned(), Kind::Skip));
    }
}
