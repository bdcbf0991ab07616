//! `set-header NAME VALUE`.

use std::path::Path;

use vdisk_format::record::Field;
use vdisk_format::{Plan, Result};

use super::{Format, OpenArgs, PlanArgs};
use crate::number;
use crate::status::{Failure, Outcome};

/// The arguments of `set-header`.
#[derive(Debug, Clone, clap::Args)]
pub struct SetHeaderArgs {
    /// The field, by its name in `dump-header`
    #[arg(index = 1)]
    // said, so that a binary can change this help with `mut_arg`, which else puts it last
    pub name: String,
    /// The new value
    #[arg(index = 2, allow_hyphen_values = true)]
    pub value: String,
    /// The options of every change
    #[command(flatten)]
    pub plan: PlanArgs,
}

impl SetHeaderArgs {
    /// Runs the command on the image at `path`. `field` is the field that [`name`](Self::name) names, if it is one of
    /// the format's; `set` plans a field's new value.
    ///
    /// # Errors
    /// In the originals' words where there is no such field, or the value is no number; where it is too large for the
    /// field; and what [`PlanArgs::run`] does.
    pub fn run(
        &self,
        format: Format,
        open: OpenArgs,
        json: bool,
        path: &Path,
        field: Option<&Field>,
        set: fn(&[u8], &str, u64) -> Result<Plan>,
    ) -> Outcome {
        let (field, number) = self.checked(field)?;
        self.plan.run(format, open, json, path, |image| set(image, field.name, number))
    }

    fn checked<'f>(&self, field: Option<&'f Field>) -> Outcome<(&'f Field, u64)> {
        let Self { name, value, .. } = self;
        let number = number::parse(value)
            .ok_or_else(|| Failure::original(format!("'{value}' is not a valid number")))?;
        let field =
            field.ok_or_else(|| Failure::original(format!("'{name}' is not a known header field")))?;
        let number = u64::try_from(number).ok().filter(|&number| number <= field.max());
        let too_large = || {
            Failure::usage(format!(
                "{name} at offset {:#x}: expected 0 to {:#x} ({} bits), found {value}",
                field.offset,
                field.max(),
                8 * field.width
            ))
        };
        Ok((field, number.ok_or_else(too_large)?))
    }
}
