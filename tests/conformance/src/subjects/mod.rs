//! The frontends.

mod core;
mod esp32;
mod linux;

pub use core::Core;
pub use esp32::{Asynchronous, Blocking};
pub use linux::Linux;
