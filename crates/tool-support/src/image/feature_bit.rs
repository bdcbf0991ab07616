//! `set-feature-bit GROUP BIT` and `clear-feature-bit GROUP BIT`.

use std::path::Path;

use vdisk_format::{FeatureGroup, Plan, Result};

use super::{Format, OpenArgs, PlanArgs};
use crate::number;
use crate::status::{Failure, Outcome};

/// The arguments of the two commands that change a feature bit.
#[derive(Debug, Clone, clap::Args)]
pub struct FeatureBitArgs {
    /// incompatible, compatible or autoclear
    pub group: String,
    /// The bit's number, 0 to 63
    #[arg(allow_hyphen_values = true)]
    pub bit: String,
    /// The options of every change
    #[command(flatten)]
    pub plan: PlanArgs,
}

impl FeatureBitArgs {
    /// Runs the command on the image at `path`: sets the bit (`on`) or clears it. `set` plans that.
    ///
    /// # Errors
    /// In the originals' words where there is no such group or bit; and what [`PlanArgs::run`] does.
    pub fn run(
        &self,
        format: Format,
        open: OpenArgs,
        json: bool,
        path: &Path,
        on: bool,
        set: fn(&[u8], FeatureGroup, u32, bool) -> Result<Plan>,
    ) -> Outcome {
        let (group, bit) = self.checked()?;
        self.plan.run(format, open, json, path, |image| set(image, group, bit, on))
    }

    fn checked(&self) -> Outcome<(FeatureGroup, u32)> {
        let not_a_bit =
            |bit: &str| Failure::original(format!("'{bit}' is not a valid bit number in range [0, 64)"));
        let number = number::parse(&self.bit).ok_or_else(|| not_a_bit(&self.bit))?;
        let bit = u32::try_from(number).ok().filter(|&bit| bit < 64);
        // The original names the number here, not its spelling.
        let bit = bit.ok_or_else(|| not_a_bit(&number.to_string()))?;
        let group = FeatureGroup::ALL.into_iter().find(|group| group.name() == self.group);
        let not_a_group = || {
            let words = "is not a valid group, try 'incompatible', 'compatible', or 'autoclear'";
            Failure::original(format!("'{}' {words}", self.group))
        };
        Ok((group.ok_or_else(not_a_group)?, bit))
    }
}
