//! How a request is refused: a Kubernetes Status.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The field that is wrong, as in `spec.name`.
    pub field: String,
    pub message: String,
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
