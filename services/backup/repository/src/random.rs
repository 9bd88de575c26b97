//! Random bytes from the operating system.

/// Fills an array from the system's random generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's random generator never fails on Linux");
    bytes
}
