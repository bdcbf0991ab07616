//! QED images of any shape that the specification allows.

mod builder;
mod layout;
mod validate;
mod write;

#[cfg(test)]
mod tests;

pub use builder::Qed;
