//! The locks that keep two programs from writing to one image.
//!
//! QEMU locks single bytes far inside the file, which stand for permissions: byte `100 + n` is held by who uses
//! permission *n*, byte `200 + n` by who does not share it (1 write, 3 resize, 0 consistent read). The locks are open
//! file description locks, all of them read locks, and whoever wants in takes its own and then asks whether anybody
//! else holds a twin. cloud-hypervisor locks the whole range in the same way, crosvm uses flock(2), libvirt byte 0.
//!
//! Locks are Linux's; on other systems none are taken.

use std::fs::File;
use std::path::Path;

use crate::error::Result;

/// What the holder of the locks does with the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads: others may read, too.
    Read,
    /// Writes: nobody else may have the image open, not even as the base of a running overlay.
    Write,
}

/// Takes the locks for `access` on an open file, and holds them until the file, and every copy of it, is closed.
///
/// # Errors
/// [`InUse`](crate::Error::InUse) where somebody else has the image open, [`Unsupported`](crate::Error::Unsupported)
/// where the file system has no locks.
pub fn acquire(file: &File, access: Access, path: &Path) -> Result<()> {
    #[cfg(target_os = "linux")]
    return linux::acquire(file, access, path);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, access, path);
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, FlockArg, fcntl};
    use nix::libc;

    use super::Access;
    use crate::error::{Error, Result};

    /// The permission bytes, and the bytes of what is not shared, that a program of this kind holds.
    const fn held(access: Access) -> &'static [i64] {
        match access {
            Access::Read => &[100, 201, 203],
            Access::Write => &[100, 101, 103, 201, 203],
        }
    }

    /// The bytes that nobody else may hold meanwhile: the twins of those above, and libvirt's byte 0.
    const fn foreign(access: Access) -> &'static [i64] {
        match access {
            Access::Read => &[101, 103, 200, 0],
            Access::Write => &[101, 103, 200, 201, 203, 0],
        }
    }

    pub(super) fn acquire(file: &File, access: Access, path: &Path) -> Result<()> {
        for &byte in held(access) {
            let lock = range(libc::F_RDLCK, byte);
            match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
                Ok(_) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    return Err(in_use(path, access, &format!("byte {byte} is locked exclusively")));
                }
                Err(errno) => return Err(no_locks(path, errno)),
            }
        }
        for &byte in foreign(access) {
            let mut lock = range(libc::F_WRLCK, byte);
            fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(|errno| no_locks(path, errno))?;
            if i32::from(lock.l_type) != libc::F_UNLCK && !(access == Access::Read && is_reader(&lock, byte))
            {
                return Err(in_use(path, access, &holder(byte)));
            }
        }
        flock(file, access, path)
    }

    /// A reader that locks the whole file, as cloud-hypervisor does for a read-only disk, or byte 0, as libvirt does.
    fn is_reader(lock: &libc::flock, byte: i64) -> bool {
        let whole = lock.l_start == 0 && (lock.l_len == 0 || lock.l_len > 203);
        i32::from(lock.l_type) == libc::F_RDLCK && (whole || byte == 0)
    }

    #[expect(deprecated, reason = "its successor unlocks when dropped, and panics where that fails")]
    fn flock(file: &File, access: Access, path: &Path) -> Result<()> {
        let how = match access {
            Access::Read => FlockArg::LockSharedNonblock,
            Access::Write => FlockArg::LockExclusiveNonblock,
        };
        match nix::fcntl::flock(file.as_raw_fd(), how) {
            Err(Errno::EWOULDBLOCK) => Err(in_use(path, access, "another program holds a flock on it")),
            // The byte locks above worked: a file system without flock(2) has no holders of it either.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn range(kind: i32, byte: i64) -> libc::flock {
        // Both constants are small; the field is narrower than the constants' type.
        let (l_type, l_whence) = (kind as i16, libc::SEEK_SET as i16);
        libc::flock { l_type, l_whence, l_start: byte, l_len: 1, l_pid: 0 }
    }

    fn holder(byte: i64) -> String {
        let meaning = match byte {
            101 => "has it open for writing",
            103 => "has it open and may resize it",
            200 => "has it open and lets nobody read it",
            201 | 203 => "reads it, perhaps as the backing file of a running overlay, and lets nobody write",
            _ => "holds a lock on it",
        };
        format!("another program {meaning} (lock byte {byte})")
    }

    fn in_use(path: &Path, access: Access, what: &str) -> Error {
        Error::InUse { path: path.to_owned(), what: what.to_owned(), access: Some(access) }
    }

    fn no_locks(path: &Path, errno: Errno) -> Error {
        Error::NoLocks { path: path.to_owned(), source: errno.into() }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use nix::fcntl::Flock;

        fn open(path: &Path) -> File {
            File::options().read(true).write(true).open(path).unwrap()
        }

        #[test]
        fn readers_share_and_writers_do_not() {
            let file = tempfile::NamedTempFile::new().unwrap();
            let path = file.path();
            let (a, b) = (open(path), open(path));
            acquire(&a, Access::Read, path).unwrap();
            acquire(&b, Access::Read, path).unwrap();
            drop(b);
            let b = open(path);
            let error = acquire(&b, Access::Write, path).unwrap_err();
            assert!(matches!(error, Error::InUse { .. }), "{error}");
            drop((a, b));
            let (a, b) = (open(path), open(path));
            acquire(&a, Access::Write, path).unwrap();
            for access in [Access::Read, Access::Write] {
                assert!(matches!(acquire(&b, access, path), Err(Error::InUse { .. })), "{access:?}");
            }
        }

        #[test]
        fn a_flock_and_a_lock_on_the_whole_file_are_respected() {
            let file = tempfile::NamedTempFile::new().unwrap();
            let path = file.path();
            let flocked = Flock::lock(open(path), FlockArg::LockExclusiveNonblock).unwrap();
            assert!(matches!(acquire(&open(path), Access::Write, path), Err(Error::InUse { .. })));
            drop(flocked);
            for (kind, reading_works) in [(libc::F_WRLCK, false), (libc::F_RDLCK, true)] {
                let holder = open(path);
                fcntl(&holder, FcntlArg::F_OFD_SETLK(&libc::flock { l_len: 0, ..range(kind, 0) })).unwrap();
                assert!(acquire(&open(path), Access::Write, path).is_err());
                assert_eq!(acquire(&open(path), Access::Read, path).is_ok(), reading_works);
            }
        }
    }
}
