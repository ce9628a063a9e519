//! What the `start` errand does to make a container, step by step: `loops` (images), `mounts` (primitives).

pub mod loops;
pub mod mounts;
