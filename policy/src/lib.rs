//! Decides who may do what in which cluster: pure, without I/O, clock or async.
//!
//! ```text
//! Rules ─► Policy (casbin holds and validates every row)
//!             │ compiled per (subject, cluster)
//! method, path ─► Attributes ─► decide ─► Permit | Refusal
//! ```

mod attributes;
mod compiled;
mod covers;
mod decide;
mod holdings;
mod ids;
mod impersonate;
mod index;
mod model;
mod permit;
mod problems;
mod refusal;
mod rules;
pub mod templates;

pub use attributes::{Attributes, PathRefused, Resource, Target, Verb};
pub use covers::{Until, earlier, later};
pub use decide::Policy;
pub use holdings::{Holding, Holdings};
pub use ids::{ClusterId, IdInvalid, Principal, ProjectId, RoleName, Subject};
pub use impersonate::{ImpersonationRights, ImpersonationRow};
pub use permit::Permit;
pub use problems::Part;
pub use refusal::Refusal;
pub use rules::{Binding, ClusterRules, Domain, Effect, InvalidRules, Role, Rule, Rules};
