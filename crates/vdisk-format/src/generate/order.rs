//! [`Order`]: where L2 tables and data go.

/// In which order L2 tables and data are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Order {
    /// As a guest that writes its disk from start to end has QEMU allocate them: each L2 table, then its data.
    #[default]
    InOrder,
    /// All L2 tables, then all data.
    TablesFirst,
    /// In no order, L2 tables among the data: which one, says the seed.
    Random(u64),
}
