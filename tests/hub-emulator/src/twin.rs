//! The twin of a device: two documents, each with its version.

use serde_json::{Map, Value, json};

/// Largest document in bytes, counted as documented.
const MAX_DOCUMENT: usize = 32 * 1024;
/// Deepest nesting of objects below the document itself: the documentation's own example has ten in its `tags`.
const MAX_DEPTH: usize = 10;
/// Longest key in bytes.
const MAX_KEY: usize = 1024;
/// Longest text, and largest single property, in bytes.
const MAX_VALUE: usize = 4 * 1024;
/// Largest absolute value of a whole number; the negative limit is one larger.
const MAX_NUMBER: i64 = 4_503_599_627_370_495;

#[derive(Clone, Debug)]
pub(crate) struct Twin {
    desired: Map<String, Value>,
    reported: Map<String, Value>,
    desired_version: u64,
    reported_version: u64,
}

impl Default for Twin {
    fn default() -> Self {
        Self { desired: Map::new(), reported: Map::new(), desired_version: 1, reported_version: 1 }
    }
}

impl Twin {
    pub(crate) fn with_desired(desired: Option<&Value>) -> Self {
        let mut twin = Self::default();
        if let Some(Value::Object(desired)) = desired {
            merge(&mut twin.desired, desired);
        }
        twin
    }

    /// Returns the body of the response to a GET.
    pub(crate) fn document(&self) -> Value {
        let with_version = |properties: &Map<String, Value>, version: u64| {
            let mut properties = properties.clone();
            properties.insert("$version".to_owned(), json!(version));
            properties
        };
        json!({
            "desired": with_version(&self.desired, self.desired_version),
            "reported": with_version(&self.reported, self.reported_version),
        })
    }

    /// Returns the version of the desired properties.
    pub(crate) fn desired_version(&self) -> u64 {
        self.desired_version
    }

    /// Merges reported properties if the expected version is the current one; 412 otherwise.
    pub(crate) fn report_into(&mut self, version: Option<u64>, body: &[u8]) -> Result<u64, u16> {
        if version.is_some_and(|version| version != self.reported_version) {
            return Err(412);
        }
        self.report(body)
    }

    /// Merges reported properties; returns the new version, or the status of the refusal.
    pub(crate) fn report(&mut self, body: &[u8]) -> Result<u64, u16> {
        let Ok(Value::Object(patch)) = serde_json::from_slice(body) else { return Err(400) };
        let merged = merged(&self.reported, &patch).map_err(|broken| broken.status())?;
        self.reported = merged;
        self.reported_version += 1;
        Ok(self.reported_version)
    }

    /// Merges desired properties; returns the new version and the body of the notification, or the error.
    pub(crate) fn desire(&mut self, patch: &Map<String, Value>) -> Result<(u64, Value), &'static str> {
        self.desired = merged(&self.desired, patch).map_err(Broken::text)?;
        self.desired_version += 1;
        let mut body = patch.clone();
        body.insert("$version".to_owned(), json!(self.desired_version));
        Ok((self.desired_version, Value::Object(body)))
    }
}

/// A twin limit that a patch exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Key,
    Depth,
    Number,
    Value,
    Document,
}

impl Broken {
    fn status(self) -> u16 {
        match self {
            Self::Key | Self::Depth | Self::Number => 400,
            Self::Value | Self::Document => 413,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Key => "a key is empty, longer than 1 KiB, or has a control character, `.`, `$` or a space",
            Self::Depth => "objects are nested deeper than 10",
            Self::Number => "a whole number is beyond the range of twins",
            Self::Value => "a property is larger than 4 KiB",
            Self::Document => "the document would exceed 32 KiB",
        }
    }
}

/// Returns `document` with `patch` merged into it, or the exceeded limit.
fn merged(document: &Map<String, Value>, patch: &Map<String, Value>) -> Result<Map<String, Value>, Broken> {
    check(patch, 0)?;
    let mut merged = document.clone();
    merge(&mut merged, patch);
    if depth(&merged) > MAX_DEPTH {
        return Err(Broken::Depth);
    }
    if size(&merged) > MAX_DOCUMENT {
        return Err(Broken::Document);
    }
    Ok(merged)
}

