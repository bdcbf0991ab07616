//! `check`.

mod advice;

use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;

use tool_support::image::{Checked, OpenArgs, print_check, with_progress};
use tool_support::{Failure, Outcome};
use vdisk_format::check::Check;
use vdisk_format::error::Result;
use vdisk_format::qcow2::read::{Chain, ChainImage, Format, open_chain_partly};
use vdisk_format::qcow2::{self, check::Options};
use vdisk_format::{Image, qed};

use super::lookup::expect_qcow2_unless;
use crate::args::{CheckArgs, Output};

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, args: &CheckArgs) -> Outcome<ExitCode> {
    let image = open.read(path)?;
    expect_qcow2_unless(args.force, path, image.bytes())?;
    let json = json || args.output == Some(Output::Json);
    let mut check = qcow2(&image, args)?;
    let (chain, mut chain_error) = if args.chain { followed(path) } else { (None, None) };
    let mut behind = Vec::new();
    for (number, image) in chain.iter().flat_map(Chain::images).enumerate() {
        if number == 0 {
            data_file(image, &mut check);
            continue;
        }
        match behind_it(image, args) {
            Ok(check) => behind.extend(check.map(|check| (image, check))),
            Err(error) => chain_error = chain_error.or(Some(Failure::from(error).about(&image.path))),
        }
    }
    let behind: Vec<_> =
        behind.iter().map(|(image, check)| checked(&image.path, image.format, &image.image, check)).collect();
    let image = checked(path, Format::Qcow2, &image, &check);
    let status = print_check(image, &behind, chain_error.as_ref(), json)?;
    chain_error.map(Failure::report);
    Ok(status)
}

fn checked<'c>(path: &'c Path, format: Format, image: &Image, check: &'c Check) -> Checked<'c> {
    let header = || qcow2::Header::parse(image.bytes()).ok();
    let next = if format == Format::Qed { advice::QED } else { advice::qcow2(check, header().as_ref()) };
    Checked { path, format: format.name(), check, next }
}

/// The images of the chain that can be opened, and why not all can: the image itself has been checked all the same.
fn followed(path: &Path) -> (Option<Chain>, Option<Failure>) {
    match open_chain_partly(path) {
        Ok((chain, error)) => (Some(chain), error.map(Failure::from)),
        Err(error) => (None, Some(error.into())),
    }
}

fn qcow2(image: &Image, args: &CheckArgs) -> Result<Check> {
    let mut options = Options::default();
    if args.deep {
        let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
        options.decode = args.threads.map_or_else(processors, NonZero::get);
    }
    with_progress("checking", image, |view| qcow2::check::check_with(view, options))
}

/// The check of an image of the chain; `None` of a raw one, in which nothing can be wrong.
fn behind_it(image: &ChainImage, args: &CheckArgs) -> Result<Option<Check>> {
    Ok(match image.format {
        Format::Qcow2 => {
            let mut check = qcow2(&image.image, args)?;
            data_file(image, &mut check);
            Some(check)
        }
        Format::Qed => Some(with_progress("checking", &image.image, |view| qed::check::check(view))?),
        _ => None,
    })
}

/// Whether the external data file has what the tables say is in it.
fn data_file(image: &ChainImage, check: &mut Check) {
    if let Some((path, data)) = &image.data_file {
        check.compare_data_file(path, data.bytes().len() as u64);
    }
}
