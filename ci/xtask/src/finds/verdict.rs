// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What the reproducers showed without the patches and with them.

use serde::Serialize;

use super::list::Find;

/// What a reproducer showed on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "seen", content = "text")]
pub(super) enum Seen {
    /// The fault.
    Fault(String),
    /// The kernel does the right thing.
    Right(String),
    /// It could not be tried.
    Cannot(String),
    /// Neither: the program or the guest ended in another way.
    Broken(String),
}

impl Seen {
    /// What a program with this exit code showed, that printed `output`: its last line tells.
    pub(super) fn of(code: u8, output: &str) -> Self {
        let text = (output.lines().map(str::trim).rfind(|line| !line.is_empty()))
            .unwrap_or_default()
            .to_owned();
        match code {
            0 => Self::Right(text),
            1 => Self::Fault(text),
            4 => Self::Cannot(text),
            _ => Self::Broken(format!("exit code {code}: {text}")),
        }
    }

    /// What was seen, for a person.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Fault(text) | Self::Right(text) | Self::Cannot(text) | Self::Broken(text) => text,
        }
    }
}

/// All reproducers on one kernel.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// What `uname -r` says there.
    pub(super) release: String,
    /// What each showed, in the order of the finds.
    pub(super) seen: Vec<Seen>,
    /// What the kernel's log has that it must not have, in guests where no fault was expected to do that.
    pub(super) problems: Vec<String>,
}

/// All finds.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    /// The kernels' releases.
    pub(super) releases: Vec<String>,
    pub(super) finds: Vec<Judged>,
    /// What is wrong with the patched kernel as a whole.
    pub(super) problems: Vec<String>,
}

/// One find.
#[derive(Debug, Serialize)]
pub(super) struct Judged {
    pub(super) name: String,
    pub(super) patch: String,
    pub(super) without: Seen,
    /// Missing if only the unpatched kernel was asked for.
    pub(super) with: Option<Seen>,
}

impl Judged {
    /// The fault shows without the patch.
    pub(super) fn is_reproduced(&self) -> bool {
        matches!(self.without, Seen::Fault(_))
    }

    /// The kernel does the right thing with the patch.
    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.with, Some(Seen::Right(_)))
    }

    /// Everything that was asked for was seen.
    pub(super) fn is_good(&self) -> bool {
        self.is_reproduced() && (self.with.is_none() || self.is_fixed())
    }
}

impl Verdict {
    /// Judges the runs: one without the patches, and if there is a second, one with them.
    pub(super) fn new(finds: &[&Find], runs: Vec<Run>) -> Self {
        let releases = runs.iter().map(|run| run.release.clone()).collect();
        let problems = (runs.get(1)).map_or_else(Vec::new, |run| run.problems.clone());
        let mut seen: Vec<_> = runs.into_iter().map(|run| run.seen.into_iter()).collect();
        let judged = finds.iter().map(|find| {
            let mut of = |index: usize| seen.get_mut(index).map(Iterator::next);
            let missing = || Seen::Broken("it did not run".to_owned());
            Judged {
                name: find.name.clone(),
                patch: find.patch.clone(),
                without: of(0).flatten().unwrap_or_else(missing),
                with: of(1).map(|seen| seen.unwrap_or_else(missing)),
            }
        });
        Self {
            finds: judged.collect(),
            releases,
            problems,
        }
    }

    /// Whether all finds show without their patches and do not with them.
    pub(super) fn is_good(&self) -> bool {
        self.problems.is_empty() && self.finds.iter().all(Judged::is_good)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::list::tests::find;
    use super::*;

    fn run(seen: &[Seen], problems: &[&str]) -> Run {
        Run {
            release: "7.3.4".to_owned(),
            seen: seen.to_vec(),
            problems: problems.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    /// A verdict of finds `a`, `b`, … with what each showed without its patch and with it.
    pub(in super::super) fn verdict(seen: &[(Seen, Seen)], problems: &[&str]) -> Verdict {
        let finds: Vec<_> = (('a'..).zip(seen))
            .map(|(name, _)| find(&name.to_string()))
            .collect();
        let (without, with): (Vec<_>, Vec<_>) = seen.iter().cloned().unzip();
        Verdict::new(
            &finds.iter().collect::<Vec<_>>(),
            vec![run(&without, &["BUG"]), run(&with, problems)],
        )
    }

    pub(in super::super) fn fault() -> Seen {
        Seen::Fault("64 lost".to_owned())
    }

    pub(in super::super) fn right() -> Seen {
        Seen::Right("none lost".to_owned())
    }

    #[test]
    fn exit_codes_and_last_lines_tell_what_was_seen() {
        assert_eq!(Seen::of(1, "BUG: x\n64 lost\n\n"), fault());
        assert_eq!(Seen::of(0, "none lost"), right());
        assert_eq!(Seen::of(4, "no node\n"), Seen::Cannot("no node".to_owned()));
        for code in [2, 3, 127, 134] {
            assert!(matches!(Seen::of(code, "x"), Seen::Broken(text) if text.ends_with(": x")));
        }
        assert_eq!(Seen::of(0, ""), Seen::Right(String::new()));
    }

    #[test]
    fn a_find_is_good_if_it_shows_without_the_patch_and_not_with_it() {
        let good = |without, with| verdict(&[(without, with)], &[]).is_good();
        assert!(good(fault(), right()));
        assert!(!good(fault(), fault()));
        assert!(!good(right(), right()));
        let cannot = Seen::Cannot("x".to_owned());
        let broken = Seen::Broken("x".to_owned());
        for other in [cannot, broken] {
            assert!(!good(other.clone(), right()));
            assert!(!good(fault(), other));
        }
    }

    #[test]
    fn one_bad_find_or_a_splat_on_the_patched_kernel_makes_the_whole_bad() {
        let pair = (fault(), right());
        assert!(verdict(&[pair.clone(), pair.clone()], &[]).is_good());
        assert!(!verdict(&[pair.clone(), (fault(), fault())], &[]).is_good());
        assert!(!verdict(&[pair], &["WARNING"]).is_good());
    }

    #[test]
    fn the_unpatched_kernel_alone_is_judged_by_what_it_shows() {
        let find = find("a");
        let alone = |seen| Verdict::new(&[&find], vec![run(&[seen], &[])]);
        assert!(alone(fault()).is_good());
        assert!(!alone(right()).is_good());
        let nothing = Verdict::new(&[&find], vec![run(&[], &[])]);
        assert!(matches!(nothing.finds[0].without, Seen::Broken(_)));
    }
}
