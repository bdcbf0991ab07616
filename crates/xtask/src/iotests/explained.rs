//! What `qcow2-tool/CHECK.md` says about differences from `qemu-img check`: the findings that explain one.

use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../qcow2-tool/CHECK.md");

/// Codes of findings, by what they explain.
#[derive(Debug)]
pub(super) struct Explained {
    /// QEMU opens the image and calls it clean, or leaked only; ours calls it corrupt.
    pub(super) only_ours: BTreeSet<&'static str>,
    /// QEMU does not open the image; ours looks at it.
    pub(super) not_opened: BTreeSet<&'static str>,
}

impl Explained {
    /// Reads the document's tables.
    pub(super) fn read() -> Explained {
        let clean = codes("## Images that QEMU opens, and calls clean");
        let leaked = codes("## Images that QEMU calls leaked only");
        Explained {
            only_ours: clean.chain(leaked).collect(),
            not_opened: codes("## Images that QEMU does not open").collect(),
        }
    }
}

/// The codes in the first column of a section's table: "`one`, `another`", or "–" where there is none.
fn codes(heading: &str) -> impl Iterator<Item = &'static str> {
    let section = DOCUMENT.lines().skip_while(move |line| *line != heading).skip(1);
    let rows = section.take_while(|line| !line.starts_with("## ")).filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells.flat_map(|cell| cell.split(", ")).filter_map(|code| code.strip_prefix('`')?.strip_suffix('`'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_has_its_codes() {
        let Explained { only_ours, not_opened } = Explained::read();
        for code in ["overlap", "dirty", "lost-table"] {
            assert!(only_ours.contains(code) && !not_opened.contains(code), "{code}: {only_ours:?}");
        }
        for code in ["l1-size", "nb-snapshots", "unknown-feature"] {
            assert!(not_opened.contains(code) && !only_ours.contains(code), "{code}: {not_opened:?}");
        }
    }
}
