//! What lies in the cache folder.
#![no_main]

use backup_repository::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::run(fuzzing::FILES, input));
