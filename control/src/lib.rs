//! Control: what is kept, who may enrol, and what gateways serve from.

pub mod authority;
pub mod enrolment;
pub mod objects;
pub mod passwords;
pub mod seal;
pub mod snapshots;
pub mod store;
