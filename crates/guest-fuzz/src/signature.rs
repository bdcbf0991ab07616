//! Signatures: findings with the same one are one.

use crate::engine::Incident;
use crate::instruction::Instruction;
use crate::region::{RegionMap, Space};
use crate::verdict::{Death, Verdict};

const SIGTRAP: i32 = 5;
const SIGABRT: i32 = 6;
/// The longest signature.
const MAX: usize = 200;

/// What findings of one cause have in common: the last words of the process, without what changes from run to run and
/// from version to version; where it said nothing, what was in flight.
#[must_use]
pub fn signature(incident: &Incident, death: Option<&Death>, map: &RegionMap) -> String {
    let how = match incident.verdict {
        Verdict::Crash { signal: Some(signal), .. } => signal_name(signal),
        Verdict::Crash { code: Some(code), .. } => format!("exit status {code}"),
        ref verdict => verdict.name().to_owned(),
    };
    // What a silent machine was told last is often not what made it silent: the device must do.
    if matches!(incident.verdict, Verdict::GuestHang | Verdict::VmmStall(_) | Verdict::VmmDeadlock) {
        let place = incident.instruction.as_ref().and_then(RegionMap::place_of);
        let region = place.and_then(|(space, address)| map.narrowest(space, address));
        return region.map_or(how.clone(), |region| format!("{how}: {}", region.name));
    }
    // Who is killed by the processor says nothing: the last words are about something else.
    let may_speak = match incident.verdict {
        Verdict::Crash { signal, .. } => signal.is_none_or(|signal| matches!(signal, SIGABRT | SIGTRAP)),
        _ => false,
    };
    let words = death.filter(|_| may_speak).and_then(|death| last_words(&death.stderr));
    let what = words.unwrap_or_else(|| place(incident.instruction.as_ref(), map));
    let text = format!("{how}: {what}");
    text.chars().take(MAX).collect()
}

/// `SIGSEGV` and the like.
#[must_use]
pub fn signal_name(signal: i32) -> String {
    let known = [
        (4, "SIGILL"),
        (5, "SIGTRAP"),
        (6, "SIGABRT"),
        (7, "SIGBUS"),
        (8, "SIGFPE"),
        (9, "SIGKILL"),
        (11, "SIGSEGV"),
        (13, "SIGPIPE"),
        (15, "SIGTERM"),
        (24, "SIGXCPU"),
        (31, "SIGSYS"),
    ];
    let name = known.iter().find(|(number, _)| *number == signal).map(|&(_, name)| name.to_owned());
    name.unwrap_or_else(|| format!("signal {signal}"))
}

/// The line that says why a process ends: its last one that is no mere warning.
fn last_words(stderr: &str) -> Option<String> {
    let says_why = |line: &&str| {
        let line = line.to_lowercase();
        [
            "assert",
            "error:",
            "bail out",
            "abort",
            "fatal",
            "not reached",
            "stack smashing",
            "corrupt",
            "invalid pointer",
        ]
        .iter()
        .any(|mark| line.contains(mark))
    };
    let lines =
        || stderr.lines().rev().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("**"));
    // glib says it twice.
    let line = lines().find(says_why)?;
    Some(normalized(line.strip_prefix("Bail out! ").unwrap_or(line)))
}

/// A line without the program's name, folders, line numbers, addresses and other numbers that stand alone.
fn normalized(line: &str) -> String {
    let line = match line.split_once(": ") {
        Some((program, rest)) if program.contains("qemu") && !program.contains(' ') => rest,
        _ => line,
    };
    let mut out = String::new();
    for word in line.split_inclusive(|c: char| c.is_whitespace() || "():,;'`\"[]".contains(c)) {
        let end = word.trim_end_matches(|c: char| c.is_whitespace() || "():,;'`\"[]".contains(c));
        let behind = word.get(end.len()..).unwrap_or("");
        out.push_str(&normalized_word(end));
        out.push_str(behind);
    }
    out
}

