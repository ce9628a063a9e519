//! Switchback: what the device decides.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![allow(clippy::large_enum_variant)] // there is no heap to box a variant on; values lie in tables

pub mod boot;
pub mod container;
pub mod control;
pub mod fault;
pub mod http;
pub mod id;
pub mod intake;
pub mod journal;
pub mod json;
pub mod limits;
pub mod lxc;
pub mod machine;
pub mod order;
pub mod port;
pub mod progress;
pub mod state;
pub mod store;
pub mod turn;
pub mod update;
