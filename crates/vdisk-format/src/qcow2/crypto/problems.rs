//! What is wrong with a LUKS header: [`Luks::problems`].

use std::fmt;

use super::{KeySlot, LUKS_MAGIC, LUKS_MAGIC_TAIL, LUKS_SIZE, Luks, SECTOR};
use crate::qcow2::geometry::Area;

/// How many times key material is longer than the master key: LUKS 1 has no other number.
const STRIPES: u64 = 4000;
/// Key material begins at a multiple of this behind the header, and no sooner: in bytes.
const ALIGNMENT: u64 = 4096;
/// The ciphers of LUKS 1, and QEMU's SM4, with the lengths of their keys in bytes.
const CIPHERS: [(&[u8], &[u32]); 6] = [
    (b"aes", &[16, 24, 32]),
    (b"serpent", &[16, 24, 32]),
    (b"twofish", &[16, 24, 32]),
    (b"cast5", &[16]),
    (b"cast6", &[16, 24, 32]),
    (b"sm4", &[16]),
];
/// The hashes of LUKS 1, and those that QEMU has besides.
const HASHES: [&[u8]; 8] =
    [b"sha1", b"sha256", b"sha512", b"ripemd160", b"md5", b"sha224", b"sha384", b"sm3"];
const MODES: [&[u8]; 4] = [b"ecb", b"cbc", b"xts", b"ctr"];

/// Something that is wrong with a LUKS header. It says how a value is wrong, and not the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LuksProblem {
    /// What is wrong.
    pub fault: LuksFault,
    /// The key slot concerned, 0 to 7; `None` where it is the header.
    pub slot: Option<u64>,
    /// The field in the image.
    pub place: Area,
}

/// What can be wrong with a LUKS header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LuksFault {
    /// The header extension leaves no room for the header's 592 bytes.
    Length,
    /// The first six bytes are not LUKS's. Nothing else is looked at.
    Magic,
    /// The version is not 1. Nothing else is looked at.
    Version,
    /// The cipher's name is unknown, or does not end in its 32 bytes.
    CipherName,
    /// The same of the cipher's mode.
    CipherMode,
    /// The same of the hash.
    Hash,
    /// The payload does not begin behind the key material. This field has no other meaning in a qcow2 image.
    PayloadOffset,
    /// The master key's length is none that the cipher has.
    KeyBytes,
    /// The master key's digest is of no iterations.
    DigestIterations,
    /// A key slot neither holds a key nor holds none.
    SlotState,
    /// A key slot holds a key, and has no iterations.
    SlotIterations,
    /// A key slot has another number of stripes than 4000.
    SlotStripes,
    /// A key slot's key material begins in the header, which has 4096 bytes with its padding.
    SlotInHeader,
    /// A key slot's key material ends behind the space that the header extension gives it.
    SlotOutside,
    /// A key slot's key material is where that of an earlier one is.
    SlotOverlap,
}

/// What a fault is called: its code, the field, what is expected there, and what is there instead.
struct Words(&'static str, &'static str, &'static str, &'static str);

impl LuksFault {
    /// The code of a check's finding.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.words().0
    }

    /// The field.
    #[must_use]
    pub const fn field(self) -> &'static str {
        self.words().1
    }

    /// What should be there.
    #[must_use]
    pub const fn expected(self) -> &'static str {
        self.words().2
    }

    /// How what is there is wrong.
    #[must_use]
    pub const fn found(self) -> &'static str {
        self.words().3
    }

    const fn words(self) -> Words {
        const NAME: &str = "an unknown one, or one without an end";
        match self {
            Self::Length => Words("luks-length", "length", "at least 592 bytes", "fewer"),
            Self::Magic => Words("luks-magic", "magic", "`LUKS`, 0xba, 0xbe", "other bytes"),
            Self::Version => Words("luks-version", "version", "1", "another one"),
            Self::CipherName => {
                Words("luks-cipher-name", "cipher name", "a cipher of LUKS, ended by a null byte", NAME)
            }
            Self::CipherMode => {
                Words("luks-cipher-mode", "cipher mode", "a mode of LUKS, ended by a null byte", NAME)
            }
            Self::Hash => Words("luks-hash", "hash", "a hash of LUKS, ended by a null byte", NAME),
            Self::PayloadOffset => Words(
                "luks-payload-offset",
                "payload_offset",
                "a place behind the key material",
                "one before its end",
            ),
            Self::KeyBytes => {
                Words("luks-key-bytes", "key_bytes", "a length that the cipher's keys have", "another one")
            }
            Self::DigestIterations => {
                Words("luks-digest-iterations", "mk_digest_iterations", "at least 1", "none")
            }
            Self::SlotState => {
                Words("luks-slot-state", "active", "0xac71f3 (active) or 0xdead (inactive)", "neither")
            }
            Self::SlotIterations => {
                Words("luks-slot-iterations", "iterations", "at least 1, for the slot is active", "none")
            }
            Self::SlotStripes => Words("luks-slot-stripes", "stripes", "4000", "another number"),
            Self::SlotInHeader => {
                Words("luks-slot-place", "key_material_offset", "a place behind the header", "one inside it")
            }
            Self::SlotOutside => Words(
                "luks-slot-place",
                "key_material_offset",
                "a place for all of it in the encryption header",
                "one that ends behind it",
            ),
            Self::SlotOverlap => Words(
                "luks-slot-overlap",
                "key_material_offset",
                "a place of its own",
                "one that an earlier slot has",
            ),
        }
    }
}

