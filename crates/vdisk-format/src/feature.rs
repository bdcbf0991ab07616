//! Feature bits, as qcow2 and QED have them: three bitmaps, which say what a program that does not know a bit may do.

/// The three bitmaps of feature bits, with the names that the originals' command line gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum FeatureGroup {
    /// Who does not know a bit must not open the image.
    Incompatible,
    /// Who does not know a bit can ignore it.
    Compatible,
    /// Who does not know a bit and writes to the image must clear it.
    Autoclear,
}

impl FeatureGroup {
    /// All of them, in the order of the qcow2 feature name table's type byte (0, 1, 2).
    pub const ALL: [Self; 3] = [Self::Incompatible, Self::Compatible, Self::Autoclear];

    /// `incompatible`, `compatible` or `autoclear`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incompatible => "incompatible",
            Self::Compatible => "compatible",
            Self::Autoclear => "autoclear",
        }
    }
}
