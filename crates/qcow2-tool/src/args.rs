//! The command line: `qcow2 FILE COMMAND [ARGS]`, file first, `-j` anywhere.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tool_support::image::{ApplyArgs, FeatureBitArgs, OpenArgs, PlanArgs, SetHeaderArgs, UndoArgs};
use tool_support::status::EXIT_STATUS_HELP;

const EXAMPLES: &str = "\
Examples:
  qcow2 disk.qcow2 dump-header
  qcow2 disk.qcow2 dump-header --json | jq .header.cluster_bits
  qcow2 disk.qcow2 check
  qcow2 disk.qcow2 set-feature-bit compatible 0 --dry-run
  qcow2 disk.qcow2 del-header-ext 0x23852875
  qcow2 disk.qcow2 show l2 l1:0
  qcow2 disk.qcow2 explain 0x30008
  qcow2 disk.qcow2 undo";

const CHECK_STATUS_HELP: &str = "\
Exit status:
  0   the image is clean
  1   it cannot be read, or is no qcow2 image; or no corruption was found, and --chain did not reach its end
  2   it is corrupt, or tables seem to be lost
  3   clusters are leaked, and nothing else is wrong
  63  it has a feature that is not known here
  64  the command line is wrong";

const SHOW_EXAMPLES: &str = "\
Examples:
  qcow2 disk.qcow2 show l1
  qcow2 disk.qcow2 show l1 --snapshot before-update
  qcow2 disk.qcow2 show l2 guest:0x40000000 --range 0-15 --all
  qcow2 disk.qcow2 show refcount-block host:0x50000
  qcow2 disk.qcow2 show snapshots --json | jq .snapshots[].name";

const OWNER_EXAMPLES: &str = "\
Examples:
  qcow2 disk.qcow2 owner 0x50000
  qcow2 disk.qcow2 owner 0x50000 --json | jq .state";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  qcow2 disk.qcow2 explain 0x30
  qcow2 disk.qcow2 explain 0x40008 --json | jq .parts[].problems";

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
    /// Check the image, whatever is wrong with it, also one that qemu-img does not open
    ///
    /// The counts are those of `qemu-img check`. What it does not look for is told apart: overlaps, tables that are cut,
    /// sizes that do not agree, and leaks that look like lost tables. With --json, the keys are those of
    /// `qemu-img check --output=json`, and `findings`. No file that the image names is opened, unless --chain asks.
    #[command(after_help = CHECK_STATUS_HELP)]
    Check(CheckArgs),
    /// Dump the header and the header extensions
    #[command(after_help = EXIT_STATUS_HELP)]
    DumpHeader,
    /// Dump the header extensions
    #[command(after_help = EXIT_STATUS_HELP)]
    DumpHeaderExts,
    /// Print where the data of the disk are in the file
    ///
    /// Nothing that is named inside the image is opened without --chain: what is in the backing file is then not there, and
    /// holes of the external data file are not looked for.
    #[command(after_help = EXIT_STATUS_HELP)]
    Map(MapArgs),
    /// Print how much of the disk is allocated, and how much of that is fragmented
    ///
    /// Fragments are counted over the whole disk, compressed clusters being fragments each. `qemu-img check` counts the
    /// same, but starts anew with each L2 table.
    #[command(visible_alias = "frag-check", after_help = EXIT_STATUS_HELP)]
    Fragcheck {
        /// Of the disk as it was when this snapshot was taken
        #[arg(long, value_name = "ID|NAME", allow_hyphen_values = true)]
        snapshot: Option<String>,
        /// Count even though the image does not begin as a qcow2 image
        #[arg(long)]
        force: bool,
    },
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
    /// Show the header, a table, the snapshots, the bitmaps or the LUKS header
    ///
    /// Of a table, runs of entries that follow one another, and none that are 0.
    #[command(after_help = format!("{SHOW_EXAMPLES}\n\n{EXIT_STATUS_HELP}"))]
    Show(ShowArgs),
    /// Say who claims a byte of the file: every table and entry that refers to its cluster, and the refcount
    ///
    /// Where two claim it, both are named. With an external data file, its claims on the same offset are told apart.
    #[command(after_help = format!("{OWNER_EXAMPLES}\n\n{EXIT_STATUS_HELP}"))]
    Owner {
        /// The byte, an offset in the file: such as 65536, 0x10000 or 64k
        #[arg(allow_negative_numbers = true)]
        offset: String,
        /// Say it even though the image does not begin as a qcow2 image
        #[arg(long)]
        force: bool,
    },
    /// Say what a byte of the file is: which field of which structure, what its value means and whether it is valid
    ///
    /// Salts, digests and key material are named and not shown.
    #[command(after_help = format!("{EXPLAIN_EXAMPLES}\n\n{EXIT_STATUS_HELP}"))]
    Explain {
        /// The byte, an offset in the file: such as 65536, 0x10000 or 64k
        #[arg(allow_negative_numbers = true)]
        offset: String,
        /// Say it even though the image does not begin as a qcow2 image
        #[arg(long)]
        force: bool,
    },
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

