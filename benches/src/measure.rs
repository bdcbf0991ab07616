//! Running the rows in turns.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::images::Image;
use crate::instructions::Counter;
use crate::row::{Answer, Row};

/// What came out of one row.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) median: Duration,
    pub(crate) instructions: Option<u64>,
    /// The most memory that was resident.
    pub(crate) peak_kib: Option<u64>,
    pub(crate) answer: String,
    /// It ended with another status than 0, which the answer shows.
    pub(crate) failed: bool,
    /// The answer was not the same in all runs.
    pub(crate) unsteady: bool,
}

/// Where the edits' feature bits are in the file: `compatible_features`.
const COMPATIBLE_FEATURES: u64 = 80;

/// No row takes longer than about this for all of its runs, unless one run does.
const LONGEST: Duration = Duration::from_secs(10);

/// Runs each row `runs` times, and once more, before the others, to warm the caches. Of a row that takes long this first
/// run counts.
pub(crate) fn measure(
    rows: &[Row],
    image: &Image,
    runs: u32,
    counter: Counter,
    peak: &Path,
) -> io::Result<Vec<Measured>> {
    let mut times = vec![Vec::new(); rows.len()];
    let mut answers = vec![Vec::new(); rows.len()];
    for round in 0..=runs {
        for ((row, times), answers) in rows.iter().zip(&mut times).zip(&mut answers) {
            let spent: Duration = times.iter().sum();
            if spent > LONGEST {
                continue;
            }
            image.restore()?;
            let start = Instant::now();
            let output = row.command(&[]).stdin(Stdio::null()).output()?;
            let time = start.elapsed();
            answers.push((answer(row, &output, image)?, !succeeded(row, &output)));
            if round > 0 || time > LONGEST {
                times.push(time);
            }
        }
    }
    let mut measured = Vec::new();
    for ((row, times), mut answers) in rows.iter().zip(times).zip(answers) {
        image.restore()?;
        // Nobody waits for that twice more.
        let is_slow = times.iter().any(|&time| time > LONGEST);
        let instructions = if is_slow { None } else { counter.count(row)? };
        image.restore()?;
        let peak_kib = if is_slow { None } else { self::peak(row, peak)? };
        answers.dedup();
        let unsteady = answers.len() != 1;
        let (answer, failed) = answers.pop().unwrap_or_default();
        measured.push(Measured { median: median(times), instructions, peak_kib, answer, failed, unsteady });
    }
    image.restore()?;
    Ok(measured)
}

/// The most memory that the row's process has resident, in KiB.
fn peak(row: &Row, program: &Path) -> io::Result<Option<u64>> {
    let output = row.command(&[program.into()]).output()?;
    Ok(String::from_utf8_lossy(&output.stderr).trim().parse().ok())
}

fn succeeded(row: &Row, output: &Output) -> bool {
    output.status.code().is_some_and(|status| row.statuses.contains(&status))
}

/// What the row answered, in a few words.
fn answer(row: &Row, output: &Output, image: &Image) -> io::Result<String> {
    if !succeeded(row, output) {
        let message = String::from_utf8_lossy(&output.stderr);
        return Ok(format!("FAILED, {}: {}", output.status, message.lines().last().unwrap_or_default()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    match row.answer {
        Answer::CompatibleFeatures => {
            let mut bits = [0; 8];
            let mut file = File::open(&image.path)?;
            file.seek(SeekFrom::Start(COMPATIBLE_FEATURES))?;
            file.read_exact(&mut bits)?;
            return Ok(format!("compatible_features = {:#x}", u64::from_be_bytes(bits)));
        }
        Answer::Allocated => {
            let line = text.lines().find(|line| line.contains("% allocated, ")).unwrap_or_default();
            return Ok(line.split(" fragmented").next().unwrap_or_default().to_owned());
        }
        Answer::Copy => return copied(&image.copy()),
        Answer::Output => {}
    }
    if text.lines().count() == 1 {
        return Ok(text.trim().to_owned());
    }
    if output.stdout.is_empty() {
        return Ok("nothing".to_owned());
    }
    let lines = output.stdout.iter().filter(|&&byte| byte == b'\n').count();
    Ok(format!("{lines} lines, FNV {:08x}", fnv1a(&output.stdout)))
}

#[cfg(unix)]
fn copied(path: &Path) -> io::Result<String> {
    use std::os::unix::fs::MetadataExt;
    let metadata = path.metadata()?;
    Ok(format!("{} bytes, {} MiB on disk", metadata.len(), metadata.blocks() / 2048))
}

#[cfg(not(unix))]
fn copied(path: &Path) -> io::Result<String> {
    Ok(format!("{} bytes", path.metadata()?.len()))
}

/// A digest short enough for a table: it tells mistakes apart, not forgeries.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median([5, 1, 900].map(Duration::from_millis).to_vec()), Duration::from_millis(5));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }

    #[test]
    fn the_digest_is_fnv_1a() {
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }
}
