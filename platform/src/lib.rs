//! The hands of a Switchback device: Linux.
#![deny(unsafe_code)]

pub mod alloc;
pub mod boot;
pub mod config;
pub mod confine;
pub mod console;
pub mod containers;
pub mod disk;
pub mod early;
pub mod endpoint;
pub mod env;
pub mod errand;
#[cfg(feature = "faults")]
pub mod faults;
pub mod fetch;
pub mod keeper;
pub mod kmsg;
pub mod launch;
pub mod linux;
pub mod logs;
pub mod modules;
pub mod path;
pub mod pvcontrol;
pub mod signals;
pub mod sockets;
pub mod start;
pub mod sys;
pub mod transfer;
pub mod turns;
pub mod usage;
pub mod verify;
pub mod wait;
pub mod watchdog;
pub mod wire;
pub mod wishes;
