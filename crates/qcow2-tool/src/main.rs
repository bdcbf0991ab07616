//! The binary `qcow2`: see the library of this crate.

fn main() -> std::process::ExitCode {
    qcow2_tool::main(std::env::args_os().collect())
}
