//! The QED suite: sparse images whose every L2 table is allocated.

use std::ffi::OsString;

use vdisk_format::generate::{Order, Qed};

use crate::images::{Image, Wanted};
use crate::measure::Measured;
use crate::programs::Programs;
use crate::row::{Answer, Row};
use crate::suite::{Goal, empty};
use crate::table::find;

const LIMIT: &str = "a loop over the tables";
const CHECK: &str = "qed check";
const FRAGCHECK: &str = "qed fragcheck";
const COPY: &str = "qed copy_metadata";
const QEMU_CHECK: &str = "qemu-img check";
const CP: &str = "cp --sparse=always";
const PY_COPY: &str = "qed.py copy-metadata";

/// Has Python 3 run QEMU's qed.py, which is written for Python 2.
const PYTHON_3: &str = "\
import sys
sys.argv = sys.argv[1:]
source = open(sys.argv[0]).read()
source = source.replace('xrange', 'range').replace(\"''.join\", \"b''.join\").replace(\"'\\\\0'\", \"b'\\\\0'\")
exec(compile(source, sys.argv[0], 'exec'))
";

pub(crate) fn images() -> Vec<Wanted> {
    const GIB: u64 = 1 << 30;
    let full = |gib: u64| Qed::new(gib * GIB).allocate(0..gib * GIB);
    vec![
        Wanted::qed("QED, 64 GiB, in order", full(64)),
        Wanted::qed("QED, 64 GiB, in random order", full(64).order(Order::Random(1))),
        Wanted::qed("QED, 1 TiB, in order", full(1024)),
        Wanted::qed("QED, 1 TiB, in random order", full(1024).order(Order::Random(1))),
    ]
}

pub(crate) fn rows(programs: &Programs, image: &Image) -> Vec<Row> {
    let path = &image.path;
    let copy = image.copy();
    let mut rows = vec![empty(programs)];
    let mut add = |label, answer, program: &[OsString], args: &[&str]| {
        let args = args.iter().map(|&arg| match arg {
            "FILE" => path.into(),
            "OUT" => copy.clone().into(),
            _ => OsString::from(arg),
        });
        rows.push(Row { answer, ..Row::new(label, program.iter().cloned().chain(args)) });
    };
    let qed: [OsString; 1] = [programs.qed.clone().into()];
    add(LIMIT, Answer::Output, &[programs.table_loop.clone().into()], &["FILE"]);
    add(CHECK, Answer::Allocated, &qed, &["FILE", "check"]);
    add(FRAGCHECK, Answer::Allocated, &qed, &["FILE", "fragcheck"]);
    add(COPY, Answer::Copy, &qed, &["FILE", "copy_metadata", "OUT"]);
    add(CP, Answer::Copy, &["cp".into()], &["--sparse=always", "FILE", "OUT"]);
    if programs.qemu_img {
        add(QEMU_CHECK, Answer::Allocated, &["qemu-img".into()], &["check", "-f", "qed", "FILE"]);
    }
    if let Some(script) = &programs.qed_py {
        let python: [OsString; 4] = ["python3".into(), "-c".into(), PYTHON_3.into(), script.into()];
        add(PY_COPY, Answer::Copy, &python, &["FILE", "copy-metadata", "OUT"]);
    }
    for row in &mut rows {
        row.is_ours |= row.label.starts_with("qed ");
        match row.label {
            CHECK => (row.peer, row.answers_like) = (Some(QEMU_CHECK), Some(QEMU_CHECK)),
            FRAGCHECK => row.peer = Some(QEMU_CHECK),
            COPY => (row.peer, row.answers_like) = (Some(CP), Some(CP)),
            // It takes clusters for leaked that are not, where the file has many.
            QEMU_CHECK => row.statuses = &[0, 3],
            _ => {}
        }
    }
    rows
}

/// Time beside the limit or the peer, whichever is slower; memory beside the clusters in use.
pub(crate) fn goals(_: &Image, rows: &[Row], measured: &[Measured]) -> Vec<Goal> {
    let seconds = |label| find(rows, measured, label).map(|result| result.median.as_secs_f64());
    let mut goals = Vec::new();
    for label in [CHECK, FRAGCHECK] {
        let Some((ours, limit)) = seconds(label).zip(seconds(LIMIT)) else { continue };
        let qemu = seconds(QEMU_CHECK).unwrap_or(0.0);
        goals.push(Goal {
            what: format!("{label} within 2× of the loop, or a tenth of qemu-img's time"),
            figure: format!("{:.2}× the loop, {:.3}× qemu-img", ours / limit, ours / qemu),
            met: ours <= (2.0 * limit).max(qemu / 10.0),
        });
    }
    if let Some((ours, cp)) = seconds(COPY).zip(seconds(CP)) {
        let figure = format!("{:.2}×", ours / cp);
        goals.push(Goal { what: format!("{COPY} within 2× of {CP}"), figure, met: ours <= 2.0 * cp });
    }
    if let Some((ours, python)) = seconds(COPY).zip(seconds(PY_COPY)) {
        let (what, figure) = (format!("{COPY} 50× faster than {PY_COPY}"), format!("{:.0}×", python / ours));
        goals.push(Goal { what, figure, met: python >= 50.0 * ours });
    }
    for label in [CHECK, FRAGCHECK, COPY] {
        let Some(result) = find(rows, measured, label) else { continue };
        let clusters: Option<u64> =
            find(rows, measured, LIMIT).and_then(|limit| limit.answer.split(' ').next()?.parse().ok());
        let Some((kib, clusters)) = result.peak_kib.zip(clusters) else { continue };
        let most: u64 = 2 * clusters / 1024 + (16 << 10);
        goals.push(Goal {
            what: format!("{label} in 2 bytes a cluster and 16 MiB"),
            figure: format!("{:.1} of {:.1} MiB", kib as f64 / 1024.0, most as f64 / 1024.0),
            met: kib <= most,
        });
    }
    goals
}
