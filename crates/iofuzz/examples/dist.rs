//! Writes the man pages and the shell completions of `iofuzz` to a folder: `cargo run -p iofuzz --example dist -- DIR`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tool_support::dist::main(iofuzz::command())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_subcommand_has_a_page_and_every_shell_knows_it() {
        test_support::dist::every_subcommand_has_a_page_and_every_shell_knows_it(&iofuzz::command());
    }
}
