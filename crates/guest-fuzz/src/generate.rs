//! Generators.
use crate::{error::Error, instruction::Instruction, region::RegionMap};
/// G
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Generator {
    /// M
    #[default]
    Mixed,
}
impl Generator {
    /// p
    pub fn prepare(&self, _: &RegionMap) -> Prepared {
        Prepared
    }
}
impl std::fmt::Display for Generator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("mixed")
    }
}
impl std::str::FromStr for Generator {
    type Err = Error;
    fn from_str(_: &str) -> Result<Self, Error> {
        Ok(Self::Mixed)
    }
}
/// P
#[derive(Clone, Debug)]
pub struct Prepared;
impl Prepared {
    /// l
    pub fn length(&self) -> u64 {
        1
    }
    /// e
    pub fn episode(&self, _: u64, _: u64) -> Episode {
        Episode
    }
}
/// E
#[derive(Clone, Debug)]
pub struct Episode;
impl Iterator for Episode {
    type Item = Instruction;
    fn next(&mut self) -> Option<Instruction> {
        None
    }
}
