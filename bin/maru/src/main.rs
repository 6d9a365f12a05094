//! A private cloud in one binary.

fn main() {}
