//! `test`: every test there is.

use crate::failure::Failure;
use crate::run::Run;
use crate::{deps, iotests, readme};

/// Installs what is missing, then runs the workspace's tests, the README and QEMU's iotests.
///
/// The fuzz targets' smoke tests are tests of the workspace, and so are the examples in the
/// documentation.
pub(crate) fn test() -> Result<(), Failure> {
    deps::deps()?;
    Run::cargo(["test", "--workspace", "--all-features"]).status()?;
    readme::readme(false)?;
    iotests::iotests(false)
}
