//! The qcow2 suite: headers and edits of headers.

use std::ffi::OsString;

use vdisk_format::generate::{Bitmap, Qcow2};

use crate::images::{Image, Wanted};
use crate::measure::Measured;
use crate::programs::Programs;
use crate::row::{Answer, Row};
use crate::suite::{EMPTY, Goal, empty};
use crate::table::find;

pub(crate) const DUMP_HEADER: &str = "qcow2 dump-header";
const PY_DUMP: &str = "qcow2.py dump-header";
const PY_DUMP_J: &str = "qcow2.py -j dump-header";
const PY_EDIT: &str = "qcow2.py set-feature-bit compatible 0";

/// From the everyday image to the largest metadata.
pub(crate) fn images() -> Vec<Wanted> {
    const GIB: u64 = 1 << 30;
    let plain = Qcow2::new(10 * GIB).data(GIB, *b"data");
    let bitmaps = (0..200).fold(plain.clone(), |image, index| {
        image.bitmap(Bitmap::new(format!("bitmap-{index}")).dirty(0..GIB))
    });
    vec![
        Wanted::qcow2("plain, 10 GiB, 64 KiB clusters", plain),
        Wanted::qcow2("200 bitmaps, 10 GiB", bitmaps),
        Wanted::qcow2("1 TiB, empty", Qcow2::new(1024 * GIB)),
        Wanted::qcow2("1 TiB, fully allocated", Qcow2::new(1024 * GIB).allocate(0..1024 * GIB)),
    ]
}

/// The rows for an image, ours first.
pub(crate) fn rows(programs: &Programs, image: &Image) -> Vec<Row> {
    let mut rows = vec![empty(programs)];
    let path = &image.path;
    let mut add = |label, program: &[OsString], args: &[&str]| {
        let args = args.iter().map(|&arg| if arg == "FILE" { path.into() } else { OsString::from(arg) });
        rows.push(Row::new(label, program.iter().cloned().chain(args)));
    };
    let ours: [OsString; 1] = [programs.qcow2.clone().into()];
    add(DUMP_HEADER, &ours, &["FILE", "dump-header"]);
    add("qcow2 dump-header -j", &ours, &["FILE", "dump-header", "-j"]);
    add("qcow2 dump-header --json", &ours, &["FILE", "dump-header", "--json"]);
    add("qcow2 set-feature-bit compatible 0", &ours, &["FILE", "set-feature-bit", "compatible", "0"]);
    let no_undo = ["FILE", "set-feature-bit", "compatible", "0", "--no-undo"];
    add("qcow2 set-feature-bit compatible 0 --no-undo", &ours, &no_undo);
    if programs.qemu_img {
        add("qemu-img info", &["qemu-img".into()], &["info", "FILE"]);
        add("qemu-img info --output=json", &["qemu-img".into()], &["info", "--output=json", "FILE"]);
    }
    if let Some(script) = &programs.qcow2_py {
        let python: [OsString; 2] = ["python3".into(), script.into()];
        add(PY_DUMP, &python, &["FILE", "dump-header"]);
        add(PY_DUMP_J, &python, &["FILE", "dump-header", "-j"]);
        add(PY_EDIT, &python, &["FILE", "set-feature-bit", "compatible", "0"]);
    }
    for row in &mut rows {
        row.is_ours |= row.label.starts_with("qcow2 ");
        let (peer, answers_like) = match row.label {
            EMPTY => (None, None),
            label if label.contains("set-feature-bit") => {
                row.answer = Answer::CompatibleFeatures;
                (Some(PY_EDIT), Some(PY_EDIT))
            }
            DUMP_HEADER => (Some(PY_DUMP), Some(PY_DUMP)),
            "qcow2 dump-header -j" => (Some(PY_DUMP_J), Some(PY_DUMP_J)),
            PY_DUMP | "qemu-img info" => (Some(PY_DUMP), None),
            _ => (Some(PY_DUMP_J), None),
        };
        (row.peer, row.answers_like) = (peer, answers_like);
    }
    rows
}

/// `dump-header` in units of the empty process.
pub(crate) fn goals(_: &Image, rows: &[Row], measured: &[Measured]) -> Vec<Goal> {
    let ratio = |label| Some(find(rows, measured, label)?.median.as_secs_f64());
    let goal = ratio(DUMP_HEADER).zip(ratio(EMPTY)).map(|(ours, empty)| Goal {
        what: "dump-header within 2× of an empty process".to_owned(),
        figure: format!("{:.2}×", ours / empty),
        met: ours <= 2.0 * empty,
    });
    goal.into_iter().collect()
}
