//! Prints what the header of a qcow2 image says, and what is wrong with it.

use std::error::Error;

use vdisk_format::Image;
use vdisk_format::qcow2::{Header, check};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: read_header FILE")?;
    let image = Image::open(path)?; // maps the file, under a reader's locks
    let header = Header::parse(image.bytes())?; // parses whatever the fields say: the report judges them
    println!("version {}", header.v2.version);
    match header.cluster_size() {
        Some(size) => println!("cluster size {size}"),
        None => println!("cluster size 1 << {}", header.v2.cluster_bits),
    }
    for extension in header.extensions() {
        let extension = extension?; // an extension that the file cuts short is the last one
        println!("extension {} at {}, {} bytes", extension.magic, extension.offset, extension.length);
    }
    for finding in check::header(&header).findings() {
        println!("{:?}: {finding}", finding.severity);
    }
    Ok(())
}
