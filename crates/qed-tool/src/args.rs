//! The command line: `qed FILE COMMAND [ARGS]`, file first, `-j` anywhere.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tool_support::image::{ApplyArgs, FeatureBitArgs, OpenArgs, PlanArgs, SetHeaderArgs, UndoArgs};
use tool_support::status::EXIT_STATUS_HELP;

const EXAMPLES: &str = "\
Examples:
  qed disk.qed check
  qed disk.qed show l2 l1:0
  qed disk.qed duplicate l2 --seed 1 --dry-run
  qed disk.qed repair --commit
  qed disk.qed copy_metadata for-a-bug-report.qed
  qed disk.qed undo";

const CHECK_STATUS_HELP: &str = "\
Exit status:
  0   the image is clean
  1   it cannot be read, or is no QED image
  2   it is corrupt
  3   clusters are leaked, and nothing else is wrong
  63  it has a feature that is not known here
  64  the command line is wrong";

const REPAIR_STATUS_HELP: &str = "\
Exit status:
  0   done (a plan that is shown is done), and no corruption is left
  1   it could not be done, and the file is as it was
  2   done, and corruptions are left that cannot be repaired without a guess
  64  the command line is wrong
  70  a commit ended half-way, and `undo` is needed";

/// Inspect, check, repair, corrupt on purpose and scrub QED disk images
///
/// Every change is a plan of byte-range writes: --dry-run shows it, --save-plan keeps it for `apply`, and `undo` takes
/// it back. Numbers are written as in Python: 0x10, 0o20, 0b10000, 16. Names may be written with `-` for `_`.
#[derive(Debug, Parser)]
#[command(name = "qed", version, after_help = format!("{EXAMPLES}\n\n{EXIT_STATUS_HELP}\n  `check` and `repair` have their own: see their help"))]
#[command(arg_required_else_help = true, disable_help_subcommand = true, args_override_self = true)]
pub struct Cli {
    /// The image: a file or a block device
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The same as --json
    #[arg(short = 'j', global = true)]
    pub j: bool,

    /// JSON as one document, with a "schema" number
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
    /// Show the header, the L1 table or an L2 table
    #[command(after_help = EXIT_STATUS_HELP)]
    Show {
        /// What to show
        #[arg(value_enum, default_value = "header")]
        what: What,
        /// Which L2 table: its OFFSET in the file, l1:INDEX of its entry in the L1 table, or guest:OFFSET of a byte of the
        /// disk. A number alone is an offset in the file if it is a multiple of the cluster size, else an index if there
        /// is such an entry, else an offset of the disk
        #[arg(required_if_eq("what", "l2"))]
        table: Option<String>,
    },
    /// Make one entry of a table a copy of another: two tables, or two clusters of the disk, in one place
    #[command(after_help = EXIT_STATUS_HELP)]
    Duplicate(CorruptArgs),
    /// Make one entry of a table point past the end of the file or off the cluster boundary
    #[command(after_help = EXIT_STATUS_HELP)]
    Invalidate(CorruptArgs),
    /// Print, set or clear the need-check bit: whether the image is to be checked before it is used
    #[command(name = "need_check", visible_alias = "need-check", after_help = EXIT_STATUS_HELP)]
    NeedCheck {
        /// on or off; without it, True or False is printed
        #[arg(value_enum)]
        state: Option<Switch>,
        /// The options of every change
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Print how much of the disk is allocated, and how much of that is fragmented
    ///
    /// Fragments are counted over the whole disk. `check` counts as `qemu-img check` does, which starts anew with each L2
    /// table.
    #[command(visible_alias = "frag-check", after_help = EXIT_STATUS_HELP)]
    Fragcheck,
    /// Make zero clusters of clusters of the disk: all of them, or none
    ///
    /// A cluster without an L2 table is refused, as is one past the end of the disk, and one whose L2 table another entry
    /// names as data, or as half of another table. What held the data is leaked.
    #[command(name = "zerocluster", visible_aliases = ["zero-cluster", "zero_cluster"], after_help = EXIT_STATUS_HELP)]
    ZeroCluster {
        /// A byte of the disk: the first cluster is the one that it lies in
        pos: String,
        /// How many clusters
        #[arg(default_value = "1")]
        n: String,
        /// The options of every change
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Copy the metadata to a new file, and no byte of what the guest stored: for bug reports
    ///
    /// The copy is as long as the image, with holes where there is no metadata, and `check` finds the same in it. The
    /// backing file's name is copied. Of what claims to be a table, offsets of clusters of the file are copied, and nothing
    /// else. A file OUT that exists is replaced.
    #[command(name = "copy_metadata", visible_alias = "copy-metadata", after_help = EXIT_STATUS_HELP)]
    CopyMetadata {
        /// The file to write
        #[arg(value_name = "OUT")]
        out: PathBuf,
        /// Copy even though FILE does not begin as a QED image: its first 64 bytes are then copied whatever they are
        #[arg(long)]
        force: bool,
    },
    /// Check the image, whatever is wrong with it
    ///
    /// The counts are those of `qemu-img check`. What it does not look for is told apart. With --json, the keys are
    /// those of `qemu-img check --output=json`, and `findings`.
    #[command(after_help = CHECK_STATUS_HELP)]
    Check {
        /// human, or json, which is --json: as `qemu-img check` spells it
        #[arg(long, value_enum, conflicts_with_all = ["json", "j"])]
        output: Option<Output>,
        /// Check it even though it does not begin as a QED image
        #[arg(long)]
        force: bool,
    },
    /// Show what can be repaired without a guess; with --commit, repair it
    ///
    /// Entries that name nothing in the file are cleared, and where no corruption is left, the need-check bit is. So are
    /// the autoclear bits that are not known here, as by every writer. Leaks stay.
    #[command(after_help = REPAIR_STATUS_HELP)]
    Repair {
        /// Carry the plan out
        #[arg(long, conflicts_with_all = ["dry_run", "save_plan"])]
        commit: bool,
        /// The options of every change
        #[command(flatten)]
        plan: PlanArgs,
    },
    /// Print where the data of the disk are in the file
    #[command(after_help = EXIT_STATUS_HELP)]
    Map {
        /// human, or json: the array that `qemu-img map --output=json` prints
        #[arg(long, value_enum, conflicts_with_all = ["json", "j"])]
        output: Option<Output>,
        /// Print it even though the image does not begin as a QED image
        #[arg(long)]
        force: bool,
    },
    /// Dump the header
    #[command(after_help = EXIT_STATUS_HELP)]
    DumpHeader,
    /// Set a field in the header: its bytes, and nothing else
    #[command(after_help = EXIT_STATUS_HELP)]
    SetHeader(SetHeaderArgs),
    /// Set a feature bit; those of `features` are the incompatible ones
    #[command(after_help = EXIT_STATUS_HELP)]
    SetFeatureBit(FeatureBitArgs),
    /// Clear a feature bit; those of `features` are the incompatible ones
    #[command(after_help = EXIT_STATUS_HELP)]
    ClearFeatureBit(FeatureBitArgs),
    /// Take back the last change, or list what can be taken back
    ///
    /// Records are beside the image (disk.qed.undo-1, …), in --undo-dir or $VDISK_UNDO_DIR, or, for devices and in
    /// folders that cannot be written, in $XDG_STATE_HOME/vdisk-tools/undo. Without --force, a record applies only to
    /// an image that nothing has used since.
    #[command(after_help = EXIT_STATUS_HELP)]
    Undo(UndoArgs),
    /// Commit a plan saved by --save-plan, or complete it after a crash
    #[command(after_help = EXIT_STATUS_HELP)]
    Apply(ApplyArgs),
}

/// The names of all commands, for [`tool_support::argv`].
pub(crate) const COMMANDS: [&str; 21] = [
    "show",
    "duplicate",
    "invalidate",
    "need_check",
    "need-check",
    "fragcheck",
    "frag-check",
    "zerocluster",
    "zero-cluster",
    "zero_cluster",
    "copy_metadata",
    "copy-metadata",
    "check",
    "repair",
    "map",
    "dump-header",
    "set-header",
    "set-feature-bit",
    "clear-feature-bit",
    "undo",
    "apply",
];

/// What `show` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// The header
    Header,
    /// The L1 table
    L1,
    /// An L2 table
    L2,
}

/// Which table to corrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// The L1 table
    L1,
    /// An L2 table that can be corrupted
    L2,
}

