#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| atp_parsers::check("rpc_open", data));
