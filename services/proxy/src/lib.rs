//! The proxy service: leads traffic to virtual machines.
//!
//! [`front`] is its HTTP data plane; what it decides is in `proxy-domain`.

pub mod front;
