//! Scrubbed copies: the same to a check, and of the guest not a byte.

use std::ops::Range;

use vdisk_format::bytes::clipped;
use vdisk_format::qed::check::check;
use vdisk_format::qed::fragmentation::fragmentation;
use vdisk_format::qed::header::{FEATURE_BACKING_FILE, HeaderFields};
use vdisk_format::qed::map::map;
use vdisk_format::qed::scrub::{Scrubbed, scrub};
use vdisk_format::qed::{Header, Tables};

use super::image;
use super::model::{Met, Model};
use crate::input::Input;

/// These bytes of a file are the header's, whatever the header says.
const HEADER: u64 = 4096;
/// What a guest stored, in these tests, again and again.
const CANARY: &[u8; 8] = b"GuestDat";

/// Scrubs an image that the input chooses, and the same with a canary wherever there is no table; and the input itself.
///
/// # Panics
/// Where a check or the map of the copy is another than the image's, and where the copy has a word of a table that could
/// be a guest's, or anything outside header, backing file's name and tables.
pub fn qed_scrub(input: &[u8]) {
    one(input);
    let mut input = Input::new(input);
    let mut image = image(&mut input);
    one(&image);
    if image.len() as u64 > HEADER {
        for clusters in not_tables(&image) {
            let place = image.get_mut(clusters).unwrap_or_default();
            place.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(CANARY));
        }
        // What was data may now be named as a table.
        image::damage(&mut image, &mut input);
        let (copy, _) = one(&image).unwrap_or_default();
        let words = clipped(&copy, HEADER, u64::MAX).chunks_exact(8);
        assert_eq!(words.filter(|word| word == CANARY).count(), 0, "the guest's words are in the copy");
    }
}

/// Scrubs one image. Returns the copy.
fn one(image: &[u8]) -> Option<(Vec<u8>, Scrubbed)> {
    let mut copy = vec![0; image.len()];
    let scrubbed = scrub(image, |at, bytes| {
        let place = usize::try_from(at).ok().and_then(|at| copy.get_mut(at..)?.get_mut(..bytes.len()));
        place
            .map(|place| place.copy_from_slice(bytes))
            .ok_or_else(|| std::io::Error::other("outside the image"))
    });
    let Ok(scrubbed) = scrubbed else {
        assert!(Header::parse(image).is_err(), "an image with a header was not scrubbed: {scrubbed:?}");
        return None;
    };
    assert_eq!(scrubbed.length, image.len() as u64);
    assert_eq!(check(&copy).ok(), check(image).ok(), "a check finds something else");
    if let (Ok(tables), Ok(copied)) = (Tables::new(image), Tables::new(&copy)) {
        assert_eq!(copied.header().fields, tables.header().fields);
        // What overlaps is no table to a check, and is not copied; to a map it is one.
        let overlaps = Model::new(image)
            .is_some_and(|model| model.walk().0.iter().any(|met| matches!(met, Met::Overlap(..))));
        assert!(overlaps || map(&tables).eq(map(&copied)), "the map is another one");
        let (before, after) = (fragmentation(&tables), fragmentation(&copied));
        assert_eq!(before.skipped_tables, after.skipped_tables);
        // One that goes on around the end of the numbers is small, and what stands in for it is not.
        let last = u64::MAX - tables.geometry().cluster_size();
        let goes_around = image.as_chunks::<8>().0.iter().any(|&word| u64::from_le_bytes(word) > last);
        assert!(goes_around || overlaps || before.allocated_clusters == after.allocated_clusters);
    }
    only_metadata(image, &copy);
    Some((copy, scrubbed))
}

/// The clusters that are neither the header's, nor of the L1 table, nor of a table that a check looks into.
fn not_tables(image: &[u8]) -> Vec<Range<usize>> {
    let length = image.len();
    let tables = Model::new(image).map_or(Vec::new(), |model| tables(&model));
    let is_table = |at: usize| tables.iter().any(|table| table.contains(&(at as u64)));
    let pieces = (HEADER as usize..length).step_by(HEADER as usize);
    pieces.filter(|&at| !is_table(at)).map(|at| at..(at + HEADER as usize).min(length)).collect()
}

/// The L1 table, and the L2 tables that a check looks into.
fn tables(model: &Model<'_>) -> Vec<Range<u64>> {
    let range = |at: u64| at..at.saturating_add(model.table_bytes);
    let mut tables: Vec<_> = model.has_l1().then(|| range(model.l1_at)).into_iter().collect();
    tables.extend(model.walk().0.iter().filter_map(|met| match met {
        Met::Table(table) => Some(range(table.at)),
        _ => None,
    }));
    tables
}

fn only_metadata(image: &[u8], copy: &[u8]) {
    let model = Model::new(image);
    let mut name = None;
    if let (Ok(header), Some(_)) = (Header::parse(image), &model) {
        let HeaderFields { features, backing_filename_offset: at, backing_filename_size: size, .. } =
            header.fields;
        let end = u64::from(at) + u64::from(size);
        name = (features & FEATURE_BACKING_FILE != 0 && end <= HEADER).then_some(at.into()..end);
    }
    let mut rest = copy.to_vec();
    for range in [Some(0..HeaderFields::SIZE), name].into_iter().flatten() {
        let bytes = |image| clipped(image, range.start, range.end - range.start);
        assert_eq!(bytes(copy), bytes(image));
        blank(&mut rest, range);
    }
    if let Some(model) = &model {
        for table in tables(model) {
            table_is_public(model, copy, table.clone());
            blank(&mut rest, table.start..table.end.min(copy.len() as u64));
        }
    }
    let told = rest.iter().position(|&byte| byte != 0);
    assert_eq!(told, None, "a byte outside of header, name and tables");
}

fn blank(bytes: &mut [u8], range: Range<u64>) {
    image::put(
        bytes,
        range.start,
        &vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0)],
    );
}

/// Every entry of a copied table is 0, 1, the place of a cluster, or stands in for something.
fn table_is_public(model: &Model<'_>, copy: &[u8], table: Range<u64>) {
    let size = model.cluster_size;
    let file_end = model.file_end.max(size);
    let past_end = model.header_end.max(file_end);
    for bytes in clipped(copy, table.start, table.end - table.start).chunks(8) {
        let mut word = [0; 8];
        word.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
        let word = u64::from_le_bytes(word);
        let is_cluster = word.is_multiple_of(size) && word < file_end;
        let ends = [file_end, file_end + size, past_end, past_end + size];
        let stands_in = word % size == 2 || ends.contains(&word);
        // Of the last cluster, and what goes on from there: the entry before it may be that of another table.
        let before = word.wrapping_sub(size).to_le_bytes();
        let goes_on = || copy.as_chunks::<8>().0.contains(&before);
        assert!(word < 2 || is_cluster || stands_in || goes_on(), "{word:#x} may be a guest's");
    }
}
