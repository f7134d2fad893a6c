//! Takes out of the store what has ended: it is refused since, and would be pushed to every gateway for ever.

use std::sync::Arc;
use std::time::Duration;

use drover_api::kinds::{RegistrationToken, Token};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::objects::{Kept, ObjectsError};
use crate::routes::Control;

const INTERVAL: Duration = Duration::from_secs(600);
/// For so long its owner is still told that it has expired, rather than that nobody knows it.
const KEPT_AFTER_ITS_END: Duration = Duration::from_secs(24 * 3600);

/// Sweeps until cancelled.
pub(crate) async fn run(control: Arc<Control>, cancelled: CancellationToken) {
    while cancelled.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        match sweep(&control, Timestamp::now()).await {
            Ok(0) => {}
            Ok(swept) => info!(swept, "expired tokens deleted"),
            Err(error) => warn!(%error, "failed to delete expired tokens"),
        }
    }
}

/// How many were deleted.
pub(crate) async fn sweep(control: &Control, now: Timestamp) -> Result<usize, ObjectsError> {
    let Ok(before) = now.checked_sub(KEPT_AFTER_ITS_END) else { return Ok(0) };
    Ok(expired::<Token>(control, |token| token.expires_at <= before).await?
        + expired::<RegistrationToken>(control, |token| token.expires_at <= before).await?)
}

async fn expired<K: Kept>(control: &Control, has_ended: impl Fn(&K) -> bool) -> Result<usize, ObjectsError> {
    let mut swept = 0;
    for object in control.objects.list::<K>().await? {
        if has_ended(&object.spec) {
            // One at a time: nobody's write waits for all of them.
            let _writes = control.writes.lock().await;
            control.objects.delete::<K>(object.spec.key(), object.metadata.revision).await?;
            swept += 1;
        }
    }
    Ok(swept)
}
