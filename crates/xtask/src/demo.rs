//! `demo`: the story of this project on real images.

mod iofuzz;
mod qcow2;
mod qed;

use std::path::Path;

use crate::failure::Failure;
use crate::run::{Run, quote};

/// The stage: the folder it plays in, our program, and the image.
#[derive(Clone, Copy)]
struct Stage<'a> {
    dir: &'a Path,
    name: &'a str,
    program: &'a Path,
    disk: &'a str,
}

/// Tells all stories, and fails where one does not come true.
pub(crate) fn demo() -> Result<(), Failure> {
    qcow2::story()?;
    qed::story()?;
    iofuzz::story()
}

impl Stage<'_> {
    /// `NAME DISK args…`; what it printed.
    fn ours(&self, args: &[&str]) -> Result<String, Failure> {
        self.ends_with(0, args)
    }

    /// The same, where it has to end with another status than 0.
    fn ends_with(&self, status: i32, args: &[&str]) -> Result<String, Failure> {
        self.run(status, self.name, Run::new(self.program, [self.disk]).args(args))
    }

    /// Another program, which has to succeed.
    fn show(&self, name: &str, run: Run) -> Result<String, Failure> {
        self.run(0, name, run)
    }

    /// Types the command, shows what it prints and hands its stdout back.
    fn run(&self, status: i32, name: &str, run: Run) -> Result<String, Failure> {
        let words = run.words();
        let typed: Vec<String> = words.iter().skip(1).map(|word| quote(word)).collect();
        println!("$ {name} {}", typed.join(" "));
        let output = run.dir(self.dir).silent().output()?;
        print!("{}{}", output.stdout, output.stderr);
        if output.code == Some(status) {
            return Ok(output.stdout);
        }
        let status = output.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
        Err(Failure::new(format!("demo: `{name} {}` ended with {status}", typed.join(" "))))
    }
}

fn say(text: &str) {
    println!("\n# {text}");
}

fn expect(true_so_far: bool, otherwise: &str) -> Result<(), Failure> {
    if true_so_far { Ok(()) } else { Err(Failure::new(format!("demo: {otherwise}"))) }
}
