//! The thin layer over actix: a mailbox has a number, a message carries its span, an answer has a deadline.
//!
//! ```text
//!   caller --ask(message, deadline)--> [mailbox of N] --> Handler<TracedMessage<M>>: one decision, effects out
//!                 \_ TracedMessage { message, span }  : the trace goes on inside the actor
//! ```
//!
//! It promises that a full mailbox makes the caller wait, within its deadline, and never grows; and that a span
//! entered in a handler is a child of the caller's. It knows no service. After a panic an actix mailbox stays closed:
//! a panic is a bug and ends the process (the chassis sees to it), the supervisor outside starts it again.

#![warn(clippy::missing_errors_doc)]

use std::time::Duration;

use actix::dev::ToEnvelope;
use actix::{Actor, Addr, Context, Handler, MailboxError, Message};
use tracing::{Instrument, Span};

/// A message with the span in which it was sent.
#[derive(Debug)]
pub struct TracedMessage<M> {
    /// The message.
    pub message: M,
    /// The span; enter it in the handler.
    pub span: Span,
}

impl<M> TracedMessage<M> {
    /// Wraps a message in the span at hand.
    pub fn here(message: M) -> Self {
        TracedMessage { message, span: Span::current() }
    }
}

impl<M: Message> Message for TracedMessage<M> {
    type Result = M::Result;
}

/// Why an actor did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It has ended.
    #[error("the {0} has ended")]
    Ended(&'static str),
    /// Its answer, or a place in its mailbox, took too long.
    #[error("the {actor} did not answer within {} s", .after.as_secs_f32())]
    TimedOut {
        /// The actor's type.
        actor: &'static str,
        /// The deadline.
        after: Duration,
    },
}

/// Asks an actor and waits for its answer, within a deadline. `message_name` names the span.
///
/// # Errors
/// When the actor has ended, or does not answer within the deadline.
pub async fn ask<A, M>(address: &Addr<A>, message: M, deadline: Duration) -> Result<M::Result, AskError>
where
    M: Message + Send + 'static,
    M::Result: Send,
    A: Actor + Handler<TracedMessage<M>>,
    A::Context: ToEnvelope<A, TracedMessage<M>>,
{
    let actor = short_name::<A>();
    let span = tracing::info_span!("ask", otel.name = short_name::<M>(), actor);
    let asked = async {
        match tokio::time::timeout(deadline, address.send(TracedMessage::here(message))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(MailboxError::Closed)) => Err(AskError::Ended(actor)),
            Ok(Err(MailboxError::Timeout)) | Err(_) => Err(AskError::TimedOut { actor, after: deadline }),
        }
    };
    asked.instrument(span).await
}

/// Starts an actor with a mailbox of a given size, on the arbiter at hand.
pub fn start<A: Actor<Context = Context<A>>>(mailbox: usize, actor: A) -> Addr<A> {
    A::create(|context| {
        context.set_mailbox_capacity(mailbox);
        actor
    })
}

/// A type's name without its path.
fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Doubler;
    impl Actor for Doubler {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "u32")]
    struct Double(u32);

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Never;

    impl Handler<TracedMessage<Double>> for Doubler {
        type Result = u32;
        fn handle(&mut self, message: TracedMessage<Double>, _: &mut Context<Self>) -> u32 {
            message.message.0 * 2
        }
    }
    impl Handler<TracedMessage<Never>> for Doubler {
        type Result = actix::ResponseFuture<()>;
        fn handle(&mut self, _: TracedMessage<Never>, _: &mut Context<Self>) -> Self::Result {
            Box::pin(std::future::pending())
        }
    }

    #[actix::test]
    async fn an_answer_comes_back() {
        let doubler = start(4, Doubler);
        assert_eq!(ask(&doubler, Double(21), Duration::from_secs(5)).await, Ok(42));
    }

    #[actix::test]
    async fn a_late_answer_is_an_error_that_says_so() {
        let doubler = start(4, Doubler);
        let after = Duration::from_millis(50);
        assert_eq!(ask(&doubler, Never, after).await, Err(AskError::TimedOut { actor: "Doubler", after }));
    }
}