impl LuksProblem {
    /// The structure and the field: `LUKS key slot 3, stripes`.
    #[must_use]
    pub fn field(&self) -> String {
        let field = self.fault.field();
        self.slot
            .map_or_else(|| format!("LUKS header, {field}"), |slot| format!("LUKS key slot {slot}, {field}"))
    }
}

impl fmt::Display for LuksProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.fault.expected(), self.fault.found())
    }
}

impl Luks<'_> {
    /// Everything that is wrong with the header, in its order. QEMU opens no image with one of these, but for key material
    /// of an unused slot that lies behind [`area`](Self::area), and for the cipher `cast6`, which it does not have.
    ///
    /// No passphrase is tried: whether the key material is what it was is not known.
    #[must_use]
    pub fn problems(&self) -> Vec<LuksProblem> {
        use LuksFault as Fault;
        let problem = |fault, at, length| LuksProblem { fault, slot: None, place: self.part(at, length) };
        if self.start.magic != LUKS_MAGIC || self.start.magic_tail != LUKS_MAGIC_TAIL {
            return vec![problem(Fault::Magic, 0, 6)];
        }
        if !self.is_luks_1() {
            return vec![problem(Fault::Version, 6, 2)];
        }
        let slots = self.slot_problems();
        let rules = [
            (self.area.length < LUKS_SIZE, Fault::Length, 0, LUKS_SIZE),
            (self.cipher().is_none(), Fault::CipherName, 8, 32),
            (self.mode().is_none(), Fault::CipherMode, 40, 32),
            (!self.ended(72).is_some_and(is_hash), Fault::Hash, 72, 32),
            (self.payload() < self.end_of_material(), Fault::PayloadOffset, 104, 4),
            (!self.has_sane_key(), Fault::KeyBytes, 108, 4),
            (self.digest.mk_digest_iterations == 0, Fault::DigestIterations, 164, 4),
        ];
        let header = rules.into_iter().filter(|(is_wrong, ..)| *is_wrong);
        header.map(|(_, fault, at, length)| problem(fault, at, length)).chain(slots).collect()
    }

    fn slot_problems(&self) -> Vec<LuksProblem> {
        use LuksFault as Fault;
        let (mut problems, mut taken) = (Vec::new(), Vec::<Area>::new());
        for slot in self.key_slots() {
            let material = self.material(&slot);
            let place = if material.is_some() { None } else { Some(self.misplaced(&slot)) };
            let is_taken = material.is_some_and(|new| {
                taken.iter().any(|old| old.offset.0 < new.end() && new.offset.0 < old.end())
            });
            taken.extend(material);
            let needs_iterations = slot.is_active() == Some(true) && material.is_some();
            let rules = [
                (slot.is_active().is_none(), Fault::SlotState, 0),
                (needs_iterations && slot.start.iterations == 0, Fault::SlotIterations, 4),
                (place.is_some(), place.unwrap_or(Fault::SlotOutside), 40),
                (is_taken, Fault::SlotOverlap, 40),
                (u64::from(slot.end.stripes) != STRIPES, Fault::SlotStripes, 44),
            ];
            problems.extend(rules.into_iter().filter(|(is_wrong, ..)| *is_wrong).map(|(_, fault, at)| {
                let place = Area::new(slot.offset.0.saturating_add(at), 4);
                LuksProblem { fault, slot: Some(slot.index), place }
            }));
        }
        problems
    }

    /// Where a slot's key material is, from the start of the header on and in whole steps of the alignment; `None` where
    /// that is no place for it. What is wrong with the stripes is wrong with them alone.
    fn material(&self, slot: &KeySlot<'_>) -> Option<Area> {
        let start = u64::from(slot.end.key_material_offset) * SECTOR;
        let length = if self.has_sane_key() { u64::from(self.sizes.key_bytes) * STRIPES } else { 0 };
        let is_inside = start >= ALIGNMENT && start + length <= self.area.length;
        is_inside.then(|| Area::new(start, length.next_multiple_of(ALIGNMENT)))
    }

    /// Why a slot's place is none.
    fn misplaced(&self, slot: &KeySlot<'_>) -> LuksFault {
        let is_in_header = u64::from(slot.end.key_material_offset) * SECTOR < ALIGNMENT;
        if is_in_header { LuksFault::SlotInHeader } else { LuksFault::SlotOutside }
    }

    fn payload(&self) -> u64 {
        u64::from(self.sizes.payload_offset) * SECTOR
    }

    /// Where the last key material ends that has a place, from the start of the header on.
    fn end_of_material(&self) -> u64 {
        let ends = self.key_slots().filter_map(|slot| self.material(&slot)).map(Area::end);
        ends.max().unwrap_or(0).max(ALIGNMENT)
    }

    /// Lengths of the cipher's keys.
    fn cipher(&self) -> Option<&'static [u32]> {
        let name = self.ended(8)?;
        CIPHERS.iter().find(|(known, _)| *known == name).map(|(_, lengths)| *lengths)
    }

    /// The mode of operation, without the rest.
    fn mode(&self) -> Option<&'static [u8]> {
        let text = self.ended(40)?;
        let mut parts = text.splitn(2, |&byte| byte == b'-');
        let name = parts.next()?;
        let mode = MODES.into_iter().find(|mode| *mode == name)?;
        let is_known = match parts.next() {
            // Needs no initialization vector.
            None => mode == b"ecb",
            Some(vector) => is_vector(vector),
        };
        is_known.then_some(mode)
    }

    /// Whether the cipher has keys of that length; where it or its mode is unknown, whether any has. XTS needs two keys.
    fn has_sane_key(&self) -> bool {
        let keys: &[u32] = match self.mode() {
            None => &[1, 2],
            Some(b"xts") => &[2],
            Some(_) => &[1],
        };
        let lengths = self.cipher().unwrap_or(&[16, 24, 32]);
        keys.iter().any(|keys| lengths.iter().any(|length| length * keys == self.sizes.key_bytes))
    }

    /// The 32 bytes at `at` up to the null byte in them.
    fn ended(&self, at: u64) -> Option<&[u8]> {
        let text = self.text(at, 32);
        (text.len() < 32).then_some(text)
    }

    fn part(&self, at: u64, length: u64) -> Area {
        Area::new(self.area.offset.0.saturating_add(at), length)
    }
}

