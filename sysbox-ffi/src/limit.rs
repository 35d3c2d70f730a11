//! When calls that block give up.

use crate::boundary::{handle_at, Outcome};
use crate::cancel::Cancel;
use std::time::{Duration, Instant};
use sysbox_core::Limit;

/// # Safety
/// `cancel` is NULL or a live handle.
pub(crate) unsafe fn limit(cancel: *const Cancel, timeout_ms: i64) -> Outcome<Limit> {
    let mut limit = Limit::none();
    if !cancel.is_null() {
        // SAFETY: by this function's contract.
        limit = limit.or_when(unsafe { handle_at(cancel) }?.readable());
    }
    let now = Instant::now();
    // A time that no clock can tell is none.
    let deadline = match timeout_ms {
        0 => None,
        ms => now.checked_add(Duration::from_millis(ms.max(0).unsigned_abs())),
    };
    Ok(deadline.map_or(limit.clone(), |d| limit.at(d)))
}
