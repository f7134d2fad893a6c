//! What every process has around its work: logging, metrics, the admin port, signals, waits between attempts.

pub mod admin;
pub mod backoff;
pub mod client;
pub mod exit;
pub mod keepalive;
pub mod logging;
pub mod metrics;
pub mod shutdown;
