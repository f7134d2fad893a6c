//! What `drover-control bootstrap` prints, once.

use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrapped {
    /// Absent where there are users already.
    pub admin: Option<Admin>,
    /// A registration token for the gateway that was named.
    pub gateway_token: String,
    /// Control's authority, PEM.
    pub ca: String,
    /// For the port of clients, where hosts were named.
    pub door: Option<Door>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    pub name: String,
    pub password: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: String,
}