fn is_hash(name: &[u8]) -> bool {
    HASHES.contains(&name)
}

/// Whether that is a way of making initialization vectors: `plain64`, `essiv:sha256`.
fn is_vector(text: &[u8]) -> bool {
    let mut parts = text.splitn(2, |&byte| byte == b':');
    let (name, hash) = (parts.next(), parts.next());
    match name {
        // A hash that is not needed is ignored.
        Some(b"plain" | b"plain64") => hash.is_none_or(is_hash),
        Some(b"essiv") => hash.is_some_and(is_hash),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qcow2::crypto::{KEY_SLOT_ACTIVE, KEY_SLOT_INACTIVE, KEY_SLOTS};
    use proptest::prelude::*;

    /// Where the header is in the image, and the length of its area.
    const START: u64 = 512;
    const LENGTH: u64 = 4096 + 8 * (256 << 10);

    /// A header as QEMU makes it, with the first key slot in use.
    fn healthy() -> Vec<u8> {
        let mut bytes = vec![0; START as usize + 592];
        let mut put = |at: usize, new: &[u8]| bytes[512 + at..][..new.len()].copy_from_slice(new);
        put(0, b"LUKS\xba\xbe\0\x01");
        put(8, b"aes");
        put(40, b"xts-plain64");
        put(72, b"sha256");
        put(104, &4104u32.to_be_bytes());
        put(108, &64u32.to_be_bytes());
        put(164, &1000u32.to_be_bytes());
        for slot in 0..KEY_SLOTS as usize {
            let (state, iterations) =
                if slot == 0 { (KEY_SLOT_ACTIVE, 9u32) } else { (KEY_SLOT_INACTIVE, 0) };
            put(208 + slot * 48, &state.to_be_bytes());
            put(212 + slot * 48, &iterations.to_be_bytes());
            put(248 + slot * 48, &(8 + 512 * slot as u32).to_be_bytes());
            put(252 + slot * 48, &4000u32.to_be_bytes());
        }
        bytes
    }

    /// What is wrong with a header into which something is written: the codes, and where in the header.
    fn found(changes: &[(usize, &[u8])], length: u64) -> Vec<(&'static str, u64)> {
        let mut bytes = healthy();
        for (at, new) in changes {
            bytes[START as usize + at..][..new.len()].copy_from_slice(new);
        }
        let luks = Luks::parse(&bytes, Area::new(START, length)).unwrap();
        let problems = luks.problems().into_iter();
        problems.map(|problem| (problem.fault.code(), problem.place.offset.0 - START)).collect()
    }

    #[test]
    fn every_fault_is_found_where_it_is() {
        assert_eq!(found(&[], LENGTH), []);
        let slot3 = 208 + 3 * 48;
        let rows: &[(usize, &[u8], &str, u64)] = &[
            (0, b"XXXX", "luks-magic", 0),
            (5, b"\0", "luks-magic", 0),
            (6, b"\0\x02", "luks-version", 6),
            (8, &[b'a'; 32], "luks-cipher-name", 8),
            (8, b"aesx", "luks-cipher-name", 8),
            (40, &[b'x'; 32], "luks-cipher-mode", 40),
            (43, b"-plain63", "luks-cipher-mode", 40),
            (43, b"-essiv\0\0", "luks-cipher-mode", 40),
            (43, b"-essiv:sha3", "luks-cipher-mode", 40),
            (43, b"-plain:none", "luks-cipher-mode", 40),
            (72, &[b's'; 32], "luks-hash", 72),
            (72, b"sha257", "luks-hash", 72),
            (104, &4095u32.to_be_bytes(), "luks-payload-offset", 104),
            (104, &[0; 4], "luks-payload-offset", 104),
            (108, &[0xff; 4], "luks-key-bytes", 108),
            (108, &[0; 4], "luks-key-bytes", 108),
            (108, &[0, 0, 0, 16], "luks-key-bytes", 108),
            (164, &[0; 4], "luks-digest-iterations", 164),
            (slot3, &[0x12, 0x34, 0x56, 0x78], "luks-slot-state", slot3 as u64),
            (212, &[0; 4], "luks-slot-iterations", 212),
            (slot3 + 40, &[0xff; 4], "luks-slot-place", slot3 as u64 + 40),
            (slot3 + 40, &[0, 0, 0, 7], "luks-slot-place", slot3 as u64 + 40),
            (slot3 + 40, &[0, 0, 0, 9], "luks-slot-overlap", slot3 as u64 + 40),
            (slot3 + 44, &[0xff; 4], "luks-slot-stripes", slot3 as u64 + 44),
            (slot3 + 44, &3999u32.to_be_bytes(), "luks-slot-stripes", slot3 as u64 + 44),
        ];
        for (at, new, code, place) in rows {
            assert_eq!(found(&[(*at, new)], LENGTH), [(*code, *place)], "{at}: {new:02x?}");
        }
        let slot7 = 208 + 7 * 48 + 40;
        let cut = LENGTH - (256 << 10) + 255_999;
        assert_eq!(found(&[], cut + 1), []);
        assert_eq!(found(&[], cut), [("luks-slot-place", slot7)]);
        assert_eq!(found(&[], 591).first(), Some(&("luks-length", 0)));
    }

    #[test]
    fn what_is_known_is_sound() {
        for mode in ["ecb", "ecb-plain", "cbc-essiv:sha256", "ctr-plain64:sha1"] {
            assert_eq!(found(&[(40, &[0; 32]), (40, mode.as_bytes()), (111, &[32])], LENGTH), [], "{mode}");
        }
        for (cipher, key) in [("cast5", 16), ("sm4", 16), ("serpent", 24), ("twofish", 32)] {
            let changes: [(usize, &[u8]); 5] =
                [(8, &[0; 32]), (8, cipher.as_bytes()), (40, &[0; 32]), (40, b"cbc-plain"), (111, &[key])];
            assert_eq!(found(&changes, LENGTH), [], "{cipher}");
        }
    }

    /// What an unused slot says of iterations means nothing; two slots in a wrong place do not overlap as well.
    #[test]
    fn one_fault_is_one_problem() {
        assert_eq!(found(&[(260, &[0; 4])], LENGTH), []);
        let problems = found(&[(248, &[0xff; 4]), (296, &[0xff; 4])], LENGTH);
        assert_eq!(problems, [("luks-slot-place", 248), ("luks-slot-place", 296)]);
    }

    proptest! {
        #[test]
        fn any_bytes_have_problems(luks in proptest::collection::vec(any::<u8>(), 584), length: u64, start in 0..600u64) {
            let mut bytes = vec![0; start as usize];
            bytes.extend(b"LUKS\xba\xbe\0\x01");
            bytes.extend(luks);
            let area = Area::new(start, length);
            let problems = Luks::parse(&bytes, area).unwrap().problems();
            prop_assert!(!problems.is_empty() && problems.len() < 50);
            for problem in problems {
                prop_assert!(problem.place.offset.0 >= start && problem.place.end() <= start + 592);
                prop_assert!(!problem.field().is_empty() && !problem.to_string().is_empty());
            }
        }
    }
}
