//! What binds spans of several processes into one trace: W3C trace context (https://www.w3.org/TR/trace-context/) as text
//! pairs. Keys are lower case, because NATS headers are case-sensitive.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// A trace context on its way: `traceparent` and, where there is one, `tracestate`. It can be stored and taken up
/// later, as operations do that outlive the process that began them.
pub type TraceContext = HashMap<String, String>;

/// The context of a span, ready to be carried elsewhere. Empty where the span is not recorded.
pub fn inject(span: &Span) -> TraceContext {
    let mut pairs = TraceContext::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut pairs);
    pairs
}

/// Makes a span the child of the context that came along. Call it before the span is entered.
pub fn continue_trace(span: &Span, context: &TraceContext) {
    let parent = TraceContextPropagator::new().extract(context);
    if parent.span().span_context().is_valid() {
        // It fails only where no OpenTelemetry layer is installed, and then there is no trace to bind.
        drop(span.set_parent(parent));
    }
}

/// The trace that a span belongs to, 32 hexadecimal digits; nothing where it belongs to none.
pub fn trace_id(span: &Span) -> Option<String> {
    let id = span.context().span().span_context().trace_id();
    (id != TraceId::INVALID).then(|| id.to_string())
}
