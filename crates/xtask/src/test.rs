//! `test`: every test there is.

use crate::failure::Failure;
use crate::run::Run;
use crate::{deps, iotests, readme};

/// All features but the fuzz targets' `libfuzzer`, which wants a C++ compiler that no test needs.
const FEATURES: &str = "vdisk-format/serde,vdisk-format/generate,vdisk-format/decompress,tool-support/image";

/// Installs what is missing, then runs the workspace's tests, the README and QEMU's iotests.
///
/// The fuzz targets' smoke tests are tests of the workspace, and so are the examples in the
/// documentation.
pub(crate) fn test() -> Result<(), Failure> {
    deps::deps()?;
    Run::cargo(["test", "--workspace", "--features", FEATURES]).status()?;
    readme::readme(false)?;
    iotests::iotests(false)?;
    iotests::check::check(false)
}
