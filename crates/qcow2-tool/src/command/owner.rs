//! `owner`: who claims a byte of the file.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use tool_support::image::OpenArgs;
use tool_support::output::Lossy;
use tool_support::{Failure, Out, Outcome};
use vdisk_format::View;
use vdisk_format::qcow2::claims::{Claim, L1Place, L1Places, Owner};
use vdisk_format::qcow2::explain::{Owners, SharedTable, State, owners};
use vdisk_format::qcow2::{Content, Tables};
use vdisk_format::units::HostOffset;

use super::lookup::expect_qcow2_unless;

#[derive(Serialize)]
struct Document<'d> {
    schema: u32,
    image: String,
    #[serde(flatten)]
    owners: &'d Owners,
    /// The snapshots that the claims name by their place.
    snapshots: Vec<Named<'d>>,
    /// The name of the external data file, where the image has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_file: Option<Lossy<'d>>,
}

#[derive(Serialize)]
struct Named<'d> {
    index: u32,
    id: Lossy<'d>,
    name: Lossy<'d>,
}

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, offset: HostOffset, force: bool) -> Outcome {
    let image = open.read(path)?;
    expect_qcow2_unless(force, path, image.bytes())?;
    let tables = Tables::new(View::from(&image)).map_err(|error| Failure::from(error).about(path))?;
    let owners = owners(&tables, offset);
    let document = Document {
        schema: 1,
        image: path.display().to_string(),
        owners: &owners,
        snapshots: snapshots(&tables, &owners),
        data_file: data_file(&tables),
    };
    let mut out = Out::stdout();
    if json {
        out.json(&document)?;
    } else {
        document.text(&mut out, &tables)?;
    }
    Ok(out.finish()?)
}

/// Those that a claim names.
fn snapshots<'a>(tables: &Tables<'a>, owners: &Owners) -> Vec<Named<'a>> {
    let claims = owners.claims.iter().chain(&owners.neighbours);
    let shared = owners.shared_tables.iter().flat_map(|shared| &shared.named_by);
    let mut indices: Vec<u32> = claims
        .filter_map(|claim| snapshot(&claim.owner))
        .chain(shared.filter_map(|place| place.snapshot))
        .collect();
    indices.sort_unstable();
    let named = tables.snapshots().map_while(Result::ok);
    let named = named.filter(|snapshot| indices.binary_search(&snapshot.index).is_ok());
    named.map(|found| Named { index: found.index, id: Lossy(found.id), name: Lossy(found.name) }).collect()
}

fn snapshot(owner: &Owner) -> Option<u32> {
    match owner {
        Owner::L1Table { snapshot }
        | Owner::L2Table { l1_entries: L1Places { first: L1Place { snapshot, .. }, .. } }
        | Owner::Data { l1_entries: L1Places { first: L1Place { snapshot, .. }, .. }, .. }
        | Owner::Compressed { l1_entries: L1Places { first: L1Place { snapshot, .. }, .. }, .. } => *snapshot,
        _ => None,
    }
}

/// The external data file's name: empty where the header has none.
fn data_file<'a>(tables: &Tables<'a>) -> Option<Lossy<'a>> {
    let mut names =
        tables.header().extensions().map_while(Result::ok).filter_map(|extension| {
            match extension.content() {
                Ok(Content::DataFile(name)) => Some(name),
                _ => None,
            }
        });
    tables.geometry().data_file().then(|| Lossy(names.next().unwrap_or_default()))
}

impl Document<'_> {
    fn text(&self, out: &mut Out, tables: &Tables<'_>) -> io::Result<()> {
        let owners = self.owners;
        let Owners { offset, cluster, .. } = owners;
        writeln!(out, "{offset}, in cluster {cluster}: {}", verdict(owners))?;
        owners.claims.iter().try_for_each(|claim| self.claim(out, claim))?;
        if !owners.neighbours.is_empty() {
            writeln!(out, "in the same cluster:")?;
            owners.neighbours.iter().try_for_each(|claim| self.claim(out, claim))?;
        }
        for SharedTable { table, named_by, omitted, .. } in &owners.shared_tables {
            let places: Vec<String> = named_by.iter().map(L1Place::to_string).collect();
            let more = if *omitted > 0 { format!(" and {omitted} more") } else { String::new() };
            writeln!(out, "L2 table {table} is shared by {}{more}", places.join(", "))?;
        }
        if owners.omitted > 0 {
            writeln!(out, "  … and {} claims more", owners.omitted)?;
        }
        for named in &self.snapshots {
            write!(out, "snapshot {}: ID ", named.index)?;
            out.name(named.id.0)?;
            out.write_all(b", name '")?;
            out.name(named.name.0)?;
            out.write_all(b"'\n")?;
        }
        if !owners.in_file {
            writeln!(out, "the file ends at {:#x}", tables.geometry().file_length())?;
        }
        if let Some(Lossy(name)) = self.data_file {
            out.write_all(b"data of the disk are in the external data file '")?;
            out.name(name)?;
            writeln!(out, "', at {offset} of which there is:")?;
            for claim in &owners.external {
                writeln!(out, "  {claim}")?;
            }
            if owners.external.is_empty() {
                writeln!(out, "  nothing of the disk")?;
            }
        }
        Ok(())
    }

    fn claim(&self, out: &mut Out, claim: &Claim) -> io::Result<()> {
        write!(out, "  {claim}")?;
        if let (Owner::L2Table { .. }, Some(guest)) = (claim.owner, &claim.guest) {
            write!(out, ", disk {:#x}-{:#x}", guest.start, guest.end)?;
        }
        write!(out, "; bytes {}-{:#x}", claim.area.offset, claim.area.end())?;
        writeln!(out)
    }
}

/// The answer in one line.
pub(super) fn verdict(owners: &Owners) -> String {
    let here = owners.claims.len() as u64 + owners.omitted;
    let who = match (here, owners.neighbours.len()) {
        (0, 0) => "nobody".to_owned(),
        (0, _) => "nobody, but others have parts of the cluster".to_owned(),
        (1, _) => "one owner".to_owned(),
        (count, _) => format!("{count} claims"),
    };
    let references = match owners.references {
        1 => "1 reference".to_owned(),
        count => format!("{count} references"),
    };
    let refcount = owners.refcount.map_or("unreadable".to_owned(), |refcount| refcount.to_string());
    let state = match owners.state {
        State::Free => "free",
        State::Leaked => "a leak",
        State::Used => "as it should be",
        State::RefcountTooHigh => "too high: a leak",
        State::RefcountTooLow => "too low: a corruption",
        State::PastEnd => "past the end of the file",
        _ => "nobody can tell whether that is right",
    };
    format!("{who}, refcount {refcount}, {references}: {state}")
}
