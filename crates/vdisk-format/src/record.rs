//! `record!`: one declaration of an on-disk structure gives the binrw struct, the table of its fields,
//! reading and writing, and access by name. Dumps and JSON are loops over the table.

use crate::error::{Error, Reason, Result};
use crate::units::HostOffset;

/// How people write a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notation {
    /// `0x10000`: offsets and magic numbers.
    Hex,
    /// `16`: counts and sizes.
    Dec,
    /// `[0, 4]`: the numbers of the bits that are set.
    Bits,
}

/// The order of a number's bytes on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endian {
    /// The highest byte first: qcow2.
    Big,
    /// The lowest byte first: QED.
    Little,
}

/// One field of an on-disk structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Field {
    /// The specification's name.
    pub name: &'static str,
    /// Offset in bytes from the start of the file for the header, else from the structure's start.
    pub offset: u64,
    /// Width in bytes: 1, 2, 4 or 8.
    pub width: u32,
    /// The order of its bytes.
    pub endian: Endian,
    /// How its value is written.
    pub notation: Notation,
    /// Its documentation, a line each.
    pub doc: &'static [&'static str],
}

impl Field {
    #[doc(hidden)]
    #[must_use]
    pub const fn new(
        name: &'static str,
        offset: u64,
        width: u32,
        endian: Endian,
        notation: Notation,
        doc: &'static [&'static str],
    ) -> Self {
        Self { name, offset, width, endian, notation, doc }
    }

    /// The largest value the field holds.
    ///
    /// ```
    /// use vdisk_format::qcow2::HeaderV2;
    /// let version = HeaderV2::FIELDS.iter().find(|field| field.name == "version").unwrap();
    /// assert_eq!(version.max(), 0xffff_ffff);
    /// ```
    #[must_use]
    pub const fn max(&self) -> u64 {
        u64::MAX >> (64 - 8 * self.width)
    }

    /// The field's bytes for `value`, as they are on disk, `width` of them.
    ///
    /// ```
    /// use vdisk_format::qcow2::HeaderV2;
    /// let version = HeaderV2::FIELDS.iter().find(|field| field.name == "version").unwrap();
    /// assert_eq!(version.encode(3)?, [0, 0, 0, 3]);
    /// # Ok::<(), vdisk_format::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Reason::OutOfRange`] where `value` is larger than [`max`](Self::max).
    pub fn encode(&self, value: u64) -> Result<Vec<u8>> {
        if value > self.max() {
            return Err(Error::refused(
                Reason::OutOfRange,
                format!("{} = {value:#x}", self.name),
                Some(HostOffset(self.offset)),
                format!("at most {:#x} ({} bits)", self.max(), 8 * self.width),
                format!("{value:#x}"),
            ));
        }
        let width = self.width as usize;
        Ok(match self.endian {
            Endian::Big => value.to_be_bytes().into_iter().skip(8 - width).collect(),
            Endian::Little => value.to_le_bytes().into_iter().take(width).collect(),
        })
    }
}

