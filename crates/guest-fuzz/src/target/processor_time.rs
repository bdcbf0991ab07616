//! The processor time of a process, from Linux's `/proc`.

use std::time::Duration;

use super::ProcessorTime;

/// Linux counts in hundredths of a second there, whatever its own clock is.
const TICK: Duration = Duration::from_millis(10);

/// What the process `id` has used, and how many threads it has; `None` where there is no such process.
pub(super) fn of_process(id: u32) -> Option<(ProcessorTime, usize)> {
    let mut sum = ProcessorTime { asleep: true, ..ProcessorTime::default() };
    let mut threads = 0;
    for task in std::fs::read_dir(format!("/proc/{id}/task")).ok()?.flatten() {
        // A thread may have ended just now.
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { continue };
        let Some((state, ticks)) = parse(&stat) else { continue };
        let used = TICK.saturating_mul(u32::try_from(ticks).unwrap_or(u32::MAX));
        let is_main = task.file_name().to_str() == Some(id.to_string().as_str());
        let thread = if is_main { &mut sum.main } else { &mut sum.others };
        *thread = thread.saturating_add(used);
        sum.asleep &= state == "S";
        threads += 1;
    }
    Some((sum, threads))
}

/// State, and time in user and kernel mode, of a line of `stat`. The name may hold anything, parentheses and spaces too.
fn parse(stat: &str) -> Option<(&str, u64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let mut times = fields.skip(10).map_while(|field| field.parse::<u64>().ok());
    Some((state, times.next()?.checked_add(times.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_whatever_the_name() {
        let line = "7 (a ) S 9 9 (x) R 1 7 7 0 -1 4 1 0 0 0 31 11 0 0 20 0 4 0 1";
        assert_eq!(parse(line), Some(("R", 42)));
        assert_eq!(parse("7 (x) R 1 2"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn who_works_has_used_time() {
        let used = || of_process(std::process::id()).unwrap().0;
        let (before, begun) = (used(), std::time::Instant::now());
        while begun.elapsed() < Duration::from_secs(20) {
            let now = used();
            if now.main + now.others > before.main + before.others + 2 * TICK {
                // This thread runs while it asks.
                assert!(!now.asleep);
                return;
            }
        }
        panic!("no time was used in 20 s");
    }

    #[test]
    fn who_waits_is_asleep() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let begun = std::time::Instant::now();
        // It has to start, first.
        while !of_process(child.id()).unwrap().0.asleep && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(TICK);
        }
        assert!(of_process(child.id()).unwrap().0.asleep);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGSTOP)
            .unwrap();
        while of_process(child.id()).unwrap().0.asleep && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(TICK);
        }
        assert!(!of_process(child.id()).unwrap().0.asleep, "one that is stopped may go on");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
