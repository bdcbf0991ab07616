//! The header: 72 bytes in every version, 32 more from version 3 on, then additional fields up to `header_length`.

use crate::bytes::{clipped, up_to_zero};
use crate::error::Result;
use crate::feature::FeatureGroup;
use crate::limits::{CLUSTER_BITS, MAX_BACKING_FILE_NAME};
use crate::qcow2::extension::Extensions;
use crate::record::{Field, record};

/// `QFI\xfb`.
pub const MAGIC: u32 = 0x5146_49fb;

record! {
    /// The header fields that every version has. Specification: "Header".
    pub struct HeaderV2: big, at 0, called "qcow2 header" {
        /// `QFI\xfb`, [`MAGIC`].
        magic: u32, Hex;
        /// 2 or 3.
        version: u32, Dec;
        /// Offset of the backing file's name, which is not null-terminated. 0: no backing file.
        backing_file_offset: u64, Hex;
        /// Length of that name in bytes, at most 1023. Undefined without a backing file.
        backing_file_size: u32, Hex;
        /// The cluster size is `1 << cluster_bits` bytes: at least 9; QEMU takes up to 21.
        cluster_bits: u32, Dec;
        /// Size of the virtual disk in bytes.
        size: u64, Dec;
        /// 0: none, 1: AES, 2: LUKS.
        crypt_method: u32, Dec;
        /// Entries of the active L1 table.
        l1_size: u32, Dec;
        /// Offset of the active L1 table, a multiple of the cluster size.
        l1_table_offset: u64, Hex;
        /// Offset of the refcount table, a multiple of the cluster size.
        refcount_table_offset: u64, Hex;
        /// Clusters of the refcount table.
        refcount_table_clusters: u32, Dec;
        /// Snapshots in the image.
        nb_snapshots: u32, Dec;
        /// Offset of the snapshot table, a multiple of the cluster size.
        snapshots_offset: u64, Hex;
    }
}

record! {
    /// The header fields that begin with version 3. Specification: "Header".
    pub struct HeaderV3: big, at 72, called "qcow2 version 3 header" {
        /// An implementation must refuse an image with a bit that it does not know. Bit 0 dirty, 1 corrupt,
        /// 2 external data file, 3 compression type, 4 extended L2 entries.
        incompatible_features: u64, Bits;
        /// Unknown bits can be ignored. Bit 0 lazy refcounts.
        compatible_features: u64, Bits;
        /// A writer must clear the bits that it does not know. Bit 0 bitmaps extension, 1 raw external data.
        autoclear_features: u64, Bits;
        /// A refcount is `1 << refcount_order` bits wide: at most 6. Version 2: always 4.
        refcount_order: u32, Dec;
        /// Length of the header in bytes: at least 104, a multiple of 8. Version 2: always 72.
        header_length: u32, Dec;
    }
}

record! {
    /// The additional fields that this library knows, each there only where `header_length` reaches beyond it.
    /// Specification: "Additional fields".
    pub struct KnownAdditional: big, at 104, called "qcow2 additional header fields" {
        /// How compressed clusters are compressed: 0 deflate, 1 zstd. Not 0 only with incompatible feature bit 3.
        compression_type: u8, Dec;
    }
}

/// The header field that holds a group's bits.
#[must_use]
pub const fn feature_field(group: FeatureGroup) -> &'static str {
    match group {
        FeatureGroup::Incompatible => "incompatible_features",
        FeatureGroup::Compatible => "compatible_features",
        FeatureGroup::Autoclear => "autoclear_features",
    }
}

/// What the specification calls bit `bit` of a group, where it is known here.
#[must_use]
pub const fn feature_bit_name(group: FeatureGroup, bit: u32) -> Option<&'static str> {
    Some(match (group, bit) {
        (FeatureGroup::Incompatible, 0) => "dirty bit",
        (FeatureGroup::Incompatible, 1) => "corrupt bit",
        (FeatureGroup::Incompatible, 2) => "external data file",
        (FeatureGroup::Incompatible, 3) => "compression type",
        (FeatureGroup::Incompatible, 4) => "extended L2 entries",
        (FeatureGroup::Compatible, 0) => "lazy refcounts",
        (FeatureGroup::Autoclear, 0) => "bitmaps",
        (FeatureGroup::Autoclear, 1) => "raw external data",
        _ => return None,
    })
}

/// A qcow2 header, as a view of the image it was read from.
///
/// Any bytes parse, if only they are there: a wrong magic, a version nobody has heard of, a `header_length` of 0.
/// [`check`](crate::qcow2::check::header) says what is wrong with them.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    bytes: &'a [u8],
    /// The fields of every version.
    pub v2: HeaderV2,
    /// The fields from version 3 on; for version 2 the values that the specification assumes.
    pub v3: HeaderV3,
}

