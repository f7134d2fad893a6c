//! Ctrl-C while something is done that is worse done by half: a kubectl that is interrupted interrupts `drover` too.

use std::sync::Once;
use std::sync::atomic::{AtomicU8, Ordering};

const FREE: u8 = 0;
const HELD_OFF: u8 = 1;
const CAME: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(FREE);

/// Ends the program after all, once dropped, where an interrupt came meanwhile.
pub(crate) struct HeldOff(());

/// Lets interrupts wait until the guard goes: whatever is done then has a limit of its own.
pub(crate) fn hold_off() -> HeldOff {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let handler = || {
            if STATE.compare_exchange(HELD_OFF, CAME, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                exit();
            }
        };
        // Without it, an interrupt is what it always was.
        drop(ctrlc::set_handler(handler));
    });
    STATE.store(HELD_OFF, Ordering::SeqCst);
    HeldOff(())
}

impl Drop for HeldOff {
    fn drop(&mut self) {
        if STATE.swap(FREE, Ordering::SeqCst) == CAME {
            exit();
        }
    }
}

/// As shells report a program that SIGINT ended.
fn exit() -> ! {
    std::process::exit(130)
}
