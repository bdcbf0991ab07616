//! Encryption: what `crypt_method` says, and the LUKS header. Nothing here decrypts, or wants a passphrase. Specification:
//! "Full disk encryption header pointer", and that of LUKS 1.

mod problems;

pub use problems::{LuksFault, LuksProblem};

use crate::bytes::{clipped, exactly};
use crate::error::{Error, Result};
use crate::qcow2::extension::{Content, CryptoHeaderPointer, Magic};
use crate::qcow2::geometry::Area;
use crate::qcow2::header::Header;
use crate::record::record;
use crate::units::HostOffset;

/// `LUKS`, the first four bytes of a LUKS header.
pub const LUKS_MAGIC: u32 = 0x4c55_4b53;
/// The two bytes behind them.
pub const LUKS_MAGIC_TAIL: u16 = 0xbabe;
/// A key slot that holds a key.
pub const KEY_SLOT_ACTIVE: u32 = 0x00ac_71f3;
/// A key slot that holds none.
pub const KEY_SLOT_INACTIVE: u32 = 0x0000_dead;
/// Key slots of a LUKS header.
pub const KEY_SLOTS: u64 = 8;

/// Bytes of a LUKS header, without the key material.
const LUKS_SIZE: u64 = 592;
const FIRST_SLOT: u64 = 208;
const SLOT_SIZE: u64 = 48;
/// What LUKS counts offsets in.
const SECTOR: u64 = 512;

record! {
    /// The beginning of a LUKS header.
    pub struct LuksStart: big, at 0, called "LUKS header" {
        /// `LUKS`, [`LUKS_MAGIC`].
        magic: u32, Hex;
        /// Bytes 0xba 0xbe, [`LUKS_MAGIC_TAIL`].
        magic_tail: u16, Hex;
        /// 1; in a qcow2 image there is no other.
        version: u16, Dec;
    }
}

record! {
    /// The sizes of a LUKS header, behind the names of cipher and hash.
    pub struct LuksSizes: big, at 104, called "LUKS header sizes" {
        /// Where the payload starts behind the LUKS header, in sectors of 512 bytes. Without meaning in a qcow2 image.
        payload_offset: u32, Dec;
        /// Length of the master key in bytes.
        key_bytes: u32, Dec;
    }
}

record! {
    /// How the digest of the master key is made.
    pub struct LuksDigest: big, at 164, called "LUKS header digest" {
        /// Iterations of PBKDF2.
        mk_digest_iterations: u32, Dec;
    }
}

record! {
    /// The beginning of a key slot.
    pub struct KeySlotStart: big, at 0, called "LUKS key slot" {
        /// [`KEY_SLOT_ACTIVE`] or [`KEY_SLOT_INACTIVE`].
        active: u32, Hex;
        /// Iterations of PBKDF2 that make a key of the passphrase.
        iterations: u32, Dec;
    }
}

record! {
    /// The end of a key slot, behind its salt.
    pub struct KeySlotEnd: big, at 40, called "LUKS key slot" {
        /// Where the key material starts behind the LUKS header, in sectors of 512 bytes.
        key_material_offset: u32, Dec;
        /// How many times the key material is longer than the master key.
        stripes: u32, Dec;
    }
}

/// How an image is encrypted, by its header.
#[derive(Debug)]
#[non_exhaustive]
pub enum Encryption<'a> {
    /// `crypt_method` 0.
    None,
    /// `crypt_method` 1: AES with a key that is the passphrase. Nothing in the image belongs to it.
    Aes,
    /// `crypt_method` 2: what can be read of the LUKS header, or why it cannot be.
    Luks(Result<Luks<'a>>),
    /// A `crypt_method` that the specification does not define.
    Unknown(u32),
}

impl<'a> Encryption<'a> {
    /// How the image of a header is encrypted.
    ///
    /// ```
    /// use vdisk_format::qcow2::{Header, crypto::Encryption};
    /// # let mut image = vec![0; 120];
    /// # (image[7], image[103]) = (3, 104);
    /// image[35] = 2; // crypt_method 2, and no header extension that says where the LUKS header is
    /// let Encryption::Luks(Err(error)) = Encryption::of(&Header::parse(&image)?) else { panic!() };
    /// assert_eq!(error.to_string(), "LUKS header: there is no header extension 0x537be77 that says where it is");
    /// # Ok::<(), vdisk_format::Error>(())
    /// ```
    #[must_use]
    pub fn of(header: &Header<'a>) -> Self {
        match header.v2.crypt_method {
            0 => Self::None,
            1 => Self::Aes,
            2 => Self::Luks(luks(header)),
            other => Self::Unknown(other),
        }
    }
}

