//! Real directories, each a server of the test's own.

mod openldap;
mod samba;

/// Set where their programs are not installed: `testkit/packages` says so.
pub const SKIP_VARIABLE: &str = "DROVER_NO_DIRECTORIES";

pub use openldap::OpenLdap;
pub use samba::Samba;
