//! The LUKS header, and the key material behind it. No salt, digest or key material is part of an explanation.

use super::{Part, Subject};
use crate::qcow2::crypto::{KeySlot, Luks};
use crate::qcow2::geometry::Area;
use crate::qcow2::tables::Tables;

const NAME: &str = "LUKS header";
const SLOT: &str = "LUKS key slot";
/// Bytes of a key slot.
const SLOT_SIZE: u64 = 48;

/// The texts of the header: name, offset and length.
const TEXTS: [(&str, u64, u64); 4] =
    [("cipher name", 8, 32), ("cipher mode", 40, 32), ("hash", 72, 32), ("UUID", 168, 40)];
/// What is not shown.
const SECRETS: [(&str, u64, u64); 2] =
    [("master key digest", 112, 20), ("salt of the master key digest", 132, 32)];

pub(super) fn part(tables: &Tables<'_>, area: Area, offset: u64) -> Part {
    let image = tables.view().bytes();
    let Ok(luks) = Luks::parse(image, area) else { return super::tables::cut(area, NAME) };
    let mut part = what(&luks, image, offset);
    let (start, end) = (part.place.offset.0, part.place.end());
    let problems = luks.problems().into_iter();
    let here = problems.filter(|problem| problem.place.offset.0 < end && start < problem.place.end());
    part.problems.extend(here.map(|problem| problem.to_string()));
    part
}

fn what(luks: &Luks<'_>, image: &[u8], offset: u64) -> Part {
    let start = luks.area.offset.0;
    let fields = luks.start.fields().chain(luks.sizes.fields()).chain(luks.digest.fields());
    if let Some(part) = Part::field(NAME, fields, start, offset) {
        return part;
    }
    for (name, at, length) in TEXTS {
        if let Some(mut part) = Part::text(image, NAME, name, (start + at, length), offset) {
            if let Subject::Text { text, .. } = &mut part.subject {
                let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
                text.truncate(end);
            }
            return part;
        }
    }
    for (name, at, length) in SECRETS {
        if (start + at..start + at + length).contains(&offset) {
            return secret(NAME, name.to_owned(), Area::new(start + at, length));
        }
    }
    let slot = luks.key_slots().find_map(|slot| key_slot(&slot, offset));
    slot.unwrap_or_else(|| Part::unused(offset, offset + 1, "LUKS header: no field, and no key material"))
}

fn key_slot(slot: &KeySlot<'_>, offset: u64) -> Option<Part> {
    let (start, index) = (slot.offset.0, slot.index);
    if (start..start + SLOT_SIZE).contains(&offset) {
        let fields = slot.start.fields().chain(slot.end.fields());
        let part = Part::field(SLOT, fields, start, offset);
        return part
            .or_else(|| Some(secret(SLOT, format!("salt of key slot {index}"), Area::new(start + 8, 32))));
    }
    let material = slot.key_material;
    let is_here = (material.offset.0..material.end()).contains(&offset);
    is_here.then(|| secret(SLOT, format!("key material of key slot {index}"), material))
}

fn secret(structure: &'static str, name: String, place: Area) -> Part {
    Part::new(place, Subject::Secret { structure, name })
}
