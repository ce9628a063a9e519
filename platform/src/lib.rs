//! The hands of a Switchback device: Linux.
#![deny(unsafe_code)]
