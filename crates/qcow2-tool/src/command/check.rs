//! `check`.

use std::num::NonZero;
use std::path::Path;
use std::process::ExitCode;

use tool_support::image::{OpenArgs, print_check, with_progress};
use tool_support::{Failure, Outcome};
use vdisk_format::qcow2::{self, Header, check::Options, header::MAGIC};

use crate::args::{CheckArgs, Output};

const NEXT: &str =
    "work on a copy; `qemu-img check -r all` repairs refcounts, and may lose data where tables are damaged";

pub(super) fn run(path: &Path, open: OpenArgs, json: bool, args: &CheckArgs) -> Outcome<ExitCode> {
    let image = open.read(path)?;
    let magic = Header::parse(image.bytes())?.v2.magic;
    if magic != MAGIC && !args.force {
        let path = path.display();
        let found = format!("magic at offset 0x0: expected {MAGIC:#x}, found {magic:#x}");
        return Err(Failure::failed(format!(
            "{path}: {found}: no qcow2 image (--force checks it all the same)"
        )));
    }
    let mut options = Options::default();
    if args.deep {
        let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
        options.decode = args.threads.map_or_else(processors, NonZero::get);
    }
    let check = with_progress("checking", &image, |view| qcow2::check::check_with(view, options))?;
    print_check(path, "qcow2", json || args.output == Some(Output::Json), &check, NEXT)
}
