//! `fuzz`: one target under cargo-fuzz, or every target's smoke test on a stable toolchain.

use crate::failure::Failure;
use crate::run::Run;
use crate::workspace;

/// Fuzzes `target` until it is stopped, or runs the smoke tests where none is named.
pub(crate) fn fuzz(target: Option<&str>, args: &[String]) -> Result<(), Failure> {
    let Some(target) = target else {
        return Run::cargo(["test", "-p", "vdisk-fuzz"]).args(args).status();
    };
    // `+nightly` is rustup's: the plain `cargo` on PATH, not the one that runs this chore.
    if !Run::new("cargo", ["+nightly", "fuzz", "--version"]).output()?.success {
        return Err(Failure::new(
            "`cargo +nightly fuzz` does not run; install it with:\n  \
             rustup toolchain install nightly && cargo install cargo-fuzz",
        ));
    }
    let mut run =
        Run::new("cargo", ["+nightly", "fuzz", "run", "--fuzz-dir", ".", "--features", "libfuzzer", target]);
    if !args.is_empty() {
        run = run.args(["--"]).args(args);
    }
    run.dir(&workspace::root().join("fuzz")).status()
}
