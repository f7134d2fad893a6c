//! How a request is refused: a Kubernetes Status.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub kind: String,
    pub api_version: String,
    pub status: String,
    pub message: String,
    pub reason: String,
    pub code: u16,
    #[serde(default, skip_serializing_if = "Details::is_empty")]
    pub details: Details,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Details {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// The field that is wrong, as in `spec.name`; none where it is no field's fault.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub reason: String,
}

impl Status {
    pub fn failure(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: "Status".to_owned(),
            api_version: "v1".to_owned(),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            code,
            details: Details::default(),
        }
    }

    /// 422, with the field's name.
    pub fn invalid(field: &str, problem: impl Into<String>) -> Self {
        let message = problem.into();
        let cause = Cause {
            field: field.to_owned(),
            message: message.clone(),
            reason: "FieldValueInvalid".to_owned(),
        };
        let mut status = Self::failure(422, "Invalid", format!("{field}: {message}"));
        status.details.causes.push(cause);
        status
    }
}

impl Details {
    fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_a_gateway_is_read_too() {
        let text = r#"{"apiVersion":"v1","kind":"Status","code":503,"details":{"causes":[{"message":"m","reason":"R"}],
            "kind":"clusters"},"message":"m","metadata":{},"reason":"ServiceUnavailable","status":"Failure"}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!((status.code, status.details.causes[0].reason.as_str()), (503, "R"));
        let invalid = serde_json::to_value(Status::invalid("spec.name", "is empty")).unwrap();
        assert_eq!(invalid["details"]["causes"][0]["field"], "spec.name");
        assert_eq!(invalid["message"], "spec.name: is empty");
    }
}
