//! The limit for whoever checks a QED image: a loop over the same table bytes that counts how often each cluster is
//! named, and does nothing else. It trusts the image: give it none that you did not make.

#![expect(clippy::indexing_slicing, reason = "a bound to measure against, on images of our own")]

use std::error::Error;

use vdisk_format::Image;
use vdisk_format::qed::Header;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: table-loop IMAGE.qed")?;
    let image = Image::open(path)?;
    let fields = Header::parse(image.bytes())?.fields;
    let table = fields.cluster_size as usize * fields.table_size as usize;
    let shift = fields.cluster_size.trailing_zeros();
    let mut counts = vec![0u8; (image.bytes().len() >> shift) + 1];
    let mut allocated = 0u64;
    let l1 = &image.bytes()[fields.l1_table_offset as usize..][..table];
    for entry in l1.as_chunks::<8>().0 {
        let l2 = u64::from_le_bytes(*entry) as usize;
        if l2 == 0 {
            continue;
        }
        for entry in image.bytes()[l2..][..table].as_chunks::<8>().0 {
            let offset = u64::from_le_bytes(*entry);
            if offset > 1 {
                counts[(offset >> shift) as usize] += 1;
                allocated += 1;
            }
        }
        image.release(l2 as u64, table as u64);
    }
    println!("{allocated} allocated, {} named twice", counts.iter().filter(|&&count| count > 1).count());
    Ok(())
}
