//! The real thing behind the ports. Its counterpart for tests, a clock set by hand, lives with the tests.

mod system_clock;

pub use system_clock::SystemClock;
