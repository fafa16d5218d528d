//! Herald, the command.
fn main() {}
