//! The suite of `qcow2 check`, `map` and `fragcheck`: sparse images with every kind of metadata that takes time.

use std::ffi::OsString;

use vdisk_format::generate::{Bitmap, Order, Qcow2, Snapshot};

use crate::images::{Image, Wanted};
use crate::measure::Measured;
use crate::programs::Programs;
use crate::row::{Answer, Row};
use crate::suite::{Goal, Results, empty};
use crate::table::find;

const LIMIT: &str = "a loop over the tables";
const CHECK: &str = "qcow2 check";
const QEMU_CHECK: &str = "qemu-img check";
const FRAGCHECK: &str = "qcow2 fragcheck";
const MAP: &str = "qcow2 map --output=json";
const QEMU_MAP: &str = "qemu-img map --output=json";

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Where the goal is a hundred times qemu-img's speed.
const HARD: [&str; 2] =
    ["qcow2 check, 64 GiB, in random order", "qcow2 check, 64 GiB, 1,000 snapshots that share their tables"];
/// The same disk in sizes that grow: so should the time.
const GROWING: [&str; 4] = [
    "qcow2 check, 16 GiB, in order",
    "qcow2 check, 64 GiB, in order",
    "qcow2 check, 256 GiB, in order",
    "qcow2 check, 1 TiB, in order",
];

pub(crate) fn images() -> Vec<Wanted> {
    let full = |size: u64| Qcow2::new(size).allocate(0..size);
    let [gib_16, gib_64, gib_256, tib_1] = GROWING;
    let [random, shared] = HARD;
    let random_order = |size| full(size).order(Order::Random(1));
    vec![
        Wanted::qcow2(gib_16, full(16 * GIB)),
        Wanted::qcow2(gib_64, full(64 * GIB)),
        Wanted::qcow2(gib_256, full(256 * GIB)),
        Wanted::qcow2(tib_1, full(1024 * GIB)),
        Wanted::qcow2(random, random_order(64 * GIB)),
        // It would take qemu-img ten minutes.
        Wanted::qcow2("qcow2 check, 1 TiB, in random order", random_order(1024 * GIB)).without_qemu_img(),
        Wanted::qcow2("qcow2 check, 64 GiB, 4 KiB clusters", full(64 * GIB).cluster_bits(12)),
        Wanted::qcow2(
            "qcow2 check, 8 GiB, 512 B clusters",
            full(8 * GIB).cluster_bits(9).order(Order::TablesFirst),
        ),
        Wanted::qcow2("qcow2 check, 1 TiB, refcounts of 1 bit", full(1024 * GIB).refcount_order(0)),
        Wanted::qcow2("qcow2 check, 1 TiB, refcounts of 64 bits", full(1024 * GIB).refcount_order(6)),
        Wanted::qcow2("qcow2 check, 256 GiB, extended L2", full(256 * GIB).extended_l2(true)),
        Wanted::qcow2(shared, snapshots(full(64 * GIB), 1000)),
        Wanted::qcow2("qcow2 check, 16 GiB, 200 snapshots copied on write", copied_on_write()),
        Wanted::qcow2("qcow2 check, 64 GiB, 500 bitmaps", bitmaps(full(64 * GIB))),
        Wanted::qemu_img("qcow2 check, 16 GiB of qemu-img", "preallocation=metadata", "16G"),
        Wanted::qemu_img(
            "qcow2 check, 1 GiB of qemu-img, 512 B clusters",
            "preallocation=metadata,cluster_size=512",
            "1G",
        ),
        Wanted::qemu_img(
            "qcow2 check, 16 GiB of qemu-img, extended L2",
            "preallocation=metadata,extended_l2=on",
            "16G",
        ),
    ]
}

fn snapshots(image: Qcow2, count: u64) -> Qcow2 {
    (1..=count).fold(image, |image, id| image.snapshot(snapshot(id)))
}

/// Between any two snapshots 256 MiB are written, here and there.
fn copied_on_write() -> Qcow2 {
    let size = 16 * GIB;
    (1..=200).fold(Qcow2::new(size).allocate(0..size), |image, id| {
        (0..4).fold(image.snapshot(snapshot(id)), |image, part| {
            let at = (id * 37 + part * 61) % 256 * 64 * MIB;
            image.allocate(at..at + 64 * MIB)
        })
    })
}

fn snapshot(id: u64) -> Snapshot {
    Snapshot::new(id.to_string(), format!("snapshot {id}"))
}

fn bitmaps(image: Qcow2) -> Qcow2 {
    (0..500).fold(image, |image, index| {
        let at = index * 100 * MIB;
        image.bitmap(Bitmap::new(format!("bitmap-{index}")).dirty(at..at + GIB).dirty(60 * GIB..61 * GIB))
    })
}

