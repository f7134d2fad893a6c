//! A process gets its certificate, keeps it, and renews it.

mod identity;

mod server;

mod ask;

mod vault;

mod keep;

pub use ask::{enrol, renew};
pub use identity::{Identity, holder_of};
pub use keep::{Keeper, Places};
pub use server::{HostPortInvalid, Server};
pub use vault::{Folder, SaveFailed, Vault};
