//! Measures the release binaries as whole processes, each beside an empty process and beside QEMU's own tools.
//!
//! ```console
//! $ cargo build --release --bins && cargo run --release -p vdisk-benches -- --bin-dir target/release
//! ```
//!
//! The commands take turns (A B C A B C …), so that whatever else the machine does strikes all of them. What each one
//! answers stands beside its time: a fast wrong answer is no answer. Compare the ratios, not the seconds.

mod gate;
mod images;
mod instructions;
mod iofuzz;
mod measure;
mod programs;
mod qcow2;
mod qcow2_check;
mod qed;
mod row;
mod suite;
mod table;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use instructions::Counter;
use measure::Measured;
use programs::Programs;
use row::Row;
use suite::SUITES;

/// Measure the release binaries as whole processes, beside QEMU's.
#[derive(Debug, Parser)]
struct Args {
    /// The folder with `qcow2`, `qed`, `iofuzz` and this package's own programs
    #[arg(long, value_name = "DIR", default_value = "target/release")]
    bin_dir: PathBuf,

    /// How often each command runs; a slow one less often
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,

    /// The folder for the images, up to 400 MiB [default: /dev/shm, where syncing costs nothing, or the temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Only images whose name contains this; the rows of iofuzz are called `iofuzz: ROW`
    #[arg(long, value_name = "TEXT", default_value = "")]
    image: String,

    /// Only count the instructions of `qcow2 check`, and fail where a cluster takes more than it did
    #[arg(long)]
    gate: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("vdisk-benches: an answer is wrong, or too slow: see above");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("vdisk-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and prints everything; `false` where an answer is not its peer's.
fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let shared_memory = PathBuf::from("/dev/shm");
    let parent = args
        .dir
        .clone()
        .unwrap_or_else(|| if shared_memory.is_dir() { shared_memory } else { std::env::temp_dir() });
    let dir = tempfile::Builder::new().prefix("vdisk-benches-").tempdir_in(&parent)?;
    if args.gate {
        return gate::gate(&args.bin_dir, dir.path());
    }
    let programs = Programs::find(&args.bin_dir)?;
    let counter = Counter::detect(&programs.empty);
    println!("Medians of {} runs, images in {}. {counter}", args.runs, parent.display());
    let peak = args.bin_dir.join(format!("peak{}", std::env::consts::EXE_SUFFIX));
    let mut right = true;
    let mut goals = Vec::new();
    for suite in &SUITES {
        let mut results = Vec::new();
        let wanted = (suite.images)().into_iter().filter(|image| image.name.contains(&args.image));
        for image in wanted.filter(|image| image.is_possible(&programs)) {
            let image = image.write(dir.path())?;
            let rows = (suite.rows)(&programs, &image);
            let measured = measure::measure(&rows, &image, args.runs, counter, &peak)?;
            println!("\n### {}\n\n{}", image.name, table::table(&rows, &measured));
            right &= answers_agree(&rows, &measured);
            goals.extend((suite.goals)(&image, &rows, &measured).into_iter().map(|goal| (image.name, goal)));
            std::fs::remove_file(&image.path)?;
            results.push((image.name, rows, measured));
        }
        goals.extend((suite.growth)(&results).into_iter().map(|goal| ("all sizes", goal)));
    }
    let (iofuzz_goals, iofuzz_right) = iofuzz::bench(&programs.iofuzz, dir.path(), &args.image, args.runs)?;
    right &= iofuzz_right;
    goals.extend(iofuzz_goals.into_iter().map(|goal| ("iofuzz", goal)));
    println!();
    for (image, goal) in goals {
        let verdict = if goal.met { "met" } else { "MISSED" };
        println!("Goal: {}, {image}: {}, {verdict}", goal.what, goal.figure);
    }
    Ok(right)
}

/// Whether none of our rows failed, rows that must give one answer do, where the peer has one (qcow2.py cannot edit an
/// image with bitmaps), and each row gave one answer in all of its runs.
fn answers_agree(rows: &[Row], measured: &[Measured]) -> bool {
    let mut agree = true;
    for (row, result) in rows.iter().zip(measured) {
        let peer = row.answers_like.and_then(|label| table::find(rows, measured, label));
        let differs = peer.is_some_and(|peer| !peer.failed && peer.answer != result.answer);
        if result.unsteady || differs || (result.failed && row.is_ours) {
            println!("\nWRONG ANSWER: {}", row.label);
            agree = false;
        }
    }
    agree
}
