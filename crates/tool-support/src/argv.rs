//! Command lines of the form `NAME FILE COMMAND [ARGS]`, as the originals take them and clap would not.
//!
//! `commands` are the names of all commands: asking clap would build its definition of all of them, at each start. No
//! option that may stand before FILE and COMMAND takes a value.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// Rewrites what the originals accept and clap would not: `-j` also where an argument is expected, and a FILE that is
/// named like a command.
#[must_use]
pub fn normalized(mut argv: Vec<OsString>, commands: &[&str]) -> Vec<OsString> {
    let end = argv.iter().position(|arg| arg == "--").unwrap_or(argv.len());
    if let Some(at) = argv.iter().take(end).skip(1).position(|arg| arg == "-j") {
        let flag = argv.remove(at + 1);
        argv.insert(1, flag);
    }
    let both_are_commands = words(&argv)
        .is_some_and(|(file, command)| is_command(file, commands) && is_command(command, commands));
    if let Some(file) = argv.iter_mut().skip(1).find(|arg| is_word(arg)).filter(|_| both_are_commands) {
        *file = [OsStr::new("./"), file].into_iter().collect();
    }
    argv
}

/// The COMMAND of a command line that has one, if it is not known.
#[must_use]
pub fn unknown_command(argv: &[OsString], commands: &[&str]) -> Option<String> {
    let (_, command) = words(argv)?;
    (!is_command(command, commands)).then(|| command.to_string_lossy().into_owned())
}

/// The line that was meant, where FILE and COMMAND changed places, and only then; without what follows them.
#[must_use]
pub fn meant(argv: &[OsString], commands: &[&str]) -> Option<String> {
    let (file, command) = words(argv)?;
    let is_swapped = is_command(file, commands) && !is_command(command, commands);
    let name = Path::new(argv.first()?).file_name()?;
    is_swapped.then(|| [name, command, file].map(OsStr::to_string_lossy).join(" "))
}

/// FILE and COMMAND.
fn words(argv: &[OsString]) -> Option<(&OsStr, &OsStr)> {
    let mut words = argv.iter().skip(1).filter(|arg| is_word(arg)).map(OsString::as_os_str);
    Some((words.next()?, words.next()?))
}

fn is_word(arg: &OsStr) -> bool {
    !arg.as_encoded_bytes().starts_with(b"-")
}

fn is_command(arg: &OsStr, commands: &[&str]) -> bool {
    commands.iter().any(|name| arg == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMANDS: [&str; 2] = ["dump", "undo"];

    fn line(words: &[&str]) -> Vec<OsString> {
        [&["name"], words].concat().into_iter().map(OsString::from).collect()
    }

    #[test]
    fn j_comes_first_unless_it_is_behind_two_hyphens() {
        for (given, expected) in [
            (&["-j", "f", "dump"][..], &["-j", "f", "dump"][..]),
            (&["f", "-j", "dump"], &["-j", "f", "dump"]),
            (&["f", "dump", "-j"], &["-j", "f", "dump"]),
            (&["f", "dump", "1", "-j", "x"], &["-j", "f", "dump", "1", "x"]),
            (&["f", "dump", "--", "-j"], &["f", "dump", "--", "-j"]),
            (&[], &[]),
        ] {
            assert_eq!(normalized(line(given), &COMMANDS), line(expected), "{given:?}");
        }
    }

    #[test]
    fn a_file_may_be_named_like_a_command() {
        assert_eq!(normalized(line(&["undo", "dump"]), &COMMANDS), line(&["./undo", "dump"]));
        assert_eq!(normalized(line(&["-U", "undo", "undo"]), &COMMANDS), line(&["-U", "./undo", "undo"]));
        for as_it_is in [&["undo"][..], &["undo", "x"], &["x", "undo"]] {
            assert_eq!(normalized(line(as_it_is), &COMMANDS), line(as_it_is));
        }
    }

    #[test]
    fn the_image_comes_first() {
        let argv = ["/usr/bin/name", "-j", "dump", "f"].map(OsString::from);
        assert_eq!(meant(&argv, &COMMANDS).as_deref(), Some("name f dump"));
        for words in [&["f", "frob"][..], &["f", "dump"], &["./undo", "dump"], &["dump"]] {
            assert_eq!(meant(&line(words), &COMMANDS), None, "{words:?}");
        }
    }

    #[test]
    fn the_second_word_is_the_command() {
        for (words, unknown) in [
            (&["f", "frob"][..], Some("frob")),
            (&["-U", "f", "--json", "frob", "x"], Some("frob")),
            (&["f", "dump", "x"], None),
            (&["f"], None),
            (&["--frob"], None),
        ] {
            assert_eq!(unknown_command(&line(words), &COMMANDS).as_deref(), unknown, "{words:?}");
        }
    }
}
