//! Links only when nothing below the core uses std (a second panic handler) or alloc (no allocator).
#![no_std]
#![forbid(unsafe_code)]

extern crate steadfast_core;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