/// A field's name in the specification: a Rust keyword (`type`) is declared with an underscore behind it.
pub(crate) const fn spec_name(ident: &'static str) -> &'static str {
    match ident.as_bytes() {
        [.., b'_'] => ident.split_at(ident.len() - 1).0,
        _ => ident,
    }
}

/// Declares an on-disk structure: see the module's documentation.
///
/// `big` or `little` is the order of every number's bytes. `at N` is the offset of the first field from the start of the file (0 for a structure whose place varies).
macro_rules! record {
    (@endian big) => { $crate::record::Endian::Big };
    (@endian little) => { $crate::record::Endian::Little };
    (
        $(#[doc = $doc:literal])*
        pub struct $Name:ident: $endian:ident, at $base:literal, called $what:literal {
            $( $(#[doc = $field_doc:literal])* $field:ident: $ty:ty, $notation:ident; )*
        }
    ) => {
        $(#[doc = $doc])*
        #[binrw::binrw]
        #[brw($endian)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $Name { $( $(#[doc = $field_doc])* pub $field: $ty, )* }

        impl $Name {
            /// Size in bytes on disk.
            pub const SIZE: u64 = 0 $( + size_of::<$ty>() as u64 )*;

            /// The fields in on-disk order.
            pub const FIELDS: &'static [$crate::record::Field] = {
                struct Widths { $( $field: u64, )* }
                const WIDTHS: Widths = Widths { $( $field: size_of::<$ty>() as u64, )* };
                const AT: Widths = {
                    let mut next = $base;
                    Widths { $( $field: { next += WIDTHS.$field; next - WIDTHS.$field }, )* }
                };
                &[ $( $crate::record::Field::new(
                    $crate::record::spec_name(stringify!($field)), AT.$field, WIDTHS.$field as u32,
                    $crate::record::record!(@endian $endian), $crate::record::Notation::$notation, &[$($field_doc),*],
                ), )* ]
            };

            /// Reads the structure at offset `at` of `bytes`.
            ///
            /// # Errors
            /// [`Error::Truncated`](crate::Error::Truncated) where `bytes` ends inside it. Any values are accepted.
            pub fn parse(bytes: &[u8], at: u64) -> $crate::error::Result<Self> {
                let bytes = $crate::bytes::exactly(bytes, at, Self::SIZE, $what)?;
                binrw::BinRead::read(&mut std::io::Cursor::new(bytes)).map_err(|_| $crate::Error::Truncated {
                    what: $what,
                    at: $crate::units::HostOffset(at),
                    need: Self::SIZE,
                    have: bytes.len() as u64,
                })
            }

            /// The structure's bytes.
            #[must_use]
            pub fn to_bytes(&self) -> Vec<u8> {
                let mut out = std::io::Cursor::new(Vec::new());
                match binrw::BinWrite::write(self, &mut out) {
                    Ok(()) => out.into_inner(),
                    Err(_) => Vec::new(), // a Vec takes every byte: there is no error to have
                }
            }

            /// The value of the field called `name`; `None` where there is no such field.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<u64> {
                self.fields().find_map(|(field, value)| (field.name == name).then_some(value))
            }

            /// Sets the field called `name`; `None`, and no change, where there is no such field or it cannot hold `value`.
            pub fn set(&mut self, name: &str, value: u64) -> Option<()> {
                $( if name == $crate::record::spec_name(stringify!($field)) {
                    self.$field = <$ty>::try_from(value).ok()?;
                    return Some(());
                } )*
                None
            }

            /// Every field with its value, in on-disk order.
            pub fn fields(&self) -> impl Iterator<Item = (&'static $crate::record::Field, u64)> + use<> {
                Self::FIELDS.iter().zip([ $( u64::from(self.$field), )* ])
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $Name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.fields().map(|(field, value)| (field.name, value)))
            }
        }
    };
}
pub(crate) use record;

#[cfg(test)]
#[expect(unreachable_pub, clippy::wrong_self_convention, reason = "record! declares what is public")]
mod tests {
    use super::Endian;
    use proptest::prelude::*;

    record! {
        /// Fields of every width, the lowest byte first.
        pub struct Mixed: little, at 4, called "test record" {
            /// One byte.
            one: u8, Dec;
            /// Two bytes.
            two: u16, Hex;
            /// Four bytes.
            four: u32, Bits;
            /// Eight bytes.
            eight: u64, Hex;
        }
    }

    proptest! {
        #[test]
        fn a_field_is_encoded_as_its_record_is(one: u8, two: u16, four: u32, eight: u64) {
            let record = Mixed { one, two, four, eight };
            let bytes = record.to_bytes();
            prop_assert_eq!(&bytes[1..3], two.to_le_bytes());
            let encoded: Vec<u8> = record.fields().flat_map(|(field, value)| field.encode(value).unwrap()).collect();
            prop_assert_eq!(&encoded, &bytes);
            prop_assert_eq!(Mixed::parse(&bytes, 0).unwrap(), record);
            let mut copy = Mixed::default();
            for (field, value) in record.fields() {
                copy.set(field.name, value).unwrap();
                prop_assert_eq!(copy.get(field.name), Some(value));
            }
            prop_assert_eq!(copy, record);
        }
    }

    #[test]
    fn fields_know_their_place_and_their_order() {
        let places: Vec<_> =
            Mixed::FIELDS.iter().map(|field| (field.name, field.offset, field.width)).collect();
        assert_eq!(places, [("one", 4, 1), ("two", 5, 2), ("four", 7, 4), ("eight", 11, 8)]);
        assert!(Mixed::FIELDS.iter().all(|field| field.endian == Endian::Little));
        assert!(Mixed::FIELDS[1].encode(0x1_0000).is_err());
    }
}