pub(crate) fn rows(programs: &Programs, image: &Image) -> Vec<Row> {
    let file = || OsString::from(&image.path);
    let mut rows = vec![
        empty(programs),
        Row::new(LIMIT, [programs.qcow2_loop.clone().into(), file()]),
        Row {
            answer: Answer::Allocated,
            peer: Some(QEMU_CHECK),
            answers_like: Some(QEMU_CHECK),
            is_ours: true,
            ..Row::new(CHECK, [programs.qcow2.clone().into(), file(), "check".into()])
        },
    ];
    let ours = |label, peer, args: &[&str]| {
        let words = [programs.qcow2.clone().into(), file()].into_iter();
        let row = Row::new(label, words.chain(args.iter().map(OsString::from)));
        Row { peer: Some(peer), is_ours: true, ..row }
    };
    let fragcheck = ours(FRAGCHECK, QEMU_MAP, &["fragcheck"]);
    rows.push(Row { answer: Answer::Allocated, ..fragcheck });
    if !image.with_qemu_img {
        return rows; // nor would anybody read its map
    }
    rows.push(Row { answers_like: Some(QEMU_MAP), ..ours(MAP, QEMU_MAP, &["map", "--output=json"]) });
    if programs.qemu_img {
        let qemu_img = |label, args: &[&str]| {
            Row::new(label, ["qemu-img"].iter().chain(args).map(OsString::from).chain([file()]))
        };
        let check = qemu_img(QEMU_CHECK, &["check", "-f", "qcow2"]);
        rows.push(Row { answer: Answer::Allocated, ..check });
        rows.push(qemu_img(QEMU_MAP, &["map", "--output=json", "-f", "qcow2"]));
    }
    rows
}

/// Time beside the limit and the peer; memory beside the clusters in use.
pub(crate) fn goals(image: &Image, rows: &[Row], measured: &[Measured]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let Some((ours, limit)) = answered(rows, measured, CHECK).zip(answered(rows, measured, LIMIT)) else {
        return goals;
    };
    let qemu = answered(rows, measured, QEMU_CHECK).map(|qemu| qemu.median.as_secs_f64());
    let (seconds, loop_seconds) = (ours.median.as_secs_f64(), limit.median.as_secs_f64());
    let beside_qemu =
        qemu.map(|qemu| format!(", {:.1}× as fast as qemu-img", qemu / seconds)).unwrap_or_default();
    goals.push(Goal {
        what: format!("{CHECK} within 2× of the loop, or 10× as fast as qemu-img"),
        figure: format!("{:.2}× the loop{beside_qemu}", seconds / loop_seconds),
        met: seconds <= (2.0 * loop_seconds).max(qemu.unwrap_or(0.0) / 10.0),
    });
    if let Some(qemu) = qemu.filter(|_| HARD.contains(&image.name)) {
        goals.push(Goal {
            what: format!("{CHECK} 100× as fast as qemu-img"),
            figure: format!("{:.0}×", qemu / seconds),
            met: qemu >= 100.0 * seconds,
        });
    }
    let qemu_map = answered(rows, measured, QEMU_MAP).map(|qemu| qemu.median.as_secs_f64());
    for label in [MAP, FRAGCHECK] {
        let Some((ours, qemu)) = answered(rows, measured, label).zip(qemu_map) else { continue };
        let seconds = ours.median.as_secs_f64();
        goals.push(Goal {
            what: format!("{label} within 2× of the loop, or 10× as fast as {QEMU_MAP}"),
            figure: format!(
                "{:.2}× the loop, {:.1}× as fast as qemu-img",
                seconds / loop_seconds,
                qemu / seconds
            ),
            met: seconds <= (2.0 * loop_seconds).max(qemu / 10.0),
        });
    }
    if let Some((kib, clusters)) = ours.peak_kib.zip(in_use(limit)) {
        let most = 2 * clusters / 1024 + (16 << 10);
        goals.push(Goal {
            what: format!("{CHECK} in 2 bytes a cluster and 16 MiB"),
            figure: format!("{:.1} of {:.1} MiB", kib as f64 / 1024.0, most as f64 / 1024.0),
            met: kib <= most,
        });
    }
    goals
}

/// A row that did what it was asked to: no speed makes up for it.
fn answered<'m>(rows: &[Row], measured: &'m [Measured], label: &str) -> Option<&'m Measured> {
    find(rows, measured, label).filter(|result| !result.failed)
}

/// Clusters of the file that have a refcount, as the loop counts them.
fn in_use(limit: &Measured) -> Option<u64> {
    let (_, refcounts) = limit.answer.rsplit_once(", ")?;
    refcounts.split(' ').next()?.parse().ok()
}

/// Whether the time grows as the disk does.
pub(crate) fn growth(results: &Results) -> Vec<Goal> {
    let mut each = Vec::new();
    for name in GROWING {
        let Some((_, rows, measured)) = results.iter().find(|(image, ..)| *image == name) else {
            return Vec::new();
        };
        let seconds = |label| answered(rows, measured, label).map(|result| result.median.as_secs_f64());
        let clusters = answered(rows, measured, LIMIT).and_then(in_use);
        let Some(((ours, empty), clusters)) = seconds(CHECK).zip(seconds(crate::suite::EMPTY)).zip(clusters)
        else {
            return Vec::new();
        };
        each.push(1e9 * (ours - empty) / clusters as f64);
    }
    let figures: Vec<_> = each.iter().map(|ns| format!("{ns:.2}")).collect();
    let (Some(largest), Some(least)) = (each.pop(), each.into_iter().reduce(f64::min)) else {
        return Vec::new();
    };
    vec![Goal {
        what: format!("{CHECK} takes no longer for a cluster the more there are, 16 GiB to 1 TiB"),
        figure: format!("{} ns", figures.join(", ")),
        met: largest <= 1.3 * least,
    }]
}
