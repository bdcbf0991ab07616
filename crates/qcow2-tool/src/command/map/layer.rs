//! One image, in `qemu-img map`'s terms.

use std::fmt;
use std::path::Path;

use tool_support::Outcome;
use tool_support::image::map::MapEntry;
use vdisk_format::qcow2::extension::Magic;
use vdisk_format::qcow2::map::{
    Extent, ExtentKind, Invalid, map, map_snapshot, metadata_is_preallocated, with_holes,
};
use vdisk_format::qcow2::read::{ChainImage, Format};
use vdisk_format::qcow2::{Content, Snapshot, Tables};
use vdisk_format::view::SECTOR;
use vdisk_format::{Image, View, qed};

use crate::command::lookup;

/// The entries of an image, in order.
pub(super) type Entries<'l> = Box<dyn Iterator<Item = Entry> + 'l>;

/// An entry, and what is wrong with the image there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) entry: MapEntry,
    pub(super) wrong: Option<Wrong>,
}

/// Something that is wrong with an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wrong {
    /// Which image of the chain it is, the one that was asked about being 0.
    pub(super) depth: u64,
    /// Where in the disk.
    pub(super) start: u64,
    pub(super) why: Why,
}

/// Why an extent is invalid, in the words of its format.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why {
    Qcow2(Invalid),
    Qed(qed::Invalid),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Qcow2(why) => f.write_str(why.words()),
            Self::Qed(why) => write!(f, "an entry is {}", why.words()),
        }
    }
}

impl Entry {
    fn new(entry: MapEntry, why: Option<Why>) -> Self {
        Self { entry, wrong: why.map(|why| Wrong { depth: 0, start: entry.start, why }) }
    }
}

/// One image of a chain.
pub(super) enum Layer<'i> {
    Qcow2(Box<Qcow2<'i>>),
    Qed(&'i ChainImage, qed::Tables<'i>),
    /// In which nothing can be wrong.
    Raw(&'i ChainImage, View<'i>),
}

impl<'i> Layer<'i> {
    pub(super) fn new(image: &'i ChainImage, snapshot: Option<&str>) -> Outcome<Self> {
        Ok(match image.format {
            Format::Qcow2 => {
                let mut layer = Qcow2::new(&image.path, &image.image, snapshot)?;
                if let Some((path, data_file)) = &image.data_file {
                    layer.data_file = Some(data_file.into());
                    layer.data_path = bytes_of(path);
                }
                Self::Qcow2(Box::new(layer))
            }
            Format::Qed => Self::Qed(image, qed::Tables::new(&image.image)?),
            _ => Self::Raw(image, (&image.image).into()),
        })
    }

    /// Size of its disk in bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Qcow2(layer) => layer.size(),
            Self::Qed(_, tables) => tables.geometry().image_size(),
            Self::Raw(_, view) => view.length().next_multiple_of(SECTOR),
        }
    }

    /// The file that its data are in.
    pub(super) fn data_path(&self) -> Vec<u8> {
        match self {
            Self::Qcow2(layer) => layer.data_path(),
            Self::Qed(image, _) | Self::Raw(image, _) => bytes_of(&image.path),
        }
    }

    pub(super) fn entries(&self) -> Entries<'_> {
        match self {
            Self::Qcow2(layer) => layer.entries(),
            Self::Qed(_, tables) => {
                let has_backing_file = tables.header().backing_file_name().is_some();
                Box::new(qed::map::map(tables).map(move |extent| qed_entry(extent, has_backing_file)))
            }
            Self::Raw(_, view) => Box::new(raw_entries(view).map(|entry| Entry::new(entry, None))),
        }
    }
}

/// A qcow2 image, or one of its snapshots.
pub(super) struct Qcow2<'i> {
    tables: Tables<'i>,
    snapshot: Option<Snapshot<'i>>,
    /// The image's bytes once more, for its holes.
    view: View<'i>,
    /// What QEMU asks for holes, if it does: the external data file, where that is open.
    looks_for_holes: bool,
    data_file: Option<View<'i>>,
    data_path: Vec<u8>,
}

impl<'i> Qcow2<'i> {
    pub(super) fn new(path: &Path, image: &'i Image, snapshot: Option<&str>) -> Outcome<Self> {
        let tables = Tables::new(image)?;
        let snapshot = snapshot.map(|name| lookup::snapshot(path, &tables, name)).transpose()?;
        let looks_for_holes = metadata_is_preallocated(&tables, image.allocated());
        let data_path = if tables.geometry().data_file() { named(path, &tables) } else { bytes_of(path) };
        Ok(Self { tables, snapshot, view: image.into(), looks_for_holes, data_file: None, data_path })
    }

    fn size(&self) -> u64 {
        let size = self.snapshot.as_ref().and_then(Snapshot::disk_size);
        size.unwrap_or_else(|| self.tables.geometry().virtual_size()) / SECTOR * SECTOR
    }

    /// The file that the data are in; as the image names it, where that was not opened.
    pub(super) fn data_path(&self) -> Vec<u8> {
        self.data_path.clone()
    }

    pub(super) fn has_backing_file(&self) -> bool {
        self.tables.header().backing_file_name().is_some()
    }

