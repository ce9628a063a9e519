//! One constant per board.

pub(crate) mod imx;
pub(crate) mod qemu_arm64;
pub(crate) mod rpi;