impl<'a> Header<'a> {
    /// Reads the header at the start of an image. `bytes` is the whole image, so that what the header points to can
    /// be found in it.
    ///
    /// ```
    /// use vdisk_format::qcow2::Header;
    /// let mut image = vec![0xaa; 104]; // a wrong magic, version 0xaaaaaaaa, and so on: it parses
    /// assert_eq!(Header::parse(&image)?.v2.version, 0xaaaa_aaaa);
    /// image.truncate(71);
    /// let error = Header::parse(&image).unwrap_err();
    /// assert_eq!(error.to_string(), "qcow2 header at offset 0x0: needs 72 bytes, the file has 71 there");
    /// # Ok::<(), vdisk_format::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Truncated`](crate::Error::Truncated) where there are fewer than 72 bytes (version 2) or 104 (any other).
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let v2 = HeaderV2::parse(bytes, 0)?;
        let v3 = if v2.version == 2 {
            HeaderV3 { refcount_order: 4, header_length: 72, ..HeaderV3::default() }
        } else {
            HeaderV3::parse(bytes, HeaderV2::SIZE)?
        };
        Ok(Self { bytes, v2, v3 })
    }

    /// The whole image.
    #[must_use]
    pub fn image(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the fields from `incompatible_features` on are in the file: they are, unless the version is 2.
    #[must_use]
    pub fn has_v3_fields(&self) -> bool {
        self.v2.version != 2
    }

    /// `1 << cluster_bits` bytes; `None` where that is no `u64`.
    #[must_use]
    pub fn cluster_size(&self) -> Option<u64> {
        1u64.checked_shl(self.v2.cluster_bits)
    }

    /// The additional fields, between offset 104 and `header_length`, or the end of the largest cluster there is.
    #[must_use]
    pub fn additional(&self) -> AdditionalFields<'a> {
        let start = HeaderV2::SIZE + HeaderV3::SIZE;
        let end = if self.has_v3_fields() { u64::from(self.v3.header_length) } else { 0 };
        let length = end.min(1 << *CLUSTER_BITS.end()).saturating_sub(start);
        AdditionalFields { bytes: clipped(self.bytes, start, length) }
    }

    /// The known fields that this header has in the file, with their values, in on-disk order: for version 2 the
    /// first 13 only.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, u64)> + use<> {
        let v3 = self.has_v3_fields().then_some(self.v3.fields()).into_iter().flatten();
        self.v2.fields().chain(v3).chain(self.additional().fields())
    }

    /// The value of the field called `name`, whether it is in the file or assumed by the specification.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.v2.get(name).or_else(|| self.v3.get(name)).or_else(|| self.additional().get(name))
    }

    /// The bits of one feature group.
    #[must_use]
    pub fn features(&self, group: FeatureGroup) -> u64 {
        match group {
            FeatureGroup::Incompatible => self.v3.incompatible_features,
            FeatureGroup::Compatible => self.v3.compatible_features,
            FeatureGroup::Autoclear => self.v3.autoclear_features,
        }
    }

    /// The header extensions, read as they are asked for.
    #[must_use]
    pub fn extensions(&self) -> Extensions<'a> {
        Extensions::new(self)
    }

    /// The bytes that the header calls the backing file's name, cut at the end of the file; `None` where
    /// `backing_file_offset` is 0. What is opened is [`backing_file_name`](Self::backing_file_name).
    #[must_use]
    pub fn backing_file(&self) -> Option<&'a [u8]> {
        let at = self.v2.backing_file_offset;
        (at != 0).then(|| clipped(self.bytes, at, self.v2.backing_file_size.into()))
    }

    /// The backing file's name as QEMU reads it: up to its first zero byte, and no longer than the 1023 bytes that it takes.
    /// `None` where nothing is left, and the image has no backing file: what it has not allocated is zeroes.
    ///
    /// ```
    /// use vdisk_format::{generate::Qcow2, qcow2::Header};
    /// let mut image = Qcow2::new(1 << 20).backing_file("base.raw", Some("raw")).build()?;
    /// assert_eq!(Header::parse(&image)?.backing_file_name(), Some(b"base.raw".as_slice()));
    /// image[19] = 0; // backing_file_size
    /// assert_eq!(Header::parse(&image)?.backing_file_name(), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn backing_file_name(&self) -> Option<&'a [u8]> {
        let name = self.backing_file()?;
        up_to_zero(clipped(name, 0, MAX_BACKING_FILE_NAME.into()))
    }
}

/// Every field that a header of any version can have, in on-disk order.
pub fn known_fields() -> impl Iterator<Item = &'static Field> {
    HeaderV2::FIELDS.iter().chain(HeaderV3::FIELDS).chain(KnownAdditional::FIELDS)
}

