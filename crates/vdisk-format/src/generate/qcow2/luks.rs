//! The LUKS1 header, with its key material.

use crate::generate::GenerateError;
use crate::generate::error::field;
use crate::random::Random;

const MAGIC: &[u8] = b"LUKS\xba\xbe";
const SECTOR_SIZE: u32 = 512;
/// The length of the fields and the key slots in bytes.
const FIELDS: usize = 592;
/// The length of the master key in bytes: that of AES-256 in ECB mode.
const KEY_BYTES: u32 = 32;
/// Into how many stripes, of the length of a key, a master key is split.
const STRIPES: u32 = 4000;
/// Where the first key material begins, in sectors.
const FIRST_MATERIAL: u32 = 8;
/// From one key material to the next, in sectors: a multiple of 4096 bytes.
const MATERIAL_SECTORS: u32 = 256;
const KEY_SLOTS: u32 = 8;
const ITERATIONS: u32 = 1000;
const ACTIVE: u32 = 0x00ac_71f3;
const INACTIVE: u32 = 0x0000_dead;

/// A LUKS1 header, which makes the image an encrypted one.
///
/// Key slot 0 opens with [`PASSPHRASE`](Self::PASSPHRASE); the salt and the key material of all
/// others are seeded bytes that no passphrase opens. The cipher is `aes-ecb-plain` with 256 bits,
/// which nobody should use for more than tests.
///
/// The guest's bytes are not encrypted: what [`Qcow2::data`](super::Qcow2::data) gives is the
/// ciphertext.
///
/// ```
/// use vdisk_format::generate::{Luks, Qcow2};
///
/// let image = Qcow2::new(1 << 20).luks(Luks::new(1).key_slots(3)).build()?;
/// assert!(image.windows(6).any(|bytes| bytes == b"LUKS\xba\xbe"));
/// # Ok::<(), vdisk_format::generate::GenerateError>(())
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Luks {
    seed: u64,
    key_slots: u32,
}

impl Luks {
    /// What opens key slot 0.
    pub const PASSPHRASE: &str = "vdisk";

    /// A header with one active key slot. Different seeds have different UUIDs.
    pub fn new(seed: u64) -> Self {
        Luks { seed, key_slots: 1 }
    }

    /// The number of active key slots: 1 to 8. The default is 1.
    pub fn key_slots(mut self, key_slots: u32) -> Self {
        self.key_slots = key_slots;
        self
    }

    pub(super) fn validate(&self) -> Result<(), GenerateError> {
        let value = self.key_slots.into();
        field("key_slots", value, (1..=KEY_SLOTS).contains(&self.key_slots), "1 to 8")
    }

    /// The length of the header and all key material in bytes.
    pub(super) fn length() -> u64 {
        u64::from(FIRST_MATERIAL + KEY_SLOTS * MATERIAL_SECTORS) * u64::from(SECTOR_SIZE)
    }

    /// The header and the key material. Where nothing is behind that, it is left out.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut random = Random::new(self.seed);
        let mut out = Vec::new();
        out.extend(MAGIC);
        out.extend(1_u16.to_be_bytes()); // version
        for text in ["aes", "ecb-plain", "sha256"] {
            text_field(&mut out, text, 32);
        }
        out.extend((FIRST_MATERIAL + KEY_SLOTS * MATERIAL_SECTORS).to_be_bytes()); // payload offset
        out.extend(KEY_BYTES.to_be_bytes());
        out.extend(KEY_DIGEST);
        out.extend(32..64); // the salt of the digest
        out.extend(ITERATIONS.to_be_bytes());
        text_field(&mut out, &uuid(&mut random), 40);
        for slot in 0..KEY_SLOTS {
            let active = slot < self.key_slots;
            out.extend(if active { ACTIVE } else { INACTIVE }.to_be_bytes());
            out.extend(if active { ITERATIONS } else { 0 }.to_be_bytes());
            match slot {
                0 => out.extend(0..32),
                _ if active => out.extend(seeded(&mut random, 32)),
                _ => out.extend([0; 32]),
            }
            out.extend((FIRST_MATERIAL + slot * MATERIAL_SECTORS).to_be_bytes());
            out.extend(STRIPES.to_be_bytes());
        }
        debug_assert_eq!(out.len(), FIELDS, "the fields have their places");
        for slot in 0..self.key_slots {
            out.resize(((FIRST_MATERIAL + slot * MATERIAL_SECTORS) * SECTOR_SIZE) as usize, 0);
            out.extend(if slot == 0 { material() } else { seeded(&mut random, STRIPES * KEY_BYTES) });
        }
        out
    }
}

