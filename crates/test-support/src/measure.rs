//! What processes cost.

use crate::process::{installed, run_within};
use std::time::Duration;

/// Runs each line that standard input has, and prints what it was: status, seconds of a processor, peak of memory. Linux
/// counts the peak of the process that a process began as, too: Python's 14 MiB.
const MEASURE: &str = "
import json, os, subprocess, sys, threading
for line in json.load(sys.stdin):
    child = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    killer = threading.Timer(30, child.kill)
    killer.start()
    stderr = child.stderr.read().decode(errors='replace')
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = 0
    killer.cancel()
    seconds = usage.ru_utime + usage.ru_stime
    print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss, stderr[-2000:]]))
";

/// What a process has cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Cost {
    /// Its exit status, negative for a signal.
    pub status: i32,
    /// Seconds of a processor.
    pub seconds: f64,
    /// The peak of its memory in KiB.
    pub peak: u64,
    /// The end of what it said.
    pub stderr: String,
}

/// Runs command lines, each for 30 seconds at most.
#[track_caller]
#[must_use]
pub fn measure(lines: &[Vec<&str>]) -> Vec<Cost> {
    let mut python = installed("python3");
    python.args(["-c", MEASURE]).env_remove("VDISK_UNDO_DIR");
    let input = serde_json::to_vec(&lines).unwrap();
    let run = run_within(&mut python, &input, Duration::from_secs(120)).expect(0);
    let costs: Vec<Cost> = run
        .out()
        .lines()
        .map(|line| {
            let (status, seconds, peak, stderr) = serde_json::from_str(line).unwrap();
            Cost { status, seconds, peak, stderr }
        })
        .collect();
    assert_eq!(costs.len(), lines.len(), "{run}");
    costs
}
