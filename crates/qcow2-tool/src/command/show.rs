//! `show`: the header, tables, snapshots, bitmaps, the LUKS header.

mod bitmaps;
mod crypto;
mod l1;
mod l2;
mod refcounts;
mod rows;
mod runs;
mod snapshots;

use std::path::Path;

use tool_support::image::OpenArgs;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::View;
use vdisk_format::qcow2::Tables;

use super::dump::{self, Form};
use super::lookup::expect_qcow2_unless;
use super::number;
use crate::args::{ShowArgs, What};
use rows::{Head, Row, Rows};

pub(super) use l2::mapping;

pub(super) fn run(path: &Path, open: OpenArgs, form: Form, args: &ShowArgs) -> Outcome {
    surplus(args)?;
    let range = args.range.as_deref().map_or(Ok(Range::ALL), Range::parse)?;
    if args.what == What::Header {
        return dump::header(path, open, form);
    }
    let image = open.read(path)?;
    expect_qcow2_unless(args.force, path, image.bytes())?;
    let tables = Tables::new(View::from(&image)).map_err(|error| Failure::from(error).about(path))?;
    let show = Show { path, tables: &tables, range, all: args.all, json: !matches!(form, Form::Text) };
    let (which, snapshot) = (args.which.as_deref().unwrap_or_default(), args.snapshot.as_deref());
    match args.what {
        What::Header => Ok(()),
        What::L1 => l1::run(&show, snapshot),
        What::L2 => l2::run(&show, which, snapshot),
        What::RefcountTable => refcounts::table(&show),
        What::RefcountBlock => refcounts::block(&show, which),
        What::Snapshots => snapshots::run(&show),
        What::Bitmaps => bitmaps::run(&show),
        What::Crypto => crypto::run(&show),
    }
}

/// Refuses options that mean nothing for what is shown.
fn surplus(args: &ShowArgs) -> Outcome {
    let is = |of: &[What]| of.contains(&args.what);
    let tables = [What::L1, What::L2, What::RefcountTable, What::RefcountBlock];
    for (is_given, is_meant, option) in [
        (args.which.is_some(), is(&[What::L2, What::RefcountBlock]), "WHICH is for l2 and refcount-block"),
        (args.snapshot.is_some(), is(&[What::L1, What::L2]), "--snapshot is for l1 and l2"),
        (args.range.is_some(), is(&tables), "--range is for tables"),
        (args.all, is(&tables) || is(&[What::Crypto]), "--all is for tables and crypto"),
    ] {
        if is_given && !is_meant {
            return Err(Failure::usage(format!("show: {option} only")));
        }
    }
    Ok(())
}

/// What every kind of table is shown with.
struct Show<'s, 'a> {
    path: &'s Path,
    tables: &'s Tables<'a>,
    range: Range,
    all: bool,
    json: bool,
}

impl Show<'_, '_> {
    /// Prints a head, and rows as they come.
    fn print<R: Row>(&self, head: &impl Head, rows: impl Iterator<Item = R>) -> Outcome {
        let mut out = Out::stdout();
        if self.json {
            out.json(&Rows::new(self.path, head, rows))?;
        } else {
            head.text(&mut out)?;
            for row in rows {
                row.text(&mut out)?;
            }
        }
        Ok(out.finish()?)
    }

    fn failed(&self, what: &str) -> Failure {
        Failure::failed(format!("{}: {what}", self.path.display()))
    }

    /// The part of `count` entries from `index` on that was asked for; `None` where there is none, or they are all 0 and
    /// nobody asked for those.
    fn wanted(&self, index: u64, count: u64, is_zero: bool) -> Option<(u64, u64)> {
        let start = index.max(self.range.first);
        let last = index.saturating_add(count.checked_sub(1)?).min(self.range.last);
        (start <= last && (self.all || !is_zero)).then(|| (start, last - start + 1))
    }
}

/// Indices of entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    last: u64,
}

impl Range {
    const ALL: Self = Self { first: 0, last: u64::MAX };

    fn parse(text: &str) -> Outcome<Self> {
        let number = |text| number("--range", text);
        let (first, last) = match text.split_once('-') {
            None => (number(text)?, number(text)?),
            Some((first, "")) => (number(first)?, u64::MAX),
            Some((first, last)) => (number(first)?, number(last)?),
        };
        if first > last {
            return Err(Failure::usage(format!("--range: expected A-B, found '{text}', which is empty")));
        }
        Ok(Self { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_inclusive() {
        for (text, first, last) in [("5", 5, 5), ("0-0x10", 0, 16), ("7-", 7, u64::MAX), ("0b11-0o20", 3, 16)]
        {
            assert_eq!(Range::parse(text).unwrap(), Range { first, last }, "{text}");
        }
        for text in ["", "-", "-5", "5-4", "a-b", "1-2-3", "1:2"] {
            assert!(Range::parse(text).is_err(), "{text}");
        }
    }
}
