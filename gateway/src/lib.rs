//! The gateway: the way of every request from a client to a tunnel.
//!
//! ```text
//! listener ► head ► proxy: credential ► authenticate ► route ► authorize ► dial ═ stream ═► agent
//!                          └──────────────── refusal: Status + Warning ──┘    every end ► audit, metrics
//! ```

pub mod config;
pub mod run;

mod admit;
mod audit;
mod authenticate;
mod control;
mod credential;
mod dial;
mod follow;
mod headers;
mod identity;
mod impersonate;
mod jwts;
mod listener;
mod live;
mod metrics;
mod proxy;
mod refusal;
mod relay;
mod rosters;
mod route;
mod saved;
mod sessions;
mod shares;
mod snapshot;
mod source;
mod tables;
mod tokens;
mod tunnels;
mod uses;
