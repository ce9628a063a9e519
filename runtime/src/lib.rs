//! Switchback: what the device decides.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod boot;
pub mod control;
pub mod fault;
pub mod http;
pub mod id;
pub mod journal;
pub mod json;
pub mod limits;
pub mod lxc;
pub mod machine;
pub mod port;
pub mod state;
pub mod store;
pub mod turn;
