//! What every process has around its work: logging, metrics, the admin port, signals.

pub mod admin;
pub mod exit;
pub mod logging;
pub mod metrics;
pub mod shutdown;
