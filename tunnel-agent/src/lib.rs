//! The cluster agent: keeps tunnels up and forwards to the API server with its own credential.
//!
//! ```text
//! gateway ═ session ► tunnels ► forward: impersonation ► upstream ─ TLS, HTTP/1.1 ► API server
//! ```

pub mod config;
pub mod run;

mod certificate;
mod forward;
mod identity;
mod impersonation;
mod metrics;
mod splice;
mod tunnels;
mod upstream;
mod vault;
