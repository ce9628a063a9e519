//! Switchback: see the module list.
#![no_std]
#![forbid(unsafe_code)]