// Key slot 0 has the salt 0, 1, … 31 and the master key 64, 65, … 95. All of its stripes but the last one are zeros,
// so that, in ECB mode, all blocks of these have the same ciphertext, and need no cipher here.

/// PBKDF2 of the master key.
const KEY_DIGEST: [u8; 20] = [
    0x52, 0x1e, 0x5e, 0x4e, 0x62, 0x46, 0x97, 0xab, 0x6e, 0x60, 0xaa, 0xf3, 0x18, 0xad, 0x51, 0xb1, 0xe0,
    0x2f, 0xfa, 0x1a,
];
/// A block of zeros, encrypted with PBKDF2 of the passphrase.
const ZEROS: [u8; 16] =
    [0x06, 0x45, 0xf5, 0x9e, 0x18, 0x29, 0x14, 0xf3, 0xb7, 0xe6, 0x90, 0xe9, 0x7f, 0x84, 0x1a, 0x5c];
/// The last stripe: what makes the master key of the stripes of zeros, encrypted likewise.
const LAST_STRIPE: [u8; KEY_BYTES as usize] = [
    0x1f, 0x5c, 0x11, 0x51, 0xf7, 0x7f, 0x4b, 0xf1, 0xcd, 0x0e, 0xbc, 0xcf, 0xe6, 0x3c, 0x6a, 0xc9, 0x73,
    0xc4, 0x26, 0x43, 0x62, 0xd9, 0xb5, 0x1a, 0x9c, 0x43, 0xe7, 0x2d, 0x0d, 0xf8, 0xe7, 0xb4,
];

/// The key material of slot 0.
fn material() -> Vec<u8> {
    let stripes = (STRIPES - 1) * KEY_BYTES / 16;
    let mut material = ZEROS.repeat(stripes as usize);
    material.extend(LAST_STRIPE);
    material
}

fn seeded(random: &mut Random, length: u32) -> Vec<u8> {
    (0..length).map(|_| random.below(256) as u8).collect()
}

fn uuid(random: &mut Random) -> String {
    let mut group = |digits: usize| format!("{:0digits$x}", random.below(1 << (4 * digits)));
    format!("{}-{}-4{}-8{}-{}", group(8), group(4), group(3), group(3), group(12))
}

/// Appends text that is padded with zeros to `length` bytes.
fn text_field(out: &mut Vec<u8>, text: &str, length: usize) {
    let end = out.len() + length;
    out.extend(text.as_bytes());
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_material_is_at_its_slots_offset() {
        let luks = Luks::new(5).key_slots(2);
        let header = luks.encode();
        let slots: Vec<&[u8]> = header[208..FIELDS].chunks(48).collect();
        let number = |slot: usize, at: usize| u32::from_be_bytes(slots[slot][at..at + 4].try_into().unwrap());
        let states: Vec<u32> = (0..8).map(|slot| number(slot, 0)).collect();
        assert_eq!(states, [&[ACTIVE; 2][..], &[INACTIVE; 6]].concat());
        let material = number(1, 40) as usize * 512;
        assert_eq!(header.len(), material + 128_000);
        assert!(header[material - 3072..material].iter().all(|&byte| byte == 0));
        assert!(header[material..].iter().filter(|&&byte| byte == 0).count() < 1000);
        assert_ne!(header, Luks::new(6).key_slots(2).encode());
        assert_eq!(Luks::length(), 1_052_672);
        assert!(Luks::new(0).key_slots(0).validate().is_err());
        assert!(Luks::new(0).key_slots(9).validate().is_err());
    }
}
