//! From a shell to somebody who executes accesses: our program, or `dd`.

use std::time::{Duration, Instant, SystemTime};

use super::executor::{DD_FUNCTIONS, Executor};
use super::options::Way;
use super::ring::Ring;
use super::shell::Shell;
use super::wire::Wire;
use crate::error::{Error, Result};

/// The program of `build/helper.rs`.
const HELPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/helper.elf"));
/// How long the program may take to its first line.
const HELLO: Duration = Duration::from_secs(10);
/// Folders in which a program may be put, and may be allowed to run.
const FOLDERS: [&str; 4] = ["/tmp", "/var/tmp", "/dev/shm", "/run"];
/// The guest's PCI functions that share memory with us.
const FIND_RING: &str = "for d in /sys/bus/pci/devices/*; do \
    [ \"$(cat $d/vendor)$(cat $d/device)\" = 0x1af40x1110 ] && echo $d; done";

/// Who executes, and how.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) executor: Executor,
    pub(super) way: Way,
}

/// What is wanted of a launch.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// The ways to the ports, the best first.
    pub(super) ways: &'a [Way],
    /// Memory that the machine shares with us.
    pub(super) ring: Option<&'a mut Ring>,
    /// The longest line that may be sent.
    pub(super) longest_line: usize,
}

/// Has the guest's shell start whoever executes accesses by the first of the ways that is open.
pub(super) fn launch(wire: &mut Wire, number: &mut u32, plan: Plan<'_>) -> Result<Launched> {
    let mut shell = Shell::new(wire, number);
    // The kernel's messages would go between the lines; not every user may say so.
    shell.run("dmesg -n 1 2>/dev/null")?;
    let mut program = None;
    for &way in plan.ways {
        if way == Way::Dd {
            if shell.succeeds("[ -r /dev/port ] && [ -w /dev/port ]")? && shell.succeeds(DD_FUNCTIONS)? {
                return Ok(Launched { executor: Executor::dd(), way });
            }
            continue;
        }
        if program.is_none() {
            program = Some(upload(&mut shell)?);
        }
        let Some(Some(path)) = &program else { continue };
        let (preference, sign) = match way {
            Way::Iopl => ('i', "*iofuzz1i"),
            _ => ('p', "*iofuzz1p"),
        };
        if shell.run(&format!("{path} {preference} </dev/null"))?.text.contains(sign) {
            return start(wire, number, (path, preference), way, plan);
        }
    }
    Err(no_way(&mut Shell::new(wire, number)))
}

/// Puts our program somewhere; `None` where the guest runs it nowhere.
fn upload(shell: &mut Shell<'_>) -> Result<Option<String>> {
    // The name is new, and the folder ours alone, as others may write beside it.
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for folder in FOLDERS {
        let folder = format!("{folder}/iofuzz-{:x}", time.as_nanos());
        if !shell.succeeds(&format!("(umask 077; mkdir {folder} 2>/dev/null)"))? {
            continue;
        }
        let path = format!("{folder}/helper");
        shell.write_file(&path, HELPER)?;
        if shell.succeeds(&format!("chmod 700 {path}"))?
            && shell.run(&format!("{path} a </dev/null 2>/dev/null"))?.text.contains("*iofuzz1")
        {
            return Ok(Some(path));
        }
        shell.run(&format!("rm -r {folder}"))?;
    }
    Ok(None)
}

/// Starts our program. When it ends, the shell removes it.
fn start(
    wire: &mut Wire,
    number: &mut u32,
    (path, preference): (&str, char),
    way: Way,
    plan: Plan<'_>,
) -> Result<Launched> {
    let command = format!("{path} {preference}");
    let remove = format!("rm -r {}", path.trim_end_matches("/helper"));
    let mut shell = Shell::new(wire, number);
    if let Some(ring) = plan.ring {
        for device in shell.run(FIND_RING)?.text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            shell.run(&format!("echo 1 > {device}/enable"))?;
            ring.clear()?;
            wire.clear();
            wire.send(format!("{command} {device}/resource2 && {remove}\n").as_bytes());
            if hello(wire)?.ends_with('r') {
                return Ok(Launched { executor: Executor::Ring(ring.share()?), way });
            }
            // It has ended, and the shell is back.
            shell = Shell::new(wire, number);
            shell.run(":")?;
        }
    }
    wire.clear();
    wire.send(format!("{command}; {remove}\n").as_bytes());
    match hello(wire)? {
        words if words.ends_with('s') => {
            let executor = Executor::symbols(plan.longest_line, way == Way::Iopl);
            Ok(Launched { executor, way })
        }
        words => Err(Error::protocol("our program in the guest", format!("its first line is `{words}`"))),
    }
}

/// The first line of our program.
fn hello(wire: &mut Wire) -> Result<String> {
    const SIGN: &[u8] = b"*iofuzz1";
    let deadline = Instant::now() + HELLO;
    loop {
        let received = wire.received();
        if let Some(at) = received.windows(SIGN.len()).position(|window| window == SIGN)
            && let Some(line) = received.get(at..at + SIGN.len() + 3)
        {
            let words = String::from_utf8_lossy(line).trim_end().to_owned();
            wire.forget(at + SIGN.len() + 3);
            return Ok(words);
        }
        if !wire.receive(deadline) {
            return Err(match wire.is_closed() {
                true => Error::Dead,
                false => Error::NoAnswer { what: "our program in the guest".to_owned() },
            });
        }
    }
}

fn no_way(shell: &mut Shell<'_>) -> Error {
    let user = shell.run("id -u").map(|answer| answer.text.trim().to_owned()).unwrap_or_default();
    let why = match user.as_str() {
        "0" => {
            "neither iopl nor /dev/port is open to root there: a kernel that is locked down, or has neither"
                .to_owned()
        }
        _ => format!("the session's user has the number {user}; only root, 0, may access ports"),
    };
    Error::Unsupported { what: "port accesses in the guest".to_owned(), why }
}
