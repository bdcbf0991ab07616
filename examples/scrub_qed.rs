//! Copies a QED image without a byte of what the guest stored, for a bug report: to FILE.scrubbed.

use std::error::Error;
use std::fs::File;

use vdisk_format::Image;
use vdisk_format::qed::scrub::scrub_to;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: scrub_qed FILE")?;
    let image = Image::open(&path)?;
    let mut copy = path;
    copy.push(".scrubbed");
    let scrubbed = scrub_to(&image, &File::create_new(copy)?)?; // sparse: only tables take space
    println!("{} L2 tables, {} entries replaced", scrubbed.tables, scrubbed.replaced);
    Ok(())
}
