//! The simulator and the end-to-end tests.
