//! What is in objects when they are opened.
#![no_main]

use backup_repository::fuzzing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzing::run(fuzzing::TEXTS, input));
