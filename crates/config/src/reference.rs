//! What is derived from a declaration besides the parser: a JSON schema and a
//! reference page.

use serde_json::{Map, Value, json};

use crate::key::{AnyKey, SectionSpec, Spec};

/// The JSON schema (2020-12) of a configuration file.
#[must_use]
pub fn schema(spec: &Spec) -> Value {
    let properties: Map<String, Value> = spec
        .sections
        .iter()
        .map(|section| (section.name.to_owned(), section_schema(section)))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": spec.title,
        "description": spec.help,
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn section_schema(section: &SectionSpec) -> Value {
    let properties: Map<String, Value> = section
        .keys
        .iter()
        .map(|key| (key.name().to_owned(), key_schema(*key)))
        .collect();
    let required: Vec<&str> = section
        .keys
        .iter()
        .filter(|key| key.required())
        .map(|key| key.name())
        .collect();
    let mut table = json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "required": required,
    });
    if section.repeated {
        return json!({"type": "array", "description": section.help, "items": table});
    }
    put(&mut table, "description", json!(section.help));
    table
}

fn key_schema(key: &dyn AnyKey) -> Value {
    let mut schema = key.schema();
    put(&mut schema, "description", json!(key.help()));
    if let Some(default) = key.default().and_then(default_value) {
        put(&mut schema, "default", default);
    }
    schema
}

fn put(schema: &mut Value, name: &str, value: Value) {
    if let Value::Object(map) = schema {
        map.insert(name.to_owned(), value);
    }
}

/// A default, written as TOML, as JSON.
fn default_value(text: &str) -> Option<Value> {
    let value = toml::de::DeValue::parse(text).ok()?;
    json_of(value.get_ref())
}

fn json_of(value: &toml::de::DeValue<'_>) -> Option<Value> {
    use toml::de::DeValue as V;
    Some(match value {
        V::String(text) => json!(text.as_ref()),
        V::Integer(number) => json!(i64::from_str_radix(number.as_str(), number.radix()).ok()?),
        V::Boolean(flag) => json!(flag),
        V::Array(items) => {
            let items: Option<Vec<Value>> = items.iter().map(|i| json_of(i.get_ref())).collect();
            json!(items?)
        }
        V::Float(_) | V::Datetime(_) | V::Table(_) => return None,
    })
}

/// The reference page of a configuration file, as Markdown: a heading and a
/// table for each section.
#[must_use]
pub fn reference(spec: &Spec) -> String {
    let mut page = format!("## {}\n\n{}\n", spec.title, spec.help);
    for section in spec.sections {
        page.push_str(&format!(
            "\n### `{}` in {}\n\n{}\n\n",
            section.heading(),
            spec.title,
            section.help
        ));
        page.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
        for key in section.keys {
            page.push_str(&row(*key));
        }
        if !section.repeated
            && let Some(first) = section.keys.first()
            && let Some(variable) = section.variable(first.name())
        {
            page.push_str(&format!(
                "\nIn the environment: `ADIT_{}_…`, as in `{variable}`.\n",
                section.name.to_ascii_uppercase()
            ));
        }
    }
    page
}

fn row(key: &dyn AnyKey) -> String {
    let default = match (key.default(), key.required()) {
        (Some(default), _) => format!("`{default}`"),
        (None, true) => "required".to_owned(),
        (None, false) => String::new(),
    };
    let cells = [
        format!("`{}`", key.name()),
        key.describe(),
        default,
        key.help().to_owned(),
    ];
    format!("| {} |\n", cells.map(|c| c.replace('|', "\\|")).join(" | "))
}
