//! `show crypto`. Salts and digests only where they are asked for, key material never.

use std::io::{self, Write};

use serde::Serialize;
use tool_support::output::Lossy;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::bytes::Hex;
use vdisk_format::qcow2::Area;
use vdisk_format::qcow2::crypto::{Encryption, KeySlot, Luks};
use vdisk_format::units::HostOffset;

use super::Show;
use super::rows::{Head, Row};

#[derive(Serialize)]
struct Crypto<'a> {
    crypt_method: u32,
    method: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    luks: Option<Header<'a>>,
}

#[derive(Serialize)]
struct Header<'a> {
    area: Area,
    /// Whether nothing is wrong with it.
    valid: bool,
    /// What is, a sentence each.
    problems: Vec<String>,
    version: u16,
    cipher_name: Lossy<'a>,
    cipher_mode: Lossy<'a>,
    hash: Lossy<'a>,
    uuid: Lossy<'a>,
    key_bytes: u32,
    payload_offset_sectors: u32,
    mk_digest_iterations: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    mk_digest: Option<Hex<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mk_digest_salt: Option<Hex<'a>>,
}

#[derive(Serialize)]
struct Slot<'a> {
    index: u64,
    offset: HostOffset,
    /// None where it says neither that it is nor that it is not.
    active: Option<bool>,
    iterations: u32,
    stripes: u32,
    key_material: Area,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<Hex<'a>>,
    past_end: bool,
}

pub(super) fn run(show: &Show<'_, '_>) -> Outcome {
    let header = show.tables.header();
    let (method, luks) = match Encryption::of(header) {
        Encryption::None => ("none", None),
        Encryption::Aes => ("aes", None),
        Encryption::Luks(luks) => {
            ("luks", Some(luks.map_err(|error| Failure::from(error).about(show.path))?))
        }
        _ => ("unknown", None),
    };
    let head = Crypto {
        crypt_method: header.v2.crypt_method,
        method,
        luks: luks.as_ref().map(|luks| Header::new(luks, show.all)),
    };
    let length = show.tables.geometry().file_length();
    let slots = luks.iter().flat_map(Luks::key_slots);
    show.print(&head, slots.map(|slot| Slot::new(&slot, show.all, length)))
}

impl<'a> Header<'a> {
    fn new(luks: &Luks<'a>, all: bool) -> Self {
        let problems: Vec<String> =
            luks.problems().iter().map(|problem| format!("{}: {problem}", problem.field())).collect();
        Self {
            area: luks.area,
            valid: problems.is_empty(),
            problems,
            version: luks.start.version,
            cipher_name: Lossy(luks.cipher_name()),
            cipher_mode: Lossy(luks.cipher_mode()),
            hash: Lossy(luks.hash_spec()),
            uuid: Lossy(luks.uuid()),
            key_bytes: luks.sizes.key_bytes,
            payload_offset_sectors: luks.sizes.payload_offset,
            mk_digest_iterations: luks.digest.mk_digest_iterations,
            mk_digest: all.then(|| Hex(luks.mk_digest())),
            mk_digest_salt: all.then(|| Hex(luks.mk_digest_salt())),
        }
    }
}

impl<'a> Slot<'a> {
    fn new(slot: &KeySlot<'a>, all: bool, file_length: u64) -> Self {
        Self {
            index: slot.index,
            offset: slot.offset,
            active: slot.is_active(),
            iterations: slot.start.iterations,
            stripes: slot.end.stripes,
            key_material: slot.key_material,
            salt: all.then_some(Hex(slot.salt)),
            past_end: slot.key_material.end() > file_length,
        }
    }
}

impl Head for Crypto<'_> {
    const ROWS: &'static str = "key_slots";

    fn text(&self, out: &mut Out) -> io::Result<()> {
        match (self.crypt_method, &self.luks) {
            (0, _) => writeln!(out, "The image is not encrypted"),
            (1, _) => {
                writeln!(out, "Encrypted with AES (crypt_method 1): nothing in the image belongs to it")
            }
            (method, None) => writeln!(out, "Encrypted in an unknown way: crypt_method {method}"),
            (_, Some(luks)) => luks.text(out),
        }
    }
}

impl Header<'_> {
    fn text(&self, out: &mut Out) -> io::Result<()> {
        let Self { area, version, .. } = self;
        write!(out, "LUKS header at {}, {} bytes with the key material", area.offset, area.length)?;
        writeln!(out, ", version {version}")?;
        for problem in &self.problems {
            writeln!(out, "  wrong: {problem}")?;
        }
        for (name, text) in [
            ("cipher", self.cipher_name),
            ("mode", self.cipher_mode),
            ("hash", self.hash),
            ("UUID", self.uuid),
        ] {
            write!(out, "  {name:<22} ")?;
            out.name(text.0)?;
            writeln!(out)?;
        }
        writeln!(out, "  {:<22} {}", "key bytes", self.key_bytes)?;
        writeln!(
            out,
            "  {:<22} {} sectors (without meaning in qcow2)",
            "payload offset", self.payload_offset_sectors
        )?;
        writeln!(out, "  {:<22} {}", "digest iterations", self.mk_digest_iterations)?;
        for (name, hex) in [("digest", &self.mk_digest), ("digest salt", &self.mk_digest_salt)] {
            if let Some(hex) = hex {
                writeln!(out, "  {name:<22} {hex}")?;
            }
        }
        Ok(())
    }
}

impl Row for Slot<'_> {
    fn text(&self, out: &mut Out) -> io::Result<()> {
        let state = match self.active {
            Some(true) => "active",
            Some(false) => "inactive",
            None => "neither active nor inactive",
        };
        let material = self.key_material;
        write!(out, "key slot {} at {}: {state}", self.index, self.offset)?;
        write!(out, ", {} iterations, {} stripes", self.iterations, self.stripes)?;
        write!(out, ", key material {}-{:#x}", material.offset, material.end())?;
        self.salt.as_ref().map_or(Ok(()), |salt| write!(out, ", salt {salt}"))?;
        writeln!(out, "{}", if self.past_end { "  wrong: past the end of the file" } else { "" })
    }
}
