//! The command line: `qcow2 FILE COMMAND [ARGS]`, file first, `-j` anywhere.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tool_support::image::{ApplyArgs, FeatureBitArgs, OpenArgs, PlanArgs, SetHeaderArgs, UndoArgs};
use tool_support::status::EXIT_STATUS_HELP;

const EXAMPLES: &str = "\
Examples:
  qcow2 disk.qcow2 dump-header
  qcow2 disk.qcow2 dump-header --json | jq .header.cluster_bits
  qcow2 disk.qcow2 set-feature-bit compatible 0 --dry-run
  qcow2 disk.qcow2 del-header-ext 0x23852875
  qcow2 disk.qcow2 undo";

/// Look at and edit qcow2 headers, header extensions and feature bits: what qemu-img won't do
///
/// Every change is a plan of byte-range writes: --dry-run shows it, --save-plan keeps it for `apply`, and `undo` takes
/// it back. Numbers are written as in Python: 0x10, 0o20, 0b10000, 16.
#[derive(Debug, Parser)]
#[command(name = "qcow2", version, after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS_HELP}"))]
#[command(arg_required_else_help = true, disable_help_subcommand = true, args_override_self = true)]
pub struct Cli {
    /// The image: a file or a block device
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// JSON as qcow2.py prints it: two documents for dump-header. For other commands the same as --json
    #[arg(short = 'j', global = true)]
    pub j: bool,

    /// JSON as one document, with a "schema" number and every field
    #[arg(long, global = true)]
    pub json: bool,

    /// About locks
    #[command(flatten)]
    pub open: OpenArgs,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with the image.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Dump the header and the header extensions
    #[command(after_help = EXIT_STATUS_HELP)]
    DumpHeader,
    /// Dump the header extensions
    #[command(after_help = EXIT_STATUS_HELP)]
    DumpHeaderExts,
    /// Set a field in the header: its bytes, and nothing else
    #[command(after_help = EXIT_STATUS_HELP)]
    #[command(mut_arg("name", |arg| arg.help("The field, by its name in `dump-header`; also compression_type")))]
    SetHeader(SetHeaderArgs),
    /// Add a header extension behind the others
    #[command(after_help = EXIT_STATUS_HELP)]
    AddHeaderExt {
        /// The extension's type, such as 0x12345678
        #[arg(allow_hyphen_values = true)]
        magic: String,
        /// Its data
        #[arg(allow_hyphen_values = true)]
        data: OsString,
        /// The options of every change
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Add a header extension, data from standard input
    #[command(after_help = EXIT_STATUS_HELP)]
    AddHeaderExtStdio {
        /// The extension's type, such as 0x12345678
        #[arg(allow_hyphen_values = true)]
        magic: String,
        /// The options of every change
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Delete every header extension of a type
    ///
    /// Deleting the bitmaps extension (0x23852875) also clears autoclear feature bit 0, without which no image without
    /// bitmaps opens.
    #[command(after_help = EXIT_STATUS_HELP)]
    DelHeaderExt {
        /// The extension's type, such as 0x12345678
        #[arg(allow_hyphen_values = true)]
        magic: String,
        /// The options of every change
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Set a feature bit
    #[command(after_help = EXIT_STATUS_HELP)]
    SetFeatureBit(FeatureBitArgs),
    /// Clear a feature bit
    #[command(after_help = EXIT_STATUS_HELP)]
    ClearFeatureBit(FeatureBitArgs),
    /// Copy the metadata to a new file, and no byte of what the guest stored: for bug reports
    ///
    /// The copy is as long as the image, with holes where there is no metadata, and `check` finds the same in it: the same
    /// codes in the same places, as often. Names are replaced by others of the same length. Data, VM states, keys, salts and
    /// digests, bitmap data and whatever lies between structures are left out. What was written is read again, and every
    /// byte of it accounted for.
    #[command(visible_alias = "copy-metadata", after_help = EXIT_STATUS_HELP)]
    Scrub(ScrubArgs),
    /// Take back the last change, or list what can be taken back
    ///
    /// Records are beside the image (disk.qcow2.undo-1, …), in --undo-dir or $VDISK_UNDO_DIR, or, for devices and in
    /// folders that cannot be written, in $XDG_STATE_HOME/vdisk-tools/undo. Without --force, a record applies only to
    /// an image that nothing has used since.
    #[command(after_help = EXIT_STATUS_HELP)]
    Undo(UndoArgs),
    /// Commit a plan saved by --save-plan, or complete it after a crash
    #[command(after_help = EXIT_STATUS_HELP)]
    Apply(ApplyArgs),
}

/// What `scrub` copies, and where to.
#[derive(Debug, clap::Args)]
pub struct ScrubArgs {
    /// The file to write
    #[arg(value_name = "OUT")]
    pub out: PathBuf,
    /// Keep the names of backing file, data file, snapshots and bitmaps
    #[arg(long)]
    pub keep_names: bool,
    /// Keep the bitmaps' data, which say where the guest wrote
    #[arg(long)]
    pub keep_bitmap_data: bool,
    /// Replace a file OUT that exists, and copy even though FILE does not begin as a qcow2 image: its first 104 bytes are then
    /// copied whatever they are
    #[arg(long)]
    pub force: bool,
}

/// The names of all commands, for [`tool_support::argv`].
pub(crate) const COMMANDS: [&str; 12] = [
    "dump-header",
    "dump-header-exts",
    "set-header",
    "add-header-ext",
    "add-header-ext-stdio",
    "del-header-ext",
    "set-feature-bit",
    "clear-feature-bit",
    "scrub",
    "copy-metadata",
    "undo",
    "apply",
];

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::CommandFactory;
    use tool_support::argv::normalized;

    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        let argv = [&["qcow2"], line].concat().into_iter().map(OsString::from).collect();
        Cli::try_parse_from(normalized(argv, &COMMANDS))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        let command = Cli::command();
        let names = command
            .get_subcommands()
            .flat_map(|command| std::iter::once(command.get_name()).chain(command.get_all_aliases()));
        assert!(names.eq(COMMANDS));
    }

    #[test]
    fn j_is_taken_anywhere() {
        for line in [
            &["-j", "f", "dump-header"][..],
            &["f", "-j", "dump-header"],
            &["f", "dump-header", "-j"],
            &["f", "add-header-ext", "-j", "1", "x"],
            &["f", "add-header-ext", "1", "-j", "x"],
            &["f", "add-header-ext", "1", "x", "-j"],
        ] {
            assert!(parse(line).unwrap().j, "{line:?}");
        }
    }

    #[test]
    fn options_work_on_either_side_of_arguments_that_may_begin_with_a_hyphen() {
        for line in [
            &["f", "add-header-ext", "--dry-run", "1", "-x"][..],
            &["f", "add-header-ext", "1", "-x", "--dry-run"],
            &["f", "add-header-ext", "1", "--dry-run", "-x"],
        ] {
            let Command::AddHeaderExt { magic, data, plan } = parse(line).unwrap().command else { panic!() };
            assert_eq!(
                (magic.as_str(), data.as_os_str(), plan.dry_run),
                ("1", OsStr::new("-x"), true),
                "{line:?}"
            );
        }
        let Command::SetHeader(args) = parse(&["f", "set-header", "size", "-5"]).unwrap().command else {
            panic!()
        };
        assert_eq!(args.value, "-5");
    }

    #[test]
    fn a_file_may_be_named_like_a_command() {
        assert_eq!(parse(&["undo", "undo"]).unwrap().file, PathBuf::from("./undo"));
        assert!(parse(&["undo"]).is_err());
    }
}
