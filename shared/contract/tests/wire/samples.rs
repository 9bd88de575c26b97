//! Samples of values, made from their JSON Schema: every case of every enum, every optional field present and absent.
//! A string takes the example that its schema gives.

use serde_json::{Map, Value, json};

/// A sample of each case of a schema, and one with nothing optional where that differs.
pub(crate) fn of(schema: &schemars::Schema) -> Vec<Value> {
    let root = schema.as_value();
    let sampler = Sampler { definitions: root.get("$defs").cloned().unwrap_or_default() };
    let mut samples = sampler.samples(root, true);
    for least in sampler.samples(root, false) {
        if !samples.contains(&least) {
            samples.push(least);
        }
    }
    samples
}

struct Sampler {
    definitions: Value,
}

impl Sampler {
    /// `full`: with everything that is optional.
    fn samples(&self, schema: &Value, full: bool) -> Vec<Value> {
        if let Some(example) = schema["examples"].get(0) {
            return vec![example.clone()];
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().expect("a reference has a name");
            return self.samples(&self.definitions[name], full);
        }
        // An enum without cases.
        if schema.as_bool() == Some(false) || schema.get("not").is_some() {
            return vec![];
        }
        if let Some(only) = schema.get("const") {
            return vec![only.clone()];
        }
        if let Some(values) = schema["enum"].as_array() {
            return values.clone();
        }
        for key in ["oneOf", "anyOf"] {
            if let Some(cases) = schema[key].as_array() {
                return cases
                    .iter()
                    .filter(|case| case["type"] != "null")
                    .flat_map(|case| self.samples(case, full))
                    .collect();
            }
        }
        let kinds = match &schema["type"] {
            Value::String(kind) => vec![kind.as_str()],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            // Any value.
            _ => vec![],
        };
        match kinds.iter().find(|kind| **kind != "null") {
            Some(&"object") => self.objects(schema, full),
            Some(&"array") if !full => vec![json!([])],
            Some(&"array") if schema["prefixItems"].is_array() => {
                let items = schema["prefixItems"].as_array().into_iter().flatten();
                vec![items.map(|item| self.samples(item, full)[0].clone()).collect()]
            }
            Some(&"array") => vec![Value::Array(self.samples(&schema["items"], full))],
            Some(&"string") if schema["format"] == "date-time" => vec![json!("2026-11-22T06:30:00Z")],
            Some(&"string") if schema["format"] == "ip" => vec![json!("10.88.0.23")],
            Some(&"string") => vec![json!("some text")],
            Some(&"boolean") => vec![json!(true)],
            // Near the end of each type, so that a narrower one does not hold it.
            Some(&"integer") => vec![match schema["format"].as_str() {
                Some("uint8") => json!(200),
                Some("uint16") => json!(40_000),
                Some("uint32") => json!(3_000_000_000_u32),
                Some("uint64") => json!(10_737_418_240_u64),
                _ => json!(7),
            }],
            Some(&"number") => vec![json!(0.5)],
            _ => vec![json!({ "any": "value" })],
        }
    }

    /// As many objects as the field with the most samples has; the others repeat theirs.
    fn objects(&self, schema: &Value, full: bool) -> Vec<Value> {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields: Vec<(String, Vec<Value>)> = Vec::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            if full || required.contains(&name.as_str()) {
                fields.push((name.clone(), self.samples(field, full)));
            }
        }
        if full && schema["additionalProperties"].is_object() {
            fields.push(("KEY".into(), self.samples(&schema["additionalProperties"], full)));
        }
        let count = fields.iter().map(|(_, samples)| samples.len()).max().unwrap_or(1);
        let object = |index: usize| {
            let field = |(name, samples): &(String, Vec<Value>)| {
                (name.clone(), samples[index % samples.len()].clone())
            };
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        };
        (0..count).map(object).collect()
    }
}
