//! `readme`: what the README shows is what happens.
//!
//! All commands of a page run in one shell in one fresh folder, with the built programs first on
//! PATH, so that a later block may use what an earlier one made.

use std::env;
use std::fs;
use std::path::Path;

use crate::console::{self, Step};
use crate::failure::Failure;
use crate::run::{Run, quote};
use crate::scratch::Scratch;
use crate::workspace;

/// The line after each command's output, followed by the command's exit status.
const MARK: &str = "@@vdisk-readme-step@@";

/// Stands for the folder the page runs in, in what was printed as in what is expected.
const HERE: &str = "[..]";

/// Runs README.md and compares, or where `bless` rewrites what differs.
pub(crate) fn readme(bless: bool) -> Result<(), Failure> {
    let path = workspace::root().join("README.md");
    let text = fs::read_to_string(&path).map_err(Failure::at(&path))?;
    let steps = console::steps(&text).map_err(|why| Failure::new(format!("README.md: {why}")))?;
    let (run, shown): (Vec<Step>, Vec<Step>) = steps.into_iter().partition(Step::is_run);
    if run.is_empty() {
        return Err(Failure::new("README.md: no `console` block with a command to run"));
    }
    Run::cargo(["build", "--bins"]).status()?;
    let outputs = run_page(&run)?;

    let mut faults = Vec::new();
    let mut news = Vec::new();
    for (index, step) in run.iter().enumerate() {
        match outputs.get(index) {
            Some(printed) if console::matches(&step.expected, printed) => news.push(None),
            Some(printed) => {
                faults.push(difference(step, printed));
                news.push(Some(printed.clone()));
            }
            None => {
                let why = format!("README.md:{}: not reached: $ {}", step.line, step.command);
                return Err(Failure::new(why));
            }
        }
    }
    let count = format!("{} commands run, {} only shown", run.len(), shown.len());
    if faults.is_empty() {
        println!("readme: {count}; every output is as written");
        return Ok(());
    }
    if bless {
        fs::write(&path, console::rewrite(&text, &run, &news)).map_err(Failure::at(&path))?;
        println!("readme: {count}; rewrote the output of {}", faults.len());
        return Ok(());
    }
    Err(Failure::new(format!(
        "{}\nreadme: {count}; {} differ (see `--bless`)",
        faults.join("\n"),
        faults.len()
    )))
}

/// What each step printed, as far as the shell came.
fn run_page(steps: &[Step]) -> Result<Vec<Vec<String>>, Failure> {
    let scratch = Scratch::new("readme")?;
    let (work, state) = (scratch.path().join("work"), scratch.path().join("state"));
    for dir in [&work, &state] {
        fs::create_dir(dir).map_err(Failure::at(dir))?;
    }
    let script = scratch.path().join("page.sh");
    fs::write(&script, shell_script(steps)).map_err(Failure::at(&script))?;
    let built = workspace::cargo_target().join("debug");
    let old = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([built].into_iter().chain(env::split_paths(&old)))
        .map_err(|error| Failure::new(format!("PATH: {error}")))?;
    let output = Run::new("env", ["-u", "VDISK_UNDO_DIR", "-u", "NO_COLOR", "-u", "CLICOLOR_FORCE"])
        .args([Path::new("bash"), &script])
        .quiet_env("PATH", path)
        .quiet_env("LC_ALL", "C.UTF-8")
        .quiet_env("XDG_STATE_HOME", state)
        .dir(&work)
        .output()?;
    // A page must not name this run's folder, so `--bless` writes what stands for anything.
    let here = work.to_string_lossy();
    Ok(split_output(&output.stdout.replace(here.as_ref(), HERE)))
}

/// Each command is evaluated by itself, so that a mistake in one does not hide the others; `$?`
/// is the command's own for the next one to look at.
fn shell_script(steps: &[Step]) -> String {
    let mut script = String::from("exec 2>&1\n");
    for step in steps {
        let command = quote(&step.command);
        script.push_str(&format!(
            "eval {command}\n_status=$?; printf '\\n{MARK} %d\\n' $_status; (exit $_status)\n"
        ));
    }
    script
}

fn split_output(printed: &str) -> Vec<Vec<String>> {
    let mut outputs = Vec::new();
    let mut rest = printed;
    let mark = format!("\n{MARK} ");
    while let Some((output, after)) = rest.split_once(&mark) {
        outputs.push(output.lines().map(str::to_owned).collect());
        rest = after.split_once('\n').map_or("", |(_, next)| next);
    }
    outputs
}

fn difference(step: &Step, printed: &[String]) -> String {
    let show = |lines: &[String]| lines.iter().map(|line| format!("    {line}\n")).collect::<String>();
    format!(
        "README.md:{}: $ {}\n  is to print:\n{}  but printed:\n{}",
        step.line,
        step.command,
        show(&step.expected),
        show(printed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(page: &str) -> Vec<Vec<String>> {
        run_page(&console::steps(page).unwrap()).unwrap()
    }

    #[test]
    fn one_shell_and_one_folder_for_all() {
        let outputs = run("```console\n$ x=1; mkdir d; cd d\n$ echo $x; pwd | sed 's,.*/,,'\n```\n");
        assert_eq!(outputs, [vec![], vec!["1".to_owned(), "d".to_owned()]]);
    }

    #[test]
    fn both_streams_and_no_last_newline() {
        let outputs = run("```console\n$ echo a; echo b >&2; printf c\n```\n");
        assert_eq!(outputs, [["a", "b", "c"]]);
    }

    #[test]
    fn a_bad_command_hides_no_other_and_its_status_can_be_shown() {
        let outputs =
            run("```console\n$ echo 'open\n$ (exit 3)\n$ echo $?\n$ cat\n$ cat <<E\n> x\n> E\n```\n");
        assert_eq!(outputs.len(), 5);
        assert!(!outputs[0].is_empty());
        assert_eq!(
            (&outputs[2], &outputs[3], &outputs[4]),
            (&vec!["3".to_owned()], &vec![], &vec!["x".to_owned()])
        );
    }
}
