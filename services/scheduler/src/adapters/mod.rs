//! Implementations of the ports. The one for tests, a clock set by hand, lives with the tests.

mod system_clock;

pub use system_clock::SystemClock;
