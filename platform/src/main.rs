//! switchback: PID 1 and every errand.
fn main() {}