fn check(map: &Map<String, Value>, level: usize) -> Result<(), Broken> {
    if level > MAX_DEPTH {
        return Err(Broken::Depth);
    }
    for (key, value) in map {
        if key.is_empty() || key.len() > MAX_KEY || key.chars().any(|c| c.is_control() || ".$ ".contains(c)) {
            return Err(Broken::Key);
        }
        check_value(value, level)?;
    }
    Ok(())
}

fn check_value(value: &Value, level: usize) -> Result<(), Broken> {
    match value {
        Value::Object(inner) => check(inner, level + 1),
        Value::Array(items) => {
            if value_size(value) > MAX_VALUE {
                return Err(Broken::Value);
            }
            items.iter().try_for_each(|item| check_value(item, level))
        }
        Value::String(text) if text.len() > MAX_VALUE => Err(Broken::Value),
        Value::Number(number) if !number.is_f64() => {
            let fits = |number: i64| (-MAX_NUMBER - 1..=MAX_NUMBER).contains(&number);
            if number.as_i64().is_some_and(fits) { Ok(()) } else { Err(Broken::Number) }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// RFC 7396: null deletes, an object merges, anything else replaces.
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                let slot = target.entry(key.clone()).or_insert_with(|| json!({}));
                if !slot.is_object() {
                    *slot = json!({});
                }
                if let Value::Object(slot) = slot {
                    merge(slot, inner);
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

fn depth(map: &Map<String, Value>) -> usize {
    map.values().filter_map(Value::as_object).map(|inner| 1 + depth(inner)).max().unwrap_or(0)
}

fn value_size(value: &Value) -> usize {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(value_size).sum(),
        Value::Object(map) => size(map),
    }
}

fn size(map: &Map<String, Value>) -> usize {
    map.iter().map(|(key, value)| key.len() + value_size(value)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reporting_merges_deletes_and_counts_versions() {
        let mut twin = Twin::default();
        assert_eq!(twin.report(br#"{"a":{"b":1,"c":2},"x":1}"#), Ok(2));
        assert_eq!(twin.report(br#"{"a":{"b":null},"x":"y"}"#), Ok(3));
        assert_eq!(twin.document()["reported"], json!({"a":{"c":2},"x":"y","$version":3}));
    }

    #[test]
    fn a_patch_that_is_not_an_object_or_has_forbidden_keys_is_refused_and_changes_nothing() {
        let mut twin = Twin::default();
        for body in [&b"[1]"[..], b"{", b"", br#"{"a.b":1}"#, br#"{"$a":1}"#, br#"{"a b":{}}"#] {
            assert_eq!(twin.report(body), Err(400));
        }
        let report = |twin: &mut Twin, body: Value| twin.report(body.to_string().as_bytes());
        assert_eq!(report(&mut twin, json!({"k": "v".repeat(MAX_VALUE + 1)})), Err(413));
        assert_eq!(report(&mut twin, json!({"k".repeat(MAX_KEY + 1): 1})), Err(400));
        assert_eq!(report(&mut twin, json!({"k": MAX_NUMBER + 1})), Err(400));
        let large: Map<String, Value> = (0..9).map(|n| (n.to_string(), json!("v".repeat(MAX_VALUE)))).collect();
        assert_eq!(report(&mut twin, Value::Object(large)), Err(413));
        let nested = |levels: usize| (0..levels).fold(json!({"k": 1}), |inner, _| json!({"k": inner}));
        assert_eq!(report(&mut twin, nested(MAX_DEPTH + 1)), Err(400));
        assert_eq!(twin.document()["reported"], json!({"$version":1}));
    }

    #[test]
    fn values_just_within_the_limits_are_accepted() {
        let nested = |levels: usize| (0..levels).fold(json!({"k": 1}), |inner, _| json!({"k": inner}));
        for body in [nested(MAX_DEPTH), json!({"n": -MAX_NUMBER - 1, "t": "v".repeat(MAX_VALUE), "f": 1e300, "a": [1]})]
        {
            assert_eq!(Twin::default().report(body.to_string().as_bytes()), Ok(2), "{body}");
        }
    }

    #[test]
    fn a_desired_change_carries_its_version() {
        let mut twin = Twin::with_desired(Some(&json!({"interval": 10})));
        let Value::Object(patch) = json!({"interval": 30}) else { panic!("an object") };
        assert_eq!(twin.desire(&patch).unwrap(), (2, json!({"interval":30,"$version":2})));
    }
}
