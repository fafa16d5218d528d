//! Load tool.
fn main() {}
