//! The twin of a device: two documents, each with its version.

use serde_json::{Map, Value, json};

/// Largest reported document in bytes, as the documentation counts them.
const MAX_REPORTED: usize = 32 * 1024;
const MAX_DEPTH: usize = 10;

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

    /// Returns the body of the answer to a GET.
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

    /// Merges what a device reports; returns the new version, or the status of the refusal.
    pub(crate) fn report(&mut self, body: &[u8]) -> Result<u64, u16> {
        let Ok(Value::Object(patch)) = serde_json::from_slice(body) else { return Err(400) };
        let bad_key = |key: &String| key.is_empty() || key.chars().any(|c| c.is_control() || ".$ ".contains(c));
        if any_key(&patch, &bad_key) || depth(&patch) > MAX_DEPTH {
            return Err(400);
        }
        let mut merged = self.reported.clone();
        merge(&mut merged, &patch);
        if size(&merged) > MAX_REPORTED {
            return Err(413);
        }
        self.reported = merged;
        self.reported_version += 1;
        Ok(self.reported_version)
    }

    /// Merges a change of the service; returns the new version and the body of the notification.
    pub(crate) fn desire(&mut self, patch: &Map<String, Value>) -> (u64, Value) {
        merge(&mut self.desired, patch);
        self.desired_version += 1;
        let mut body = patch.clone();
        body.insert("$version".to_owned(), json!(self.desired_version));
        (self.desired_version, Value::Object(body))
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

fn any_key(map: &Map<String, Value>, bad: &impl Fn(&String) -> bool) -> bool {
    map.iter().any(|(key, value)| bad(key) || value.as_object().is_some_and(|inner| any_key(inner, bad)))
}

fn depth(map: &Map<String, Value>) -> usize {
    1 + map.values().filter_map(Value::as_object).map(depth).max().unwrap_or(0)
}

fn size(map: &Map<String, Value>) -> usize {
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
    fn what_is_no_object_or_has_forbidden_keys_is_refused_and_changes_nothing() {
        let mut twin = Twin::default();
        for body in [&b"[1]"[..], b"{", b"", br#"{"a.b":1}"#, br#"{"$a":1}"#, br#"{"a b":{}}"#] {
            assert_eq!(twin.report(body), Err(400));
        }
        let large = serde_json::to_vec(&json!({"k": "v".repeat(MAX_REPORTED)})).unwrap();
        assert_eq!(twin.report(&large), Err(413));
        assert_eq!(twin.document()["reported"], json!({"$version":1}));
    }

    #[test]
    fn a_desired_change_carries_its_version() {
        let mut twin = Twin::with_desired(Some(&json!({"interval": 10})));
        let Value::Object(patch) = json!({"interval": 30}) else { panic!("an object") };
        assert_eq!(twin.desire(&patch), (2, json!({"interval":30,"$version":2})));
    }
}
