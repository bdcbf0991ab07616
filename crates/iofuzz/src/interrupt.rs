//! Ctrl-C and SIGTERM: the first one asks for an end, the second one is it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use tool_support::Failure;

use crate::failure::could_not_run;

/// How long what is under way may still take, once somebody has asked for an end.
pub(crate) const GRACE: Duration = Duration::from_millis(1500);
/// What a shell says of a program that SIGINT ended.
const INTERRUPTED: i32 = 128 + SIGINT;

/// Whether somebody asked for an end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on, signals ask for an end. No machine is left behind by the second one: the system ends them with us.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let interrupt = Self::default();
        let listen = |signal| {
            // In this order: what was asked for before is what the second signal meets.
            flag::register_conditional_shutdown(signal, INTERRUPTED, Arc::clone(&interrupt.0))?;
            flag::register(signal, Arc::clone(&interrupt.0))
        };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            listen(signal).map_err(|error| could_not_run(format!("cannot listen to signals: {error}")))?;
        }
        Ok(interrupt)
    }

    /// Whether somebody asked.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// From now on, ends this process a while after somebody asked: for work that cannot be stopped from within.
    pub(crate) fn exit_soon(&self) {
        let asked = self.clone();
        std::thread::spawn(move || {
            while !asked.is_asked() {
                std::thread::sleep(GRACE / 20);
            }
            std::thread::sleep(GRACE);
            std::process::exit(INTERRUPTED);
        });
    }
}