/// What the full disk encryption header pointer says, whatever `crypt_method` is: of several, which should not be, the last of
/// those that can be read. `None` where there is none.
///
/// # Errors
/// [`Error::Truncated`] where none can be read, for it, or an extension before it, is cut short.
pub fn crypto_header_pointer(header: &Header<'_>) -> Result<Option<CryptoHeaderPointer>> {
    let pointers = header.extensions().filter_map(|extension| {
        let extension = match extension {
            Ok(extension) if extension.magic == Magic::CRYPTO_HEADER => extension,
            Ok(_) => return None,
            Err(error) => return Some(Err(error)),
        };
        match extension.content() {
            Ok(Content::CryptoHeader(pointer)) => Some(Ok(pointer)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    });
    let last = pointers.reduce(|before, next| if next.is_ok() { next } else { before });
    last.transpose()
}

fn luks<'a>(header: &Header<'a>) -> Result<Luks<'a>> {
    let Some(pointer) = crypto_header_pointer(header)? else {
        return Err(Error::Unsupported {
            what: "LUKS header".to_owned(),
            why: format!("there is no header extension {:#x} that says where it is", Magic::CRYPTO_HEADER.0),
        });
    };
    Luks::parse(header.image(), Area::new(pointer.offset, pointer.length))
}

/// A LUKS header, as a view of the image. Any 592 bytes are one: see [`problems`](Self::problems).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Luks<'a> {
    bytes: &'a [u8],
    /// The header and the key material, as the header extension claims.
    pub area: Area,
    /// Magic and version.
    pub start: LuksStart,
    /// Payload and key sizes.
    pub sizes: LuksSizes,
    /// The master key digest's iterations.
    pub digest: LuksDigest,
}

/// One of the eight key slots.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct KeySlot<'a> {
    /// 0 to 7.
    pub index: u64,
    /// Where it stands in the image.
    pub offset: HostOffset,
    /// Whether it holds a key, and the iterations.
    pub start: KeySlotStart,
    /// 32 bytes of salt.
    pub salt: &'a [u8],
    /// Where the key material is.
    pub end: KeySlotEnd,
    /// The key material, in bytes of the image file; it may lie anywhere.
    pub key_material: Area,
}

impl KeySlot<'_> {
    /// `Some(true)` where it says that it holds a key, `Some(false)` where it says that it holds none.
    #[must_use]
    pub const fn is_active(&self) -> Option<bool> {
        match self.start.active {
            KEY_SLOT_ACTIVE => Some(true),
            KEY_SLOT_INACTIVE => Some(false),
            _ => None,
        }
    }
}

impl<'a> Luks<'a> {
    /// Reads the LUKS header at the start of `area`.
    ///
    /// # Errors
    /// [`Error::Truncated`] where the file has fewer than 592 bytes there.
    pub fn parse(image: &'a [u8], area: Area) -> Result<Self> {
        let bytes = exactly(image, area.offset.0, LUKS_SIZE, "LUKS header")?;
        Ok(Self {
            bytes,
            area,
            start: LuksStart::parse(bytes, 0)?,
            sizes: LuksSizes::parse(bytes, 104)?,
            digest: LuksDigest::parse(bytes, 164)?,
        })
    }

    /// Whether magic and version are those of LUKS 1.
    #[must_use]
    pub fn is_luks_1(&self) -> bool {
        self.start == LuksStart { magic: LUKS_MAGIC, magic_tail: LUKS_MAGIC_TAIL, version: 1 }
    }

