//! One file per command.

mod check;
mod dump;
mod explain;
mod extension;
mod fragcheck;
mod lookup;
mod map;
mod owner;
mod scrub;
mod show;

use std::process::ExitCode;

use tool_support::image::Format;
use tool_support::{Failure, Outcome, number};
use vdisk_format::View;
use vdisk_format::qcow2::{self, edit, header::known_fields};
use vdisk_format::report::Report;
use vdisk_format::units::HostOffset;

use crate::args::{Cli, Command};
use crate::original::spec_name;

/// What the shared commands need to know of qcow2.
const FORMAT: Format = Format { fingerprint: qcow2::fingerprint, check };

fn check(image: &View<'_>) -> Report {
    qcow2::Header::parse(image.bytes()).map(|header| qcow2::check::header(&header)).unwrap_or_default()
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Outcome<ExitCode> {
    let Cli { file, j, json, open, command } = cli;
    let form = dump::Form::new(j, json);
    let json = j || json;
    match command {
        Command::Check(args) => return check::run(&file, open, json, &args),
        Command::DumpHeader => dump::header(&file, open, form),
        Command::DumpHeaderExts => dump::extensions(&file, open, form),
        Command::Map(args) => map::run(&file, open, json, &args),
        Command::Fragcheck { snapshot, force } => {
            fragcheck::run(&file, open, json, snapshot.as_deref(), force)
        }
        Command::SetHeader(args) => {
            let field = known_fields().find(|field| field.name == spec_name(&args.name));
            args.run(FORMAT, open, json, &file, field, edit::set_field)
        }
        Command::AddHeaderExt { magic, data, plan } => {
            let make = extension::add(&magic, data.into_encoded_bytes())?;
            plan.run(FORMAT, open, json, &file, make)
        }
        Command::AddHeaderExtStdio { magic, plan } => {
            let make = extension::add_stdin(&magic)?;
            plan.run(FORMAT, open, json, &file, make)
        }
        Command::DelHeaderExt { magic, plan } => {
            let make = extension::delete(&magic)?;
            plan.run(FORMAT, open, json, &file, make)
        }
        Command::SetFeatureBit(args) => args.run(FORMAT, open, json, &file, true, edit::set_feature_bit),
        Command::ClearFeatureBit(args) => args.run(FORMAT, open, json, &file, false, edit::set_feature_bit),
        Command::Show(args) => show::run(&file, open, form, &args),
        Command::Owner { offset, force } => owner::run(&file, open, json, self::offset(&offset)?, force),
        Command::Explain { offset, force } => explain::run(&file, open, json, self::offset(&offset)?, force),
        Command::Scrub(args) => scrub::run(&file, open, json, &args),
        Command::Undo(args) => args.run(FORMAT, open, json, &file),
        Command::Apply(args) => args.run(FORMAT, open, json, &file),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// A number on the command line.
fn number(name: &str, text: &str) -> Outcome<u64> {
    number::unsigned(text)
        .ok_or_else(|| Failure::usage(format!("{name}: expected a number of 64 bits, found '{text}'")))
}

/// An offset on the command line.
fn offset(text: &str) -> Outcome<HostOffset> {
    let expected = "bytes, such as 65536, 0x10000 or 64k";
    let offset = number::bytes(text).map(HostOffset);
    offset.ok_or_else(|| Failure::usage(format!("offset: expected {expected}, found '{text}'")))
}