/// on or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Set
    On,
    /// Clear
    Off,
}

/// The form of what a command prints, by the names that qemu-img has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Text for people
    Human,
    /// JSON with the keys of `qemu-img`
    Json,
}

/// The arguments of the two commands that corrupt a table.
#[derive(Debug, clap::Args)]
pub struct CorruptArgs {
    /// Which table
    #[arg(value_enum)]
    pub level: Level,
    /// Make the same choices as another run with this seed, which each run prints
    #[arg(long, value_name = "N")]
    pub seed: Option<String>,
    /// The entry to overwrite: INDEX, or for l2 also L1INDEX:INDEX, which says whose table it is in
    #[arg(long, value_name = "INDEX")]
    pub at: Option<String>,
    /// The options of every change
    #[command(flatten)]
    pub plan: PlanArgs,
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;
    use tool_support::argv::normalized;

    use super::*;

    fn parse(line: &[&str]) -> Result<Cli, clap::Error> {
        let argv = [&["qed"], line].concat().into_iter().map(OsString::from).collect();
        Cli::try_parse_from(normalized(argv, &COMMANDS))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
        let command = Cli::command();
        let subcommands = || command.get_subcommands();
        let aliases = subcommands().flat_map(clap::Command::get_all_aliases);
        let mut names: Vec<&str> = subcommands().map(clap::Command::get_name).chain(aliases).collect();
        let mut known = COMMANDS.to_vec();
        names.sort_unstable();
        known.sort_unstable();
        assert_eq!(names, known);
    }

    #[test]
    fn originals_and_hyphenated_names_are_one() {
        for (old, new, args) in [
            ("need_check", "need-check", &[][..]),
            ("zerocluster", "zero-cluster", &["0"]),
            ("copy_metadata", "copy-metadata", &["out"]),
        ] {
            let command = |name| {
                let line = [&["f", name], args].concat();
                std::mem::discriminant(&parse(&line).unwrap().command)
            };
            assert_eq!(command(old), command(new));
        }
    }

    #[test]
    fn j_is_taken_anywhere() {
        for line in [
            &["-j", "f", "show", "l1"][..],
            &["f", "-j", "show", "l1"],
            &["f", "show", "-j", "l1"],
            &["f", "show", "l1", "-j"],
        ] {
            assert!(parse(line).unwrap().j, "{line:?}");
        }
    }

    #[test]
    fn an_l2_table_has_to_be_named() {
        assert!(parse(&["f", "show", "l2"]).is_err());
        assert!(parse(&["f", "show", "l2", "0"]).is_ok());
        assert!(parse(&["f", "show"]).is_ok());
    }
}
