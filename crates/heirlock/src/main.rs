//! The `heirlock` program.

fn main() {}
