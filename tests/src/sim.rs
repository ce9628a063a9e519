//! The simulator: the device's own decisions and procedures on media that lose what was not made durable.

pub mod device;
pub mod explore;
pub mod fleet;
pub mod r#gen;
pub mod laws;
pub mod loader;
pub mod medium;
