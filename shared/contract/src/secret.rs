//! Secrets in messages: which fields may hold one, and who may see them.
//!
//! A field that may hold a secret is marked `x-secret` in the schema of its type. A message travels with such fields; rows,
//! journals and events never hold them in clear, and no schedule may set them.

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

use crate::message::Caller;

/// The mark of fields that may hold secrets, in the schema.
pub const SECRET: &str = "x-secret";

/// The person whose key an installation makes at its first start, and who may see secrets.
pub const OPERATOR: &str = "operator";

/// Whether values of a type may hold secrets.
pub fn has_secrets<T: JsonSchema>() -> bool {
    is_marked(schema_for!(T).as_value())
}

fn is_marked(schema: &Value) -> bool {
    match schema {
        Value::Object(fields) => {
            fields.get(SECRET) == Some(&Value::Bool(true)) || fields.values().any(is_marked)
        }
        Value::Array(items) => items.iter().any(is_marked),
        _ => false,
    }
}

impl Caller {
    /// Whether secrets are shown to who asks: the operator, or anybody where the bus has no accounts, as in tests.
    pub fn may_see_secrets(&self) -> bool {
        match self {
            Caller::Person { name, .. } => name.as_deref() == Some(OPERATOR),
            Caller::Anonymous => true,
            Caller::Service(_) | Caller::JoiningHost { .. } | Caller::Unknown => false,
        }
    }

    /// Whether both are the same service or person: people are known by their keys, whatever their names are by now.
    pub fn is_same_as(&self, other: &Caller) -> bool {
        match (self, other) {
            (Caller::Person { user, .. }, Caller::Person { user: other, .. }) => user == other,
            (Caller::Unknown, _) => false,
            _ => self == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Visitor, visit};
    use crate::{DurableCommand, Event, Request, Service};

    #[test]
    fn only_the_provisioner_has_commands_with_secrets_and_no_schedule_may_send_one() {
        #[derive(Default)]
        struct Commands(Vec<&'static str>);
        impl Visitor for Commands {
            fn request<R: Request>(&mut self) {}
            fn durable<C: DurableCommand>(&mut self) {
                if has_secrets::<C>() {
                    assert_eq!(
                        C::OWNER.services(),
                        [Service::Provisioner],
                        "{}: its rows are encrypted",
                        C::NAME
                    );
                    assert!(!C::SCHEDULABLE, "{}: a schedule is a row, too", C::NAME);
                    self.0.push(C::NAME);
                }
            }
            fn event<E: Event>(&mut self) {}
        }
        let mut commands = Commands::default();
        visit(&mut commands);
        assert_eq!(commands.0, ["create_vm"]);
    }

    #[test]
    fn secrets_are_for_the_operator() {
        let person = |name: Option<&str>| Caller::Person { user: "U".into(), name: name.map(Into::into) };
        assert!(person(Some(OPERATOR)).may_see_secrets() && Caller::Anonymous.may_see_secrets());
        let others = [person(Some("alice")), person(None), Caller::Service(Service::Backup), Caller::Unknown];
        assert!(!others.iter().any(Caller::may_see_secrets));
        assert!(person(Some("alice")).is_same_as(&person(None)), "she was renamed");
        assert!(!Caller::Unknown.is_same_as(&Caller::Unknown), "nobody knows");
        assert!(!person(None).is_same_as(&Caller::Service(Service::Backup)));
    }
}
