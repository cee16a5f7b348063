#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::score_line::run(data));
