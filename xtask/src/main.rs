//! TODO front page.

fn main() {}