/// The bytes from offset 104 to `header_length`, cut at the end of the file.
#[derive(Debug, Clone, Copy)]
pub struct AdditionalFields<'a> {
    bytes: &'a [u8],
}

impl<'a> AdditionalFields<'a> {
    fn known(self) -> Option<KnownAdditional> {
        KnownAdditional::parse(self.bytes, 0).ok()
    }

    /// `compression_type`; `None` where the header ends before it, which means 0.
    #[must_use]
    pub fn compression_type(self) -> Option<u8> {
        self.known().map(|known| known.compression_type)
    }

    /// What follows the known fields: padding, or fields of a later specification.
    #[must_use]
    pub fn unknown(self) -> &'a [u8] {
        clipped(self.bytes, KnownAdditional::SIZE, u64::MAX)
    }

    fn fields(self) -> impl Iterator<Item = (&'static Field, u64)> + use<> {
        self.known().into_iter().flat_map(|known| known.fields())
    }

    fn get(self, name: &str) -> Option<u64> {
        self.known()?.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_are_the_specifications() {
        let at = |name| known_fields().find(|field| field.name == name).map(|field| field.offset);
        let expected = [
            ("magic", 0),
            ("backing_file_offset", 8),
            ("cluster_bits", 20),
            ("l1_table_offset", 40),
            ("snapshots_offset", 64),
            ("incompatible_features", 72),
            ("refcount_order", 96),
            ("header_length", 100),
            ("compression_type", 104),
        ];
        for (name, offset) in expected {
            assert_eq!(at(name), Some(offset), "{name}");
        }
        assert_eq!((HeaderV2::SIZE, HeaderV3::SIZE), (72, 32));
    }

    #[test]
    fn version_2_has_13_fields_and_assumes_the_rest() {
        let mut bytes = vec![0xff; 200];
        bytes[4..8].copy_from_slice(&2u32.to_be_bytes());
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.fields().count(), 13);
        assert_eq!(header.get("refcount_order"), Some(4));
        assert_eq!(header.get("header_length"), Some(72));
        assert_eq!(header.get("compression_type"), None);
    }

    #[test]
    fn a_backing_file_has_a_name() {
        let mut bytes = vec![0; 4096];
        bytes[7] = 3;
        let mut name = |offset: u16, size: u16, written: &[u8]| {
            bytes[14..16].copy_from_slice(&offset.to_be_bytes());
            bytes[18..20].copy_from_slice(&size.to_be_bytes());
            bytes[0x200..0x200 + written.len()].copy_from_slice(written);
            Header::parse(&bytes).unwrap().backing_file_name().map(<[u8]>::to_vec)
        };
        assert_eq!(name(0x200, 4, b"base"), Some(b"base".to_vec()));
        assert_eq!(name(0x200, 2, b"base"), Some(b"ba".to_vec()));
        assert_eq!(name(0x200, 4, b"b\0se"), Some(b"b".to_vec()));
        assert_eq!(name(0x200, 2000, &[b'a'; 2000]), Some(vec![b'a'; 1023]));
        for (offset, size, written) in
            [(0, 4, b"base"), (0x200, 0, b"base"), (0x200, 4, b"\0ase"), (0x1000, 4, b"base")]
        {
            assert_eq!(name(offset, size, written), None, "{offset:#x} {size} {written:?}");
        }
    }

    proptest! {
        #[test]
        fn records_round_trip(bytes in proptest::collection::vec(any::<u8>(), 72..200)) {
            let v2 = HeaderV2::parse(&bytes, 0).unwrap();
            prop_assert_eq!(v2.to_bytes(), &bytes[..72]);
        }

        #[test]
        fn setting_a_field_by_name_changes_that_field_only(
            bytes in proptest::collection::vec(any::<u8>(), 72),
            index in 0..13usize,
            value: u64,
        ) {
            let before = HeaderV2::parse(&bytes, 0).unwrap();
            let field = HeaderV2::FIELDS[index];
            let mut after = before;
            let fits = after.set(field.name, value).is_some();
            prop_assert_eq!(fits, value <= field.max());
            for ((field, old), (_, new)) in before.fields().zip(after.fields()) {
                let expected = if fits && field == &HeaderV2::FIELDS[index] { value } else { old };
                prop_assert_eq!(new, expected);
                prop_assert_eq!(after.get(field.name), Some(new));
            }
        }

        #[test]
        fn any_header_parses(bytes in proptest::collection::vec(any::<u8>(), 104..300)) {
            let header = Header::parse(&bytes).unwrap();
            let _ = (header.extensions().count(), header.backing_file(), header.additional().unknown());
        }
    }
}