/// How to check.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    /// human, or json, which is --json: as `qemu-img check` spells it
    #[arg(long, value_enum, conflicts_with_all = ["json", "j"])]
    pub output: Option<Output>,
    /// Check it even though it does not begin as a qcow2 image
    #[arg(long)]
    pub force: bool,
    /// Check the images that it is backed by, too, and the length of its external data file
    ///
    /// Whoever made the image chooses which files of this computer are read then. An external data file is looked for beside
    /// the image, as backing files are; QEMU looks for it in the current folder.
    #[arg(long)]
    pub chain: bool,
    /// Decode every compressed cluster, too
    #[arg(long)]
    pub deep: bool,
    /// How many threads decode them with --deep: as many as there are processors, where nothing is said
    #[arg(long, value_name = "N")]
    pub threads: Option<std::num::NonZero<usize>>,
}

/// What to show, and how much of it.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// What to show
    #[arg(value_enum, default_value = "header")]
    pub what: What,
    /// Which L2 table: its OFFSET in the file, l1:INDEX of its entry in the L1 table, or guest:OFFSET of a byte of the
    /// disk. A number alone is an offset in the file if it is a multiple of the cluster size, else an index if there is such
    /// an entry, else an offset of the disk. Which refcount block: its OFFSET in the file, the INDEX of its entry in the
    /// refcount table, or host:OFFSET of a byte of the file whose refcount it has
    #[arg(value_name = "WHICH", required_if_eq_any([("what", "l2"), ("what", "refcount-block")]))]
    pub which: Option<String>,
    /// Of l1 and l2: by the L1 table of a snapshot, by its ID or else its name
    #[arg(long, value_name = "ID|NAME", allow_hyphen_values = true)]
    pub snapshot: Option<String>,
    /// Entries A to B of the table only; also A alone, and A- for the rest
    #[arg(long, value_name = "A-B")]
    pub range: Option<String>,
    /// Also the entries that are 0; of crypto, also salts and digests
    #[arg(long)]
    pub all: bool,
    /// Show it even though the image does not begin as a qcow2 image: its header is shown in any case
    #[arg(long)]
    pub force: bool,
}

/// What `show` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// The header, and its extensions
    Header,
    /// The L1 table, or a snapshot's
    L1,
    /// An L2 table
    L2,
    /// The refcount table
    RefcountTable,
    /// A refcount block
    RefcountBlock,
    /// The snapshot table
    Snapshots,
    /// The bitmap directory
    Bitmaps,
    /// How the image is encrypted
    Crypto,
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
pub(crate) const COMMANDS: [&str; 19] = [
    "check",
    "dump-header",
    "dump-header-exts",
    "map",
    "fragcheck",
    "frag-check",
    "set-header",
    "add-header-ext",
    "add-header-ext-stdio",
    "del-header-ext",
    "set-feature-bit",
    "clear-feature-bit",
    "show",
    "owner",
    "explain",
    "scrub",
    "copy-metadata",
    "undo",
    "apply",
];

/// The arguments of `map`.
#[derive(Debug, clap::Args)]
pub struct MapArgs {
    /// human, or json: the array that `qemu-img map --output=json` prints
    #[arg(long, value_enum, conflicts_with_all = ["json", "j"])]
    pub output: Option<Output>,
    /// Map the disk as it was when this snapshot was taken
    #[arg(long, value_name = "ID|NAME", allow_hyphen_values = true)]
    pub snapshot: Option<String>,
    /// Open the backing files and the external data files, whichever files the images name, and map them, too
    ///
    /// An external data file is looked for beside the image, as backing files are; QEMU looks for it in the current folder.
    #[arg(long, conflicts_with_all = ["json", "j"])]
    pub chain: bool,
    /// Print it even though the image does not begin as a qcow2 image
    #[arg(long, conflicts_with = "chain")]
    pub force: bool,
}

/// The form of what a command prints, by the names that qemu-img has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people
    Human,
    /// JSON with the keys of `qemu-img`
    Json,
}

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
        let named = |command| [clap::Command::get_name(command)].into_iter().chain(command.get_all_aliases());
        let names: Vec<&str> = command.get_subcommands().flat_map(named).collect();
        assert_eq!(names, COMMANDS);
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
