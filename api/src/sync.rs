//! What control and a gateway say to each other: gRPC `drover.v1.Snapshots/Follow`, a stream each way, JSON messages.
//!
//! ```text
//! gateway                            control
//!    |  hello: revision 7 is here      |
//!    |  -----------------------------> |
//!    |  delta 7 -> 12                  |   or, where 7 is too long ago: full, in chunks
//!    |  <----------------------------- |
//!    |  applied 12                     |   served from, and on the disk
//!    |  -----------------------------> |
//! ```

use serde::{Deserialize, Serialize};

use crate::snapshot::delta::Delta;
use crate::token::TokenId;

pub const SERVICE: &str = "drover.v1.Snapshots";
pub const FOLLOW: &str = "/drover.v1.Snapshots/Follow";
/// Largest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Of a whole state that is sent in chunks.
pub const CHUNK_BYTES: usize = 1 << 20;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromGateway {
    Hello {
        /// The newest format that this gateway reads.
        format: u32,
        /// Absent: nothing is here, or what is here cannot be used.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<u64>,
    },
    /// Requests are served by this revision, and a restart will find it.
    Applied { revision: u64 },
    /// The last state stays; control sends the whole one next.
    Refused { revision: u64, problem: String },
    /// Tokens that were used since the last time that this gateway said so.
    Used { tokens: Vec<TokenId> },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromControl {
    Delta(Box<Delta>),
    /// A part of the whole state's JSON; the last one completes it.
    Chunk {
        text: String,
        last: bool,
    },
}
