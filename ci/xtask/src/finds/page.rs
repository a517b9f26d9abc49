// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! `docs/finds.md`, which is made of the list of finds.

use std::fmt;

use super::list::Finds;

/// The whole page.
pub(super) struct Page<'a>(pub(super) &'a Finds);

const HEAD: &str = "\
<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->
<!-- `cargo xtask finds --page` prints this page from ci/finds/finds.toml. -->
# Faults of the kernel, each with a program that shows it and a patch

```
cargo xtask finds                          # all of them: on the debug kernel, and on the same with the patches, which is built once
cargo xtask finds uffd-move-pte scan-pte   # some
cargo xtask finds --unpatched-only --kernel stock
cargo xtask finds --list
cargo xtask finds --junit finds.xml --json finds.json
```
The programs are in `ci/finds`, in C, one for each find. They need nothing of this project: the devices are those of the kernel's own `lib/test_hmm.c`.
Each ends with 0 if the kernel does the right thing, with 1 if the fault shows, and with 4 if it cannot be tried. The command runs them on a kernel
without the patches and on one with all of `qemu-config/kernel/fixes`. Exit codes: 0 each fault showed without the patches and none did with them, 1 not so, 2
wrong usage, 3 the machine lacks something, 125 a guest did not boot.

[kernel-faults.md](kernel-faults.md) says what this driver does so that a program is right without the patches, and has the faults that have no patch.

";

impl fmt::Display for Page<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(finds) = self;
        let proven = finds.all().iter().filter(|find| find.is_proven).count();
        formatter.write_str(HEAD)?;
        writeln!(
            formatter,
            "{proven} of {} were seen without their patches and not with them (Linux 7.3.4, x86-64, under QEMU's TCG).\n",
            finds.all().len()
        )?;
        writeln!(
            formatter,
            "| find | patch | what is wrong | |\n| --- | --- | --- | --- |"
        )?;
        for find in finds.all() {
            writeln!(
                formatter,
                "| [{0}](#{0}) | {1} | {2} | {3} |",
                find.name,
                find.patch,
                find.title,
                proof(find.is_proven)
            )?;
        }
        for find in finds.all() {
            writeln!(
                formatter,
                "\n## {}\n- Function: {}\n- Trigger: {}\n- Consequence: {}\n- Others: {}",
                find.name,
                find.function.trim(),
                find.trigger.trim(),
                find.consequence.trim(),
                find.others.trim(),
            )?;
            match &find.case {
                None => writeln!(formatter, "- Reproducer: `ci/finds/{}.c`.", find.name)?,
                Some(case) => writeln!(
                    formatter,
                    "- Reproducer: none that needs nothing of this project's. `{case}` fails without what the driver does about it."
                )?,
            }
            writeln!(
                formatter,
                "- Patch: `qemu-config/kernel/fixes/{}-*.patch`; {}.",
                find.patch,
                proof(find.is_proven)
            )?;
        }
        Ok(())
    }
}

/// What was seen, for a person.
fn proof(is_proven: bool) -> &'static str {
    match is_proven {
        true => "reproduced, fixed",
        false => "by reading only",
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::tests::folder;
    use super::*;

    #[test]
    fn the_page_of_the_project_is_that_of_its_list() {
        let finds = Finds::read(&folder()).unwrap();
        let there = std::fs::read_to_string(folder().join("../../docs/finds.md")).unwrap();
        assert!(
            there == Page(&finds).to_string(),
            "docs/finds.md is another: cargo xtask finds --page > docs/finds.md"
        );
    }

    #[test]
    fn each_find_has_a_line_in_the_table_and_a_section() {
        let finds = Finds::read(&folder()).unwrap();
        let page = Page(&finds).to_string();
        for find in finds.all() {
            assert!(page.contains(&format!("\n## {}\n", find.name)));
            assert!(page.contains(&format!("| [{0}](#{0}) | {1} |", find.name, find.patch)));
        }
    }
}