    pub(super) fn extents(&self) -> Box<dyn Iterator<Item = Extent> + '_> {
        let file = match &self.data_file {
            Some(file) => Some(file),
            None => (!self.tables.geometry().data_file()).then_some(&self.view),
        };
        let file = file.filter(|_| self.looks_for_holes);
        match (&self.snapshot, file) {
            (None, None) => Box::new(map(&self.tables)),
            (None, Some(file)) => Box::new(with_holes(map(&self.tables), file)),
            (Some(snapshot), None) => Box::new(map_snapshot(&self.tables, snapshot)),
            (Some(snapshot), Some(file)) => Box::new(with_holes(map_snapshot(&self.tables, snapshot), file)),
        }
    }

    pub(super) fn entries(&self) -> Entries<'_> {
        let has_backing_file = self.has_backing_file();
        // QEMU has no offset for what is encrypted, and so does not ask for holes there either.
        let is_encrypted = self.tables.header().v2.crypt_method != 0;
        let has_holes = self.looks_for_holes && !is_encrypted;
        Box::new(self.extents().map(move |extent| {
            let mut entry = entry(&extent, has_backing_file, has_holes);
            if is_encrypted {
                entry.offset = None;
                entry.zero &= !entry.data;
            }
            Entry::new(entry, invalid(&extent).map(Why::Qcow2))
        }))
    }
}

/// What is wrong with an extent.
pub(super) fn invalid(extent: &Extent) -> Option<Invalid> {
    match extent.kind {
        ExtentKind::Invalid { why, .. } => Some(why),
        _ => None,
    }
}

/// An extent as QEMU tells it; one that QEMU would not tell is present, and neither zero nor data.
fn entry(extent: &Extent, has_backing_file: bool, has_holes: bool) -> MapEntry {
    let Extent { start, length, kind, .. } = *extent;
    let entry = MapEntry { start: start.0, length, present: true, ..MapEntry::default() };
    let unallocated = MapEntry { present: false, zero: !has_backing_file, ..entry };
    match kind {
        ExtentKind::Data { offset } => MapEntry { data: true, offset: Some(offset.0), ..entry },
        ExtentKind::Hole { offset } => MapEntry { data: true, zero: true, offset: Some(offset.0), ..entry },
        ExtentKind::Compressed | ExtentKind::Invalid { why: Invalid::CompressedPastEnd, .. } => {
            MapEntry { data: true, compressed: true, ..entry }
        }
        ExtentKind::Zero { preallocated } => {
            MapEntry { zero: true, offset: preallocated.map(|offset| offset.0), ..entry }
        }
        ExtentKind::Unallocated { preallocated } => {
            MapEntry { offset: preallocated.map(|offset| offset.0), ..unallocated }
        }
        // Behind the end of the file there are zeroes for QEMU, and a hole.
        ExtentKind::Invalid { why: Invalid::PastEnd, offset } => {
            MapEntry { data: true, zero: has_holes, offset: offset.map(|offset| offset.0), ..entry }
        }
        ExtentKind::Invalid { why: Invalid::TablePastEnd, .. } => unallocated,
        _ => entry,
    }
}

fn qed_entry(extent: qed::map::Extent, has_backing_file: bool) -> Entry {
    let entry = MapEntry { start: extent.start.0, length: extent.length, ..MapEntry::default() };
    let (entry, why) = match extent.kind {
        qed::map::ExtentKind::Data { offset } => {
            (MapEntry { present: true, data: true, offset: Some(offset.0), ..entry }, None)
        }
        qed::map::ExtentKind::Zero => (MapEntry { present: true, zero: true, ..entry }, None),
        qed::map::ExtentKind::Unallocated => (MapEntry { zero: !has_backing_file, ..entry }, None),
        qed::map::ExtentKind::Invalid { why } => (MapEntry { present: true, ..entry }, Some(Why::Qed(why))),
        _ => (MapEntry { present: true, ..entry }, None),
    };
    Entry::new(entry, why)
}

/// A raw image: data, and holes.
fn raw_entries<'v>(view: &'v View<'_>) -> impl Iterator<Item = MapEntry> + 'v {
    let size = view.length().next_multiple_of(SECTOR);
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = (at < size).then_some(at)?;
        let data = view.next_data(at..size);
        let is_data = data.as_ref().is_some_and(|data| data.start <= at);
        let end = match data {
            Some(data) if is_data && data.end < view.length() => data.end,
            Some(data) if !is_data => data.start,
            _ => size,
        };
        at = end;
        let entry = MapEntry { start, length: end - start, present: true, ..MapEntry::default() };
        Some(MapEntry { data: is_data, zero: !is_data, offset: Some(start), ..entry })
    })
}

/// The external data file, as the image names it: relative to the image.
fn named(path: &Path, tables: &Tables<'_>) -> Vec<u8> {
    let extensions = tables.header().extensions().map_while(Result::ok);
    let mut names = extensions.filter_map(|extension| match extension.content() {
        Ok(Content::DataFile(name)) if extension.magic == Magic::DATA_FILE => Some(name),
        _ => None,
    });
    let name = names.next().unwrap_or_default();
    let folder = path.parent().map(bytes_of).filter(|folder| !folder.is_empty() && !name.starts_with(b"/"));
    match folder {
        Some(folder) => [&folder, b"/".as_slice(), name].concat(),
        None => name.to_vec(),
    }
}

fn bytes_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}
