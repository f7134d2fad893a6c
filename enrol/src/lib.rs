//! A process gets its certificate, keeps it, and renews it.

mod identity;

mod server;

mod ask;

mod keep;

pub use ask::{enrol, renew};
pub use identity::{Folder, Identity, process_of};
pub use keep::{Keeper, Places};
pub use server::{HostPortInvalid, Server};
