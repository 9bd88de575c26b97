//! What is wrong with the body of a scheduled command, by the JSON Schema of its type. That it can be decoded is checked
//! by decoding it; decoding ignores unknown fields and knows nothing of secrets.

use contract::secret::SECRET;
use serde_json::{Map, Value};

/// A field that must not be in the body of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandBodyError {
    /// The command has no such field.
    UnknownField {
        /// Its path (`keep.dayly`).
        field: String,
        /// The fields that there are at that place.
        known: Vec<String>,
    },
    /// It may hold secrets.
    SecretField {
        /// Its path.
        field: String,
    },
}

/// Checks a body against the schema of its type.
///
/// # Errors
/// The first field that is unknown, or is set and may hold secrets.
pub fn check_body(schema: &Value, body: &Value) -> Result<(), CommandBodyError> {
    let walk = Walk { definitions: &schema["$defs"] };
    walk.problems(schema, body, "").into_iter().next().map_or(Ok(()), Err)
}

struct Walk<'a> {
    definitions: &'a Value,
}

impl<'a> Walk<'a> {
    fn problems(&self, schema: &'a Value, value: &Value, path: &str) -> Vec<CommandBodyError> {
        if schema[SECRET] == true && is_set(value) {
            return vec![CommandBodyError::SecretField { field: path.into() }];
        }
        let schema = self.resolve(schema);
        if schema[SECRET] == true && is_set(value) {
            return vec![CommandBodyError::SecretField { field: path.into() }];
        }
        if let Some(cases) = cases_of(schema) {
            let problems = |case| self.problems(case, value, path);
            let fitting = cases.iter().filter(|case| self.fits(case, value)).map(problems);
            let of_none = || cases.iter().map(problems).max_by_key(Vec::len);
            return fitting.min_by_key(Vec::len).or_else(of_none).unwrap_or_default();
        }
        match value {
            Value::Object(fields) => self.problems_of_object(schema, fields, path),
            // Serde would take the items for the fields in their order, unseen by the rules below.
            Value::Array(_) if schema["type"] == "object" => {
                let known = schema["properties"].as_object().into_iter().flat_map(Map::keys);
                vec![CommandBodyError::UnknownField {
                    field: format!("{path}[0]"),
                    known: known.cloned().collect(),
                }]
            }
            Value::Array(items) => {
                let each = items.iter().enumerate();
                each.flat_map(|(index, item)| {
                    self.problems(&schema["items"], item, &format!("{path}[{index}]"))
                })
                .collect()
            }
            _ => Vec::new(),
        }
    }

    fn problems_of_object(
        &self,
        schema: &'a Value,
        fields: &Map<String, Value>,
        path: &str,
    ) -> Vec<CommandBodyError> {
        let of_field = |(name, value): (&String, &Value)| {
            let field = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let rest = &schema["additionalProperties"];
            match schema["properties"].get(name) {
                Some(known) => self.problems(known, value, &field),
                None if rest.is_object() => self.problems(rest, value, &field),
                None if schema["type"] == "object" && rest != true => {
                    let known = schema["properties"].as_object().into_iter().flat_map(Map::keys);
                    vec![CommandBodyError::UnknownField { field, known: known.cloned().collect() }]
                }
                // A place for any value.
                None => Vec::new(),
            }
        };
        fields.iter().flat_map(of_field).collect()
    }

    fn resolve(&self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            Some(name) => self.resolve(&self.definitions[name]),
            None => schema,
        }
    }

    /// Whether a value may be of this case: of its kind, and with all that it requires.
    fn fits(&self, case: &'a Value, value: &Value) -> bool {
        let case = self.resolve(case);
        let kind_fits = match &case["type"] {
            Value::String(kind) => is_of_kind(value, kind),
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).any(|kind| is_of_kind(value, kind)),
            _ => true,
        };
        let required = case["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        kind_fits && required.into_iter().all(|name| value.get(name).is_some())
    }
}

fn cases_of(schema: &Value) -> Option<&Vec<Value>> {
    schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array())
}

