//! `dist`: the man pages and the shell completions, as a packager wants them.

use std::env;
use std::fs;
use std::path::Path;

use crate::failure::Failure;
use crate::run::Run;
use crate::workspace;

/// Writes them to `out`, or to target/dist.
pub(crate) fn dist(out: Option<&Path>) -> Result<(), Failure> {
    let out = match out {
        Some(dir) => env::current_dir().map_err(Failure::at(dir))?.join(dir),
        None => workspace::target().join("dist"),
    };
    fs::create_dir_all(&out).map_err(Failure::at(&out))?;
    for tool in workspace::TOOLS {
        Run::cargo(["run", "-p", tool, "--example", "dist", "--"]).args([&out]).status()?;
    }
    let mut files = Vec::new();
    list(&out, &mut files)?;
    if files.is_empty() {
        return Err(Failure::new(format!("nothing was written to {}", out.display())));
    }
    files.sort();
    println!("{} files in {}:", files.len(), out.display());
    for file in files {
        println!("  {file}");
    }
    Ok(())
}

fn list(dir: &Path, files: &mut Vec<String>) -> Result<(), Failure> {
    for entry in fs::read_dir(dir).map_err(Failure::at(dir))? {
        let path = entry.map_err(Failure::at(dir))?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.push(path.display().to_string());
        }
    }
    Ok(())
}
