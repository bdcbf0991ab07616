//! How every command opens its image.

use std::path::Path;

use vdisk_format::Image;

use super::sigbus;
use crate::status::Outcome;

/// The options about locks.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct OpenArgs {
    /// Read the image even while another program writes to it: what is shown may then be half old, half new
    #[arg(short = 'U', long, global = true)]
    pub force_share: bool,

    /// Take no locks and respect none: for file systems that have none, and for those who know better
    #[arg(long, global = true)]
    pub no_lock: bool,
}

impl OpenArgs {
    /// Opens `path` for reading.
    ///
    /// # Errors
    /// As [`ImageOptions::open`](vdisk_format::image::ImageOptions::open).
    pub fn read(self, path: &Path) -> Outcome<Image> {
        sigbus::watch(path);
        Ok(Image::options().lock(!self.no_lock && !self.force_share).open(path)?)
    }

    /// Opens `path` for writing. `--force-share` is about reading, and changes nothing here.
    ///
    /// # Errors
    /// As [`ImageOptions::open`](vdisk_format::image::ImageOptions::open).
    pub fn write(self, path: &Path) -> Outcome<Image> {
        sigbus::watch(path);
        Ok(Image::options().write(true).lock(!self.no_lock).open(path)?)
    }
}
