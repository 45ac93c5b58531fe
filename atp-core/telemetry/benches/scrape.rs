//! What a scrape costs with a thousand hosts.

#![expect(missing_docs, reason = "criterion's macros make functions without any")]

fn main() {}
