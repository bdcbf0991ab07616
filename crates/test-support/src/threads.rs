//! Many processes at a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Calls `work` with each number below `count`, on a few threads. What fails in one of them fails.
pub fn each(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(2, |cores| cores.get().min(8));
    thread::scope(|scope| {
        for _thread in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    work(number);
                }
            });
        }
    });
}
