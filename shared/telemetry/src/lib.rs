//! How Loam is watched: traces, metrics and logs over OTLP, and log lines for the person at the terminal.
//!
//! ```text
//!   tracing spans and events --+--> log lines on stderr        (LOAM_LOG sets the filter)
//!                              +--> OTLP traces and logs  --\
//!   opentelemetry meters ------+--> OTLP metrics          ---+--> whatever OTEL_EXPORTER_OTLP_ENDPOINT names
//! ```
//!
//! It promises that nothing breaks and nothing waits where nothing collects: without the endpoint variable no exporter
//! is built at all, and export runs on threads of its own. `Handle::flush` at the end sends what is left, in bounded
//! time. It does not know the bus; `inject` and `continue_trace` speak of plain text pairs that any carrier can take along.

#![warn(clippy::missing_errors_doc)]

pub mod context;
mod init;

pub use context::{TraceContext, continue_trace, inject, trace_id};
pub use init::{Handle, Identity, InitError, init};
pub use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};
pub use opentelemetry::{KeyValue, global::meter};
