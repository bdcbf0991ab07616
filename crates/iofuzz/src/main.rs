//! The binary `iofuzz`: see the library of this crate.

fn main() -> std::process::ExitCode {
    iofuzz::main(std::env::args_os().collect())
}