    /// The cipher's name, as `aes`, up to its first null byte.
    #[must_use]
    pub fn cipher_name(&self) -> &'a [u8] {
        self.text(8, 32)
    }

    /// The cipher's mode, as `xts-plain64`, up to its first null byte.
    #[must_use]
    pub fn cipher_mode(&self) -> &'a [u8] {
        self.text(40, 32)
    }

    /// The hash that PBKDF2 uses, as `sha256`, up to its first null byte.
    #[must_use]
    pub fn hash_spec(&self) -> &'a [u8] {
        self.text(72, 32)
    }

    /// 20 bytes: the digest of the master key.
    #[must_use]
    pub fn mk_digest(&self) -> &'a [u8] {
        clipped(self.bytes, 112, 20)
    }

    /// 32 bytes: the salt of that digest.
    #[must_use]
    pub fn mk_digest_salt(&self) -> &'a [u8] {
        clipped(self.bytes, 132, 32)
    }

    /// The UUID as text, up to its first null byte.
    #[must_use]
    pub fn uuid(&self) -> &'a [u8] {
        self.text(168, 40)
    }

    /// The eight key slots.
    pub fn key_slots(&self) -> impl Iterator<Item = KeySlot<'a>> + use<'a> {
        let luks = *self;
        (0..KEY_SLOTS).filter_map(move |index| luks.key_slot(index))
    }

    /// Key slot `index`, 0 to 7.
    #[must_use]
    pub fn key_slot(&self, index: u64) -> Option<KeySlot<'a>> {
        if index >= KEY_SLOTS {
            return None;
        }
        let at = FIRST_SLOT + index * SLOT_SIZE;
        let end = KeySlotEnd::parse(self.bytes, at + 40).ok()?;
        let start = self.area.offset.0.saturating_add(u64::from(end.key_material_offset) * SECTOR);
        Some(KeySlot {
            index,
            offset: HostOffset(self.area.offset.0 + at),
            start: KeySlotStart::parse(self.bytes, at).ok()?,
            salt: clipped(self.bytes, at + 8, 32),
            end,
            key_material: Area::new(start, u64::from(end.stripes) * u64::from(self.sizes.key_bytes)),
        })
    }

    fn text(&self, at: u64, size: u64) -> &'a [u8] {
        clipped(self.bytes, at, size).split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(luks: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        (bytes[7], bytes[35], bytes[103], bytes[23]) = (3, 2, 104, 9);
        bytes[104..128].copy_from_slice(&[
            5, 0x37, 0xbe, 0x77, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8, 0,
        ]);
        bytes.extend(luks);
        bytes
    }

    #[test]
    fn of_several_pointers_the_last_that_can_be_read() {
        let mut bytes = image(&[]);
        bytes.copy_within(104..128, 128);
        bytes[142] = 4;
        let pointer = |bytes: &[u8]| crypto_header_pointer(&Header::parse(bytes).unwrap());
        assert_eq!(pointer(&bytes).unwrap().unwrap().offset, 0x400);
        bytes[135] = 8; // the second is too short
        assert_eq!(pointer(&bytes).unwrap().unwrap().offset, 0x200);
        bytes[111] = 8;
        assert!(pointer(&bytes).is_err());
    }

    #[test]
    fn every_field_is_where_luks_has_it() {
        let mut luks = vec![0; 592];
        luks[..8].copy_from_slice(b"LUKS\xba\xbe\0\x01");
        for (at, text) in [(8, "aes"), (40, "xts-plain64"), (72, "sha256"), (168, "uuid")] {
            luks[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        (luks[106], luks[111]) = (16, 64);
        luks[112..132].fill(7);
        luks[132..164].fill(8);
        luks[167] = 9;
        let slot = 208 + 3 * 48;
        luks[slot..slot + 4].copy_from_slice(&KEY_SLOT_ACTIVE.to_be_bytes());
        luks[slot + 8..slot + 40].fill(5);
        (luks[slot + 7], luks[slot + 43], luks[slot + 46]) = (10, 8, 0x0f);
        luks[slot + 47] = 0xa0;
        let bytes = image(&luks);
        let Encryption::Luks(Ok(luks)) = Encryption::of(&Header::parse(&bytes).unwrap()) else { panic!() };
        assert!(luks.is_luks_1());
        assert_eq!((luks.cipher_name(), luks.cipher_mode()), (b"aes".as_slice(), b"xts-plain64".as_slice()));
        assert_eq!((luks.hash_spec(), luks.uuid()), (b"sha256".as_slice(), b"uuid".as_slice()));
        assert_eq!((luks.sizes.payload_offset, luks.sizes.key_bytes), (4096, 64));
        assert_eq!((luks.mk_digest(), luks.mk_digest_salt()), ([7; 20].as_slice(), [8; 32].as_slice()));
        assert_eq!((luks.digest.mk_digest_iterations, luks.area), (9, Area::new(512, 2048)));
        let slots: Vec<_> = luks.key_slots().collect();
        assert_eq!(slots.len(), 8);
        assert_eq!((slots[3].is_active(), slots[0].is_active()), (Some(true), None));
        assert_eq!((slots[3].start.iterations, slots[3].salt), (10, [5; 32].as_slice()));
        assert_eq!(slots[3].key_material, Area::new(512 + 8 * 512, 4000 * 64));
        assert_eq!(slots[3].offset.0, 512 + 208 + 144);
    }

    #[test]
    fn a_header_that_is_cut_is_named() {
        let bytes = image(&[0; 591]);
        let Encryption::Luks(Err(error)) = Encryption::of(&Header::parse(&bytes).unwrap()) else { panic!() };
        assert_eq!(error.to_string(), "LUKS header at offset 0x200: needs 592 bytes, the file has 591 there");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_header(luks in proptest::collection::vec(any::<u8>(), 592)) {
            let bytes = image(&luks);
            let Encryption::Luks(Ok(luks)) = Encryption::of(&Header::parse(&bytes).unwrap()) else { panic!() };
            for slot in luks.key_slots() {
                prop_assert!(slot.key_material.offset.0 >= 512);
                let at = usize::try_from(slot.offset.0).unwrap();
                let whole = [&slot.start.to_bytes(), slot.salt, &slot.end.to_bytes()].concat();
                prop_assert_eq!(&whole, &bytes[at..at + 48]);
            }
        }
    }
}
