#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| atp_parsers::check("console", data));
