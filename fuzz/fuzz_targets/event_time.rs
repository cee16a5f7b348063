#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| palisade_fuzz::event_time::run(data));
