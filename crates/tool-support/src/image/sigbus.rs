//! A file cut short while it is mapped raises SIGBUS: this says so, instead of a core dump.

#[cfg(unix)]
pub(super) use handler::{watch, writing};

#[cfg(not(unix))]
pub(super) fn watch(_path: &std::path::Path) {}
#[cfg(not(unix))]
pub(super) fn writing(_writing: bool) {}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a signal handler")]
mod handler {
    use std::path::Path;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI32, Ordering};

    use nix::libc;
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    use crate::status::{FAILED, HALF_WAY};

    static MESSAGE: OnceLock<String> = OnceLock::new();
    static STATUS: AtomicI32 = AtomicI32::new(FAILED as i32);

    /// Installs the handler for the image at `path`.
    pub(in super::super) fn watch(path: &Path) {
        let path = crate::output::escaped(path.as_os_str().as_encoded_bytes()).to_string();
        let message =
            format!("error: {path}: cannot be read: cut short while it was mapped, or an I/O error\n");
        if MESSAGE.set(message).is_err() {
            return;
        }
        let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND;
        let action = SigAction::new(SigHandler::SigAction(on_sigbus), flags, SigSet::empty());
        // SAFETY: `on_sigbus` calls nothing but write(2) and _exit(2), which are async-signal-safe, and reads a
        // OnceLock that was filled before this call and an atomic.
        let _ = unsafe { sigaction(Signal::SIGBUS, &action) };
    }

    /// From now on (or no longer) a commit is under way: an end now is half-way.
    pub(in super::super) fn writing(writing: bool) {
        STATUS.store((if writing { HALF_WAY } else { FAILED }).into(), Ordering::Relaxed);
    }

    extern "C" fn on_sigbus(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo_t.
        let is_map = unsafe { info.as_ref() }.is_some_and(|info| info.si_code == libc::BUS_ADRERR);
        if !is_map {
            return; // SA_RESETHAND: the fault comes again, and then ends the process as it should
        }
        let message = MESSAGE.get().map_or("", String::as_str);
        // SAFETY: write(2) of memory that lives as long as the process.
        let _ = unsafe { libc::write(2, message.as_ptr().cast(), message.len()) };
        // SAFETY: _exit(2) runs no destructors and takes no locks.
        unsafe { libc::_exit(STATUS.load(Ordering::Relaxed)) }
    }
}
