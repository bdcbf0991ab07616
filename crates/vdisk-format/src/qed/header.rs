//! The header: 64 bytes, eleven fields, at the start of the file.

use crate::bytes::{clipped, up_to_zero};
use crate::error::Result;
use crate::feature::FeatureGroup;
use crate::limits::MAX_QED_BACKING_FILE_NAME;
use crate::record::{Field, record};

/// `QED\0`.
pub const MAGIC: u32 = 0x0044_4551;

/// Bit 0 of `features`: the image has a backing file.
pub const FEATURE_BACKING_FILE: u64 = 1;
/// Bit 1 of `features`: the image was not closed cleanly, and needs a check before it is used.
pub const FEATURE_NEED_CHECK: u64 = 1 << 1;
/// Bit 2 of `features`: the backing file is raw, whatever it looks like.
pub const FEATURE_BACKING_FORMAT_NO_PROBE: u64 = 1 << 2;
/// The bits of `features` that the specification defines. An image with any other must not be opened.
pub const KNOWN_FEATURES: u64 = FEATURE_BACKING_FILE | FEATURE_NEED_CHECK | FEATURE_BACKING_FORMAT_NO_PROBE;
/// The bits of `autoclear_features` that the specification defines: none.
pub const KNOWN_AUTOCLEAR_FEATURES: u64 = 0;

record! {
    /// The header's fields. Specification: "Header".
    pub struct HeaderFields: little, at 0, called "QED header" {
        /// `QED\0`, [`MAGIC`].
        magic: u32, Hex;
        /// Bytes a cluster: a power of two from 4096 to 67108864.
        cluster_size: u32, Dec;
        /// Clusters that the L1 table takes, and each L2 table: a power of two from 1 to 16.
        table_size: u32, Dec;
        /// Clusters that the header and what belongs to it take: no entry points there.
        header_size: u32, Dec;
        /// An image with a bit that is not known here must not be opened. Bit 0 backing file, 1 needs a check, 2 backing
        /// file is raw.
        features: u64, Bits;
        /// Unknown bits can be ignored; none is defined.
        compat_features: u64, Bits;
        /// A writer must clear the bits that it does not know; none is defined.
        autoclear_features: u64, Bits;
        /// Offset of the L1 table, a multiple of the cluster size.
        l1_table_offset: u64, Hex;
        /// Size of the virtual disk in bytes, a multiple of 512.
        image_size: u64, Dec;
        /// Offset of the backing file's name, which is not null-terminated, inside the header's clusters.
        backing_filename_offset: u32, Hex;
        /// Length of that name in bytes. Undefined, as the offset, without a backing file.
        backing_filename_size: u32, Dec;
    }
}

/// The header field that holds the feature bits of a group: `features` are the incompatible ones.
#[must_use]
pub const fn feature_field(group: FeatureGroup) -> &'static str {
    match group {
        FeatureGroup::Incompatible => "features",
        FeatureGroup::Compatible => "compat_features",
        FeatureGroup::Autoclear => "autoclear_features",
    }
}

/// What the specification calls a feature bit, where it defines it.
#[must_use]
pub const fn feature_bit_name(group: FeatureGroup, bit: u32) -> Option<&'static str> {
    Some(match (group, bit) {
        (FeatureGroup::Incompatible, 0) => "backing file",
        (FeatureGroup::Incompatible, 1) => "need check",
        (FeatureGroup::Incompatible, 2) => "backing format no probe",
        _ => return None,
    })
}

/// A QED header, as a view of the image it was read from.
///
/// Any bytes parse, if only they are there. [`check`](crate::qed::check::header) says what is wrong with them, and
/// [`Geometry`](crate::qed::Geometry) is what they must make for the tables to be read.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    bytes: &'a [u8],
    /// The fields.
    pub fields: HeaderFields,
}

impl<'a> Header<'a> {
    /// Reads the header at the start of an image. `bytes` is the whole image, so that what the header points to can be
    /// found in it.
    ///
    /// ```
    /// use vdisk_format::qed::Header;
    /// let mut image = vec![0xaa; 64]; // a wrong magic, a cluster size of 2863311530, and so on: it parses
    /// assert_eq!(Header::parse(&image)?.fields.table_size, 0xaaaa_aaaa);
    /// image.truncate(63);
    /// let error = Header::parse(&image).unwrap_err();
    /// assert_eq!(error.to_string(), "QED header at offset 0x0: needs 64 bytes, the file has 63 there");
    /// # Ok::<(), vdisk_format::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Truncated`](crate::Error::Truncated) where there are fewer than 64 bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        Ok(Self { bytes, fields: HeaderFields::parse(bytes, 0)? })
    }

    /// The whole image.
    #[must_use]
    pub fn image(&self) -> &'a [u8] {
        self.bytes
    }

    /// The fields with their values, in on-disk order.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, u64)> + use<> {
        self.fields.fields()
    }

    /// The value of the field called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.fields.get(name)
    }

    /// The bits of one feature group.
    #[must_use]
    pub fn features(&self, group: FeatureGroup) -> u64 {
        match group {
            FeatureGroup::Incompatible => self.fields.features,
            FeatureGroup::Compatible => self.fields.compat_features,
            FeatureGroup::Autoclear => self.fields.autoclear_features,
        }
    }

    /// Whether the image says that it needs a check before it is used.
    #[must_use]
    pub fn need_check(&self) -> bool {
        self.fields.features & FEATURE_NEED_CHECK != 0
    }

    /// The backing file's name, cut at the end of the file and at 4095 bytes, the most that QEMU takes; `None` without
    /// a backing file.
    #[must_use]
    pub fn backing_file(&self) -> Option<&'a [u8]> {
        let HeaderFields { features, backing_filename_offset: at, backing_filename_size: size, .. } =
            self.fields;
        let size = size.min(MAX_QED_BACKING_FILE_NAME);
        (features & FEATURE_BACKING_FILE != 0).then(|| clipped(self.bytes, at.into(), size.into()))
    }

    /// The same as QEMU reads it: up to the first zero byte. `None` where nothing is left, which is no backing file.
    #[must_use]
    pub fn backing_file_name(&self) -> Option<&'a [u8]> {
        up_to_zero(self.backing_file()?)
    }
}

/// Every header field, in on-disk order.
pub fn known_fields() -> impl Iterator<Item = &'static Field> {
    HeaderFields::FIELDS.iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_are_the_specifications() {
        let at = |name| known_fields().find(|field| field.name == name).map(|field| field.offset);
        for (name, offset) in
            [("magic", 0), ("features", 16), ("l1_table_offset", 40), ("backing_filename_size", 60)]
        {
            assert_eq!(at(name), Some(offset), "{name}");
        }
        assert_eq!((HeaderFields::SIZE, known_fields().count()), (64, 11));
        assert_eq!(MAGIC.to_le_bytes(), *b"QED\0");
    }

    proptest! {
        #[test]
        fn headers_round_trip(bytes in proptest::collection::vec(any::<u8>(), 64..200)) {
            let header = Header::parse(&bytes).unwrap();
            prop_assert_eq!(header.fields.to_bytes(), &bytes[..64]);
            prop_assert!(header.backing_file().unwrap_or_default().len() <= bytes.len());
        }
    }
}
