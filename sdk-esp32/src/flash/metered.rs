//! A blocking flash under an asynchronous store, and what is done to it.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_storage::nor_flash::{ErrorType, MultiwriteNorFlash, NorFlash, ReadNorFlash};
use embedded_storage_async::nor_flash as asynchronous;

use super::Wear;

/// Finishes a future that waits for nothing but a blocking flash.
pub(super) fn at_once<R, E>(
    work: impl Future<Output = Result<R, sequential_storage::Error<E>>>,
) -> Result<R, sequential_storage::Error<E>> {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(sequential_storage::Error::LogicBug {}),
    }
}

/// A blocking flash as an asynchronous one that never waits, with a count of what is done to it.
pub(super) struct Metered<F> {
    pub(super) flash: F,
    pub(super) wear: Wear,
}

impl<F: ErrorType> ErrorType for Metered<F> {
    type Error = F::Error;
}

impl<F: ReadNorFlash> asynchronous::ReadNorFlash for Metered<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.flash.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.flash.capacity()
    }
}

impl<F: NorFlash> asynchronous::NorFlash for Metered<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        let pages = (to.saturating_sub(from) as usize).checked_div(F::ERASE_SIZE).unwrap_or_default();
        self.wear.erased_pages = self.wear.erased_pages.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX));
        self.flash.erase(from, to)
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Self::Error> {
        self.wear.writes = self.wear.writes.saturating_add(1);
        self.wear.written_bytes = self.wear.written_bytes.saturating_add(bytes.len() as u64);
        self.flash.write(offset, bytes)
    }
}

impl<F: MultiwriteNorFlash> asynchronous::MultiwriteNorFlash for Metered<F> {}