fn is_of_kind(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => kind == "null",
        Value::Bool(_) => kind == "boolean",
        Value::Number(_) => kind == "number" || kind == "integer",
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use contract::backup::ApplyRetention;
    use contract::catalog::RequestEntry;
    use contract::operation::OperationReport;
    use contract::provisioner::CreateVm;
    use contract::{Request, upgrade::ListServices};
    use serde_json::json;

    use super::*;

    fn check<R: Request>(body: &Value) -> Result<(), CommandBodyError> {
        check_body((RequestEntry::of::<R>().request)().as_value(), body)
    }

    #[test]
    fn fields_given_by_their_order_are_refused() {
        assert!(matches!(
            check::<ApplyRetention>(&json!({ "keep": [7] })),
            Err(CommandBodyError::UnknownField { field, .. }) if field == "keep[0]"
        ));
        let definition =
            json!(["web", "debian", 1, 1_073_741_824u64, 8_589_934_592u64, [], { "TOKEN": "x" }, []]);
        assert!(check::<CreateVm>(&json!({ "definition": definition })).is_err());
    }

    fn machine(part: &str, value: Value) -> Value {
        let mut definition = json!({
            "name": "web", "seed": "debian", "cpu_count": 1, "ram_size": "1 GiB", "disk_size": "8 GiB",
            "domains": [{ "domain": "web.example", "port": 80 }],
        });
        definition[part] = value;
        json!({ "definition": definition })
    }

    fn secret(field: &str) -> Result<(), CommandBodyError> {
        Err(CommandBodyError::SecretField { field: field.into() })
    }

    #[test]
    fn a_misspelt_field_is_named_with_those_that_there_are() {
        assert_eq!(check::<ApplyRetention>(&json!({ "keep": { "daily": 7 }, "vm": "web" })), Ok(()));
        assert_eq!(check::<ApplyRetention>(&json!({ "keep": { "daily": 7 }, "vm": null })), Ok(()));
        let Err(CommandBodyError::UnknownField { field, known }) =
            check::<ApplyRetention>(&json!({ "keep": { "dayly": 7 } }))
        else {
            panic!("it is misspelt");
        };
        assert_eq!(field, "keep.dayly");
        assert!(known.contains(&"daily".to_string()), "{known:?}");
        let outside = check::<ApplyRetention>(&json!({ "keep": {}, "machine": "web" }));
        assert!(matches!(outside, Err(CommandBodyError::UnknownField { field, .. }) if field == "machine"));
        let none = check::<ListServices>(&json!({ "vm": "web" }));
        assert_eq!(none, Err(CommandBodyError::UnknownField { field: "vm".into(), known: vec![] }));
    }

    #[test]
    fn fields_inside_lists_are_checked_too() {
        let misspelt = machine("domains", json!([{ "domain": "web.example", "prot": 80 }]));
        let problem = check::<CreateVm>(&misspelt);
        assert!(
            matches!(&problem, Err(CommandBodyError::UnknownField { field, .. }) if field == "definition.domains[0].prot"),
            "{problem:?}"
        );
    }

    #[test]
    fn a_field_that_may_hold_secrets_is_refused_where_it_is_set() {
        assert_eq!(check::<CreateVm>(&machine("cpu_count", json!(2))), Ok(()));
        assert_eq!(check::<CreateVm>(&machine("env", json!({}))), Ok(()));
        assert_eq!(check::<CreateVm>(&machine("env", json!({ "TOKEN": "x" }))), secret("definition.env"));
        let script = json!([{ "name": "install.sh", "text": "#!/bin/sh" }]);
        assert_eq!(check::<CreateVm>(&machine("install", script)), secret("definition.install[0].text"));
    }

    #[test]
    fn a_place_for_any_value_takes_any_field() {
        let schema = schemars::schema_for!(OperationReport);
        assert_eq!(
            check_body(schema.as_value(), &json!({ "output": { "anything": { "at": "all" } } })),
            Ok(())
        );
    }
}
