//! The hands of a Switchback device: Linux.
#![deny(unsafe_code)]

pub mod errand;
pub mod launch;
pub mod sys;
pub mod wire;
