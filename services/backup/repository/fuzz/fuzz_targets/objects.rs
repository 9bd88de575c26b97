//! Objects as they lie in the store.
#![no_main]

use backup_repository::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::run(fuzzing::OBJECTS, input));
