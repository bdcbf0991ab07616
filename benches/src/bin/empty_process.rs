//! Nothing: what starting a Rust process costs, which no command of ours can be below.

fn main() {}
