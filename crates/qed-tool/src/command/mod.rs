//! One file per command.

mod check;
mod copy_metadata;
mod corrupt;
mod fragcheck;
mod header;
mod map;
mod need_check;
mod repair;
mod show;
mod zerocluster;

pub(crate) use show::Shown;

use std::path::Path;
use std::process::ExitCode;

use tool_support::image::Format;
use tool_support::{Failure, Outcome, number};
use vdisk_format::View;
use vdisk_format::qed::{self, Header, HeaderFields, check as checks, edit};
use vdisk_format::report::Report;

use crate::args::{Cli, Command, Output, What};

/// What the shared commands need to know of QED.
const FORMAT: Format = Format { fingerprint: qed::fingerprint, check: report };

fn report(image: &View<'_>) -> Report {
    checks::check(image).map(|check| check.report).unwrap_or_default()
}

/// Runs the command.
pub(crate) fn run(cli: Cli) -> Outcome<ExitCode> {
    let Cli { file, j, json, open, command } = cli;
    let (file, json) = (&*file, j || json);
    match command {
        Command::Check { output, force } => {
            return check::run(file, open, json || output == Some(Output::Json), force);
        }
        Command::Repair { commit, plan } => return repair::run(file, open, json, commit, &plan),
        Command::Show { what: What::Header, table: None } | Command::DumpHeader => {
            header::run(file, open, json)
        }
        Command::Show { what, table } => show::run(file, open, json, what, table.as_deref()),
        Command::Duplicate(args) => corrupt::run(file, open, json, &args, qed::corrupt::duplicate),
        Command::Invalidate(args) => corrupt::run(file, open, json, &args, qed::corrupt::invalidate),
        Command::NeedCheck { state, plan } => need_check::run(file, open, json, state, &plan),
        Command::Fragcheck => fragcheck::run(file, open, json),
        Command::ZeroCluster { pos, n, plan } => zerocluster::run(file, open, json, &pos, &n, &plan),
        Command::CopyMetadata { out, force } => copy_metadata::run(file, open, json, &out, force),
        Command::Map { output, force } => map::run(file, open, json, output, force),
        Command::SetHeader(args) => {
            let field = qed::header::known_fields().find(|field| field.name == args.name);
            args.run(FORMAT, open, json, file, field, edit::set_field)
        }
        Command::SetFeatureBit(args) => args.run(FORMAT, open, json, file, true, edit::set_feature_bit),
        Command::ClearFeatureBit(args) => args.run(FORMAT, open, json, file, false, edit::set_feature_bit),
        Command::Undo(args) => args.run(FORMAT, open, json, file),
        Command::Apply(args) => args.run(FORMAT, open, json, file),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Refuses what does not begin as a QED image: what tables of something else say means nothing.
fn expect_qed(path: &Path, image: &[u8]) -> Outcome {
    let HeaderFields { magic, .. } = Header::parse(image)?.fields;
    if magic == qed::header::MAGIC {
        return Ok(());
    }
    let (path, expected) = (path.display(), qed::header::MAGIC);
    let message =
        format!("{path}: magic at offset 0x0: expected {expected:#x}, found {magic:#x}: no QED image");
    Err(Failure::failed(message))
}

/// The same, for the commands that have an option to go on.
fn expect_qed_unless(force: bool, path: &Path, image: &[u8]) -> Outcome {
    if force {
        return Ok(());
    }
    expect_qed(path, image).map_err(|failure| failure.with_hint("to go on, use --force"))
}

/// A number on the command line.
fn number(name: &str, text: &str) -> Outcome<u64> {
    number::unsigned(text)
        .ok_or_else(|| Failure::usage(format!("{name}: expected a number of 64 bits, found '{text}'")))
}
