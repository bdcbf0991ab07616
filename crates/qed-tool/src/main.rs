//! The binary `qed`: see the library of this crate.

fn main() -> std::process::ExitCode {
    qed_tool::main(std::env::args_os().collect())
}
