//! Sets a feature bit through a plan, and takes the change back: plan, preview, commit, undo.

use std::error::Error;
use std::path::PathBuf;

use vdisk_format::Image;
use vdisk_format::qcow2::{self, FeatureGroup, Header};
use vdisk_format::undo::UndoPlace;

fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: edit_header FILE")?);
    let image = Image::options().write(true).open(&path)?; // nobody else writes until `image` is gone
    let plan = qcow2::edit::set_feature_bit(image.bytes(), FeatureGroup::Compatible, 63, true)?;
    for write in plan.writes() {
        println!("{}: {:02x?} -> {:02x?} ({})", write.offset, write.old, write.new, write.why);
    }
    let preview = image.preview(&plan)?; // the whole image as it would be; costs a page or two
    println!("preview: {:#x}", Header::parse(&preview)?.v3.compatible_features);
    drop(preview);

    let undo = UndoPlace::beside(&path)?;
    plan.commit(image, Some(&undo), qcow2::fingerprint)?; // the record is on disk before the first write
    let image = Image::options().write(true).open(&path)?;
    println!("committed: {:#x}", Header::parse(image.bytes())?.v3.compatible_features);

    let record = undo.last()?.ok_or("the undo record is gone")?;
    record.undo(image, qcow2::fingerprint, false)?; // refuses where the image was used since
    println!("undone: {:#x}", Header::parse(Image::open(&path)?.bytes())?.v3.compatible_features);
    Ok(())
}
