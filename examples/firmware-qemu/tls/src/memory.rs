//! Memory for one connection at a time.
//!
//! A connection of embedded-tls borrows its buffers for as long as it lives, and a device keeps its connection for as long
//! as it likes: without a heap the buffers have to be lent out and taken back by hand.
#![expect(unsafe_code, reason = "a value and what borrows it are kept side by side")]

use core::cell::{Cell, UnsafeCell};

/// A value that one user at a time may have. It is not for several threads, and the compiler sees to that.
#[derive(Debug)]
pub struct Pool<T> {
    value: UnsafeCell<T>,
    lent: Cell<bool>,
}

impl<T> Pool<T> {
    /// A pool of this value.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), lent: Cell::new(false) }
    }

    /// Lends the value out; `None` while somebody has it.
    pub fn lend(&'static self) -> Option<Loan<T>> {
        if self.lent.replace(true) { None } else { Some(Loan(self)) }
    }
}

/// A value on loan; dropping this gives it back.
#[derive(Debug)]
pub struct Loan<T: 'static>(&'static Pool<T>);

impl<T> Loan<T> {
    /// Returns the value.
    ///
    /// # Safety
    /// To be called once for each loan; and neither the reference nor what was made of it may be used after the loan was
    /// dropped.
    #[must_use]
    pub unsafe fn value(&mut self) -> &'static mut T {
        // SAFETY: nobody else has a loan, and the caller promises the rest.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Loan<T> {
    fn drop(&mut self) {
        self.0.lent.set(false);
    }
}
