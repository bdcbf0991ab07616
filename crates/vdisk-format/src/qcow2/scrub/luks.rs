//! The LUKS header: what is public of it.

use super::Structure;
use super::records::Records;
use crate::bytes::clipped;
use crate::qcow2::crypto::{
    KEY_SLOT_ACTIVE, KEY_SLOT_INACTIVE, KeySlotStart, Luks, LuksFault, LuksSizes, LuksStart,
};
use crate::qcow2::geometry::Area;

/// No cipher has a longer key, in bytes.
const MAX_KEY_BYTES: u32 = 512;
/// More stripes than anybody splits a key into.
const MAX_STRIPES: u32 = 1 << 16;
/// Names, and what a check says of one that is none of those that there are: no other word is copied.
const NAMES: [(u64, LuksFault); 3] =
    [(8, LuksFault::CipherName), (40, LuksFault::CipherMode), (72, LuksFault::Hash)];
const UUID_AT: u64 = 168;
const DIGEST_ITERATIONS_AT: u64 = 164;

impl Records<'_> {
    /// Copies sizes, offsets, names, iterations and which slots are in use. Digest, salts and key material are what an attack
    /// on the passphrase needs: they are not copied. Neither is anything where there is no LUKS header.
    pub(super) fn luks(&mut self, image: &[u8], area: Area) {
        let Ok(luks) = Luks::parse(image, area) else { return };
        self.redacted.blanked += 1;
        let problems = luks.problems();
        let is_wrong = |slot: Option<u64>, fault: LuksFault| {
            problems.iter().any(|problem| problem.slot == slot && problem.fault == fault)
        };
        if is_wrong(None, LuksFault::Magic) {
            return;
        }
        let start = area.offset.0;
        let mut put =
            |at: u64, bytes: &[u8]| self.fixed.put(start.saturating_add(at), bytes, Structure::LuksHeader);
        if is_wrong(None, LuksFault::Version) {
            put(0, &LuksStart { version: u16::MAX, ..luks.start }.to_bytes());
            return;
        }
        put(0, &luks.start.to_bytes());
        for (at, fault) in NAMES {
            // With the null byte that ends it, for what lies over it may put something else there.
            let name = clipped(image, start + at, 32).split_inclusive(|&byte| byte == 0).next();
            let name = name.unwrap_or_default();
            if !is_wrong(None, fault) {
                put(at, name);
            }
        }
        let in_file = |sectors: u32| u64::from(sectors) * 512 <= image.len() as u64;
        let or_wrong = |value: u32, is_right: bool| if is_right { value } else { u32::MAX };
        let LuksSizes { payload_offset, key_bytes } = luks.sizes;
        let sizes = LuksSizes {
            payload_offset: or_wrong(payload_offset, in_file(payload_offset)),
            key_bytes: or_wrong(key_bytes, key_bytes <= MAX_KEY_BYTES),
        };
        put(104, &sizes.to_bytes());
        put(DIGEST_ITERATIONS_AT, &luks.digest.mk_digest_iterations.to_be_bytes());
        for slot in luks.key_slots() {
            let at = slot.offset.0.saturating_sub(start);
            let KeySlotStart { active, iterations } = slot.start;
            let is_state = matches!(active, KEY_SLOT_ACTIVE | KEY_SLOT_INACTIVE);
            let is_outside = is_wrong(Some(slot.index), LuksFault::SlotOutside);
            let is_in_header = is_wrong(Some(slot.index), LuksFault::SlotInHeader);
            let state = KeySlotStart {
                active: if is_state { active } else { 0 },
                iterations: if is_state && !is_outside && !is_in_header { iterations } else { 0 },
            };
            put(at, &state.to_bytes());
            let (offset, stripes) = (slot.end.key_material_offset, slot.end.stripes);
            let offset = if is_in_header { 0 } else { or_wrong(offset, !is_outside) };
            put(at + 40, &offset.to_be_bytes());
            put(at + 44, &or_wrong(stripes, stripes <= MAX_STRIPES).to_be_bytes());
        }
        // Not secret, but it tells which volume this is.
        let uuid = luks.uuid().len() as u64;
        self.fixed.fill(start + UUID_AT, uuid, Structure::LuksHeader);
    }
}
