//! A progress bar, for work over a second, on terminals.

use std::cell::OnceCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vdisk_format::view::Progress;
use vdisk_format::{Image, View};

/// Work that is done sooner shows nothing.
const QUIET: Duration = Duration::from_secs(1);

/// Does `work` on a view of `image`; after a second, a bar on standard error tells how far it has come, where that is a
/// terminal.
pub fn with_progress<T>(what: &'static str, image: &Image, work: impl FnOnce(View<'_>) -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work(image.into());
    }
    let (start, bar) = (Instant::now(), OnceCell::new());
    let show = |progress: Progress| {
        if start.elapsed() >= QUIET {
            let bar: &ProgressBar = bar.get_or_init(|| new_bar(what));
            bar.set_length(progress.total);
            bar.set_position(progress.done);
        }
    };
    let result = work(View::from(image).observed_by(&show));
    if let Some(bar) = bar.get() {
        bar.finish_and_clear();
    }
    result
}

fn new_bar(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(0).with_message(what);
    match ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
