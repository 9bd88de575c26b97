//! The adapters of the proxy: ports on the real network.

pub mod frontend;
