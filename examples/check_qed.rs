//! Checks a QED image, and prints what is wrong with it.

use std::error::Error;

use vdisk_format::Image;
use vdisk_format::qed::check::check;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: check_qed FILE")?;
    let check = check(&Image::open(path)?)?; // whatever is wrong with it, to the end
    for finding in check.report.findings() {
        println!("{:?}: {finding}", finding.severity);
    }
    println!("{:?}: {} corruptions, {} leaks", check.verdict(), check.corruptions, check.leaks);
    Ok(())
}
