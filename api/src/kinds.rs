//! The resource kinds as they are written: one file per kind, unknown fields refused.

mod binding;
mod cluster;
mod role;
mod token;
mod user;

pub use binding::{Binding, Domain};
pub use cluster::Cluster;
pub use role::{Effect, Role, Rule};
pub use token::{Token, TokenKind, TokenScope};
pub use user::User;
