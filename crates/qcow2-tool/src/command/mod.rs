//! One file per command.

mod dump;
mod extension;
mod scrub;

use tool_support::Outcome;
use tool_support::image::Format;
use vdisk_format::View;
use vdisk_format::qcow2::{self, edit, header::known_fields};
use vdisk_format::report::Report;

use crate::args::{Cli, Command};
use crate::original::spec_name;

/// What the shared commands need to know of qcow2.
const FORMAT: Format = Format { fingerprint: qcow2::fingerprint, check };

fn check(image: &View<'_>) -> Report {
    qcow2::Header::parse(image.bytes()).map(|header| qcow2::check::header(&header)).unwrap_or_default()
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Outcome {
    let Cli { file, j, json, open, command } = cli;
    let form = dump::Form::new(j, json);
    let json = j || json;
    match command {
        Command::DumpHeader => dump::header(&file, open, form),
        Command::DumpHeaderExts => dump::extensions(&file, open, form),
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
        Command::Scrub(args) => scrub::run(&file, open, json, &args),
        Command::Undo(args) => args.run(FORMAT, open, json, &file),
        Command::Apply(args) => args.run(FORMAT, open, json, &file),
    }
}
