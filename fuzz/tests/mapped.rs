//! An image that is mapped from a file with holes is read as the same bytes in memory are.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics has failed")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use vdisk_format::qed::walk::{Event, Scattered, walk};
use vdisk_format::qed::{Entry, Tables, check::check, fragmentation::fragmentation, map::map, scrub::scrub};
use vdisk_format::units::HostOffset;
use vdisk_format::{Image, View};
use vdisk_fuzz::seeds::{Xorshift, qed_image};

/// Bytes of a block of zeroes that becomes a hole.
const BLOCK: usize = 4096;

/// Everything that is read through a view.
fn read(view: &View<'_>) -> impl PartialEq + std::fmt::Debug + use<> {
    let mut copy = vec![0; view.bytes().len()];
    let scrubbed = scrub(view, |at, bytes| {
        copy[at as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    });
    let tables = Tables::new(view).ok().map(|tables| {
        let extents: Vec<_> = map(&tables).collect();
        (events(&tables), extents, fragmentation(&tables))
    });
    (scrubbed.ok(), copy, check(view).ok(), tables)
}

/// What a walk meets, entry by entry: where a run ends, and how it was found, depends on the pieces that a table is
/// read in.
fn events(tables: &Tables<'_>) -> Vec<String> {
    let (mut events, mut again) = (Vec::new(), Vec::new());
    let mut at = HostOffset(0);
    walk(tables, |event| match event {
        Event::Run(run, entry) => {
            let wrong = if let Entry::Invalid(invalid) = entry { Some(invalid) } else { None };
            let values = (run.index..run.index + run.count).map(|index| tables.entry(at, index).unwrap());
            events.extend(
                (run.index..).zip(values).map(|(index, value)| format!("{index} {value:#x} {wrong:?}")),
            );
        }
        Event::Scattered(Scattered { index, count, .. }) => {
            let values = (index..index + count).map(|index| tables.entry(at, index).unwrap());
            events.extend((index..).zip(values).map(|(index, value)| format!("{index} {value:#x} None")));
        }
        Event::Again { from, clusters } => {
            again.extend((from..).zip(clusters).map(|again| format!("{again:?}")));
        }
        event => {
            if let Event::Table { table, .. } = event {
                at = table;
            }
            events.push(format!("{event:?}"));
        }
    });
    events.extend(again);
    events
}

#[test]
fn a_mapped_file_is_read_as_its_bytes_are() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut random = Xorshift::new(7);
    for _ in 0..150 {
        let length = 64 + random.below(512);
        let bytes = qed_image(&random.bytes(length));
        let out = File::create(file.path()).unwrap();
        for (at, block) in (0..).step_by(BLOCK).zip(bytes.chunks(BLOCK)) {
            if block.iter().any(|&byte| byte != 0) {
                out.write_all_at(block, at).unwrap();
            }
        }
        out.set_len(bytes.len() as u64).unwrap();
        let image = Image::open(file.path()).unwrap();
        assert_eq!(image.bytes(), bytes);
        assert_eq!(read(&View::from(&image)), read(&View::from(&bytes)));
    }
}