fn normalized_word(word: &str) -> String {
    let digits = word.trim_start_matches(['-', '+']);
    let is_hexadecimal =
        digits.strip_prefix("0x").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_hexdigit()));
    if is_hexadecimal || (!digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())) {
        return "N".to_owned();
    }
    // A source file, without the folders in which it was built.
    match word.rsplit_once("../") {
        Some((_, path)) if [".c", ".h"].iter().any(|ending| path.ends_with(ending)) => path.to_owned(),
        _ => word.to_owned(),
    }
}

/// What was in flight: which access, of which width, of what.
fn place(instruction: Option<&Instruction>, map: &RegionMap) -> String {
    let Some(instruction) = instruction else { return "between instructions".to_owned() };
    let access = match instruction {
        Instruction::In { width, .. } => format!("read of {}", width.bytes()),
        Instruction::Out { width, .. } => format!("write of {}", width.bytes()),
        Instruction::InString { width, .. } => format!("string read of {}", width.bytes()),
        Instruction::OutString { width, .. } => format!("string write of {}", width.bytes()),
        Instruction::Read { width, .. } => format!("memory read of {}", width.bytes()),
        Instruction::Write { width, .. } => format!("memory write of {}", width.bytes()),
        Instruction::WriteBlock { .. } | Instruction::Fill { .. } => "memory block".to_owned(),
        Instruction::PciRead { function, register, .. } => format!("PCI read of {function} {register:#x}"),
        Instruction::PciWrite { function, register, .. } => format!("PCI write of {function} {register:#x}"),
        Instruction::Delay { .. } | Instruction::ClockStep { .. } => "delay".to_owned(),
        Instruction::Burst { .. } | Instruction::Reset => "reset".to_owned(),
    };
    match RegionMap::place_of(instruction) {
        Some((space, address)) => format!("{access}, {}", offset(space, address, map)),
        None => access,
    }
}

fn offset(space: Space, address: u64, map: &RegionMap) -> String {
    match map.narrowest(space, address) {
        Some(region) if !region.name.is_empty() => format!("{}+{:#x}", region.name, address - region.first),
        _ => match space {
            Space::Port => format!("port {address:#x}"),
            Space::Memory => format!("memory {address:#x}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::PortWidth;
    use crate::region::Region;

    fn crash(stderr: &str) -> String {
        let death = Death { code: None, signal: Some(6), stderr: stderr.to_owned() };
        let incident = Incident {
            verdict: Verdict::of_death(&death, None),
            index: Some(3),
            trail: Vec::new(),
            instruction: Some(Instruction::Out { port: 0x2014, width: PortWidth::Byte, value: 0 }),
        };
        let region = Region { space: Space::Port, first: 0x2000, last: 0x201f, name: "testdev".to_owned() };
        let map = RegionMap { regions: vec![region], ..RegionMap::default() };
        signature(&incident, Some(&death), &map)
    }

    #[test]
    fn what_differs_from_run_to_run_is_left_out() {
        let old = "qemu-system-x86_64: ../../hw/scsi/x.c:123: do_it: Assertion `n < 0x1f' failed.\n";
        let new = "warning\n/usr/bin/qemu-system-x86_64: ../hw/scsi/x.c:140: do_it: Assertion `n < 0x20' failed.\n\n";
        assert_eq!(crash(old), "SIGABRT: hw/scsi/x.c:N: do_it: Assertion `n < N' failed.");
        assert_eq!(crash(old), crash(new));
        let glib = "**\nERROR:../../net/q.c:12:f: code should not be reached\nBail out! ERROR:../../net/q.c:12:f: code should not be reached\n";
        assert_eq!(crash(glib), "SIGABRT: ERROR:net/q.c:N:f: code should not be reached");
    }

    #[test]
    fn where_nothing_is_said_it_is_what_was_in_flight() {
        assert_eq!(crash(""), "SIGABRT: write of 1, testdev+0x14");
        assert_eq!(crash("qemu: warning: odd\n"), "SIGABRT: write of 1, testdev+0x14");
        assert_eq!(signal_name(99), "signal 99");
    }
}
