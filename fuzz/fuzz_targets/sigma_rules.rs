#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::sigma_rules::run(data));
