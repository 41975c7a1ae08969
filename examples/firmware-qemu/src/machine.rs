//! QEMU's riscv32 `virt` machine: start-up, clock, entropy, serial line, exit, memory for the network card.
//!
//! The only unsafe code of the plain image: registers and memory at fixed addresses.
#![expect(unsafe_code, reason = "a machine without an operating system is reached by address")]

use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt::{self, Write as _};
use core::mem::MaybeUninit;
use core::ptr::{NonNull, addr_of, addr_of_mut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use virtio_drivers::device::net::VirtIONetRaw;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, Transport as _};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

// Fills the stack with a pattern, clears what starts as zero, and goes to `main`.
global_asm!(
    ".section .init",
    ".global _start",
    "_start:",
    "  la sp, _stack_top",
    "  la t0, _stack_bottom",
    "  li t1, 0xa5a5a5a5",
    "1: bgeu t0, sp, 2f",
    "  sw t1, 0(t0)",
    "  addi t0, t0, 4",
    "  j 1b",
    "2: la t0, _bss_start",
    "  la t1, _bss_end",
    "3: bgeu t0, t1, 4f",
    "  sw zero, 0(t0)",
    "  addi t0, t0, 4",
    "  j 3b",
    "4: call main",
    "5: j 5b",
);

unsafe extern "C" {
    static mut _stack_bottom: u32;
    static mut _stack_top: u32;
    static mut _bss_start: u32;
    static mut _bss_end: u32;
}

const TEST_DEVICE: usize = 0x10_0000;
const RTC: usize = 0x10_1000;
const MTIME: usize = 0x0200_bff8;
const UART: usize = 0x1000_0000;
const VIRTIO: usize = 0x1000_1000;
const VIRTIO_SLOTS: usize = 8;
const VIRTIO_SLOT_BYTES: usize = 0x1000;
/// Where the judge leaves what the image has to know.
const ORDERS: usize = 0x8080_0000;
/// Where the judge leaves the certificate of the emulator's authority.
#[cfg(feature = "tls")]
const AUTHORITY: usize = 0x8080_1000;
#[cfg(feature = "tls")]
const AUTHORITY_BYTES: usize = 4096;

fn read(address: usize) -> u32 {
    // SAFETY: the addresses of this module are aligned registers or RAM of the machine.
    unsafe { (address as *const u32).read_volatile() }
}

fn write(address: usize, value: u32) {
    // SAFETY: as for `read`.
    unsafe { (address as *mut u32).write_volatile(value) }
}

/// What the judge left in memory before the start.
#[derive(Clone, Copy, Debug)]
pub struct Orders {
    /// TCP port of the emulator on the host.
    pub port: u16,
    /// How many messages to send.
    pub messages: u32,
    /// TCP port of a server that shows no certificate.
    #[cfg(feature = "tls")]
    pub nobody: u16,
    /// The certificate of the emulator's authority, as DER.
    #[cfg(feature = "tls")]
    pub authority: &'static [u8],
}

/// Reads the orders.
pub fn orders() -> Orders {
    Orders {
        port: read(ORDERS) as u16,
        messages: read(ORDERS + 4),
        #[cfg(feature = "tls")]
        nobody: read(ORDERS + 12) as u16,
        #[cfg(feature = "tls")]
        authority: {
            let len = (read(ORDERS + 8) as usize).min(AUTHORITY_BYTES);
            // SAFETY: RAM that the judge fills before the start, and nobody writes to afterwards.
            unsafe { core::slice::from_raw_parts(AUTHORITY as *const u8, len) }
        },
    }
}

/// Draws from virtio-rng, which QEMU fills from the host's random number generator; to be called once.
pub fn entropy<const N: usize>() -> Option<[u8; N]> {
    let mut random = VirtIORng::<Memory, _>::new(find(DeviceType::EntropySource)?).ok()?;
    let (mut bytes, mut drawn) = ([0; N], 0);
    for _ in 0..N {
        let rest = bytes.get_mut(drawn..).filter(|rest| !rest.is_empty())?;
        drawn += random.request_entropy(rest).ok().filter(|drawn| *drawn > 0)?;
        if drawn == N {
            return Some(bytes);
        }
    }
    None
}

/// Returns the milliseconds since the machine was switched on.
pub fn millis() -> u64 {
    // The timer counts at 10 MHz; its two halves are read until they belong together.
    loop {
        let high = read(MTIME + 4);
        let low = read(MTIME);
        if read(MTIME + 4) == high {
            return (u64::from(high) << 32 | u64::from(low)) / 10_000;
        }
    }
}

/// Returns the host's wall clock in seconds since 1970.
pub fn unix_secs() -> u64 {
    // Reading the low half holds the high half.
    let low = read(RTC);
    (u64::from(read(RTC + 4)) << 32 | u64::from(low)) / 1_000_000_000
}

/// Ends the machine.
pub fn exit(passed: bool) -> ! {
    loop {
        write(TEST_DEVICE, if passed { 0x5555 } else { 0x1_3333 });
    }
}

/// The serial line.
pub struct Serial;

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the transmit register of the serial line.
            unsafe { (UART as *mut u8).write_volatile(byte) };
        }
        Ok(())
    }
}

/// Returns the bytes of stack that were used at most, and that there are.
pub fn stack() -> (usize, usize) {
    let (bottom, top) = (addr_of!(_stack_bottom) as usize, addr_of!(_stack_top) as usize);
    let untouched = (bottom..top).step_by(4).take_while(|address| read(*address) == 0xa5a5_a5a5).count() * 4;
    (top - bottom - untouched, top - bottom)
}

/// Returns the bytes of variables, the network card's memory included.
pub fn variables() -> usize {
    addr_of!(_bss_end) as usize - addr_of!(_bss_start) as usize
}

/// A variable that has one owner from the first who asks for it on: so what is large never lies on the stack.
pub struct Slot<T> {
    value: UnsafeCell<T>,
    taken: AtomicBool,
}

// SAFETY: there is one processor and no interrupt, and the value is given out once.
unsafe impl<T> Sync for Slot<T> {}

impl<T> Slot<T> {
    /// A variable that starts with this value.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), taken: AtomicBool::new(false) }
    }

    /// Gives it out; `None` the second time.
    pub fn take(&'static self) -> Option<&'static mut T> {
        if self.taken.load(Ordering::Relaxed) {
            return None;
        }
        self.taken.store(true, Ordering::Relaxed);
        // SAFETY: the only reference to it, since the flag was not set.
        Some(unsafe { &mut *self.value.get() })
    }
}

impl<T> Slot<MaybeUninit<T>> {
    /// A variable whose value is made when the machine has started.
    pub const fn empty() -> Self {
        Self::new(MaybeUninit::uninit())
    }
}

const DMA_PAGES: usize = 8;

#[repr(C, align(4096))]
struct Dma([u8; DMA_PAGES * PAGE_SIZE]);

#[unsafe(link_section = ".dma")]
static mut DMA: Dma = Dma([0; DMA_PAGES * PAGE_SIZE]);
static NEXT_PAGE: AtomicUsize = AtomicUsize::new(0);

/// Memory as the network card sees it: as the processor does.
pub struct Memory;

// SAFETY: pages are given out once and never again; physical and virtual addresses are the same here.
unsafe impl Hal for Memory {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let first = NEXT_PAGE.load(Ordering::Relaxed);
        NEXT_PAGE.store(first + pages, Ordering::Relaxed);
        let address = addr_of_mut!(DMA) as usize + first * PAGE_SIZE;
        match NonNull::new(address as *mut u8) {
            Some(page) if first + pages <= DMA_PAGES => (address as PhysAddr, page),
            _ => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::new(address as usize as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as usize as PhysAddr
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

const QUEUE: usize = 8;

/// Bytes of one frame with the card's header.
pub const FRAME: usize = 1600;

/// The network card, with one buffer each way.
pub struct Card {
    card: VirtIONetRaw<Memory, MmioTransport<'static>, QUEUE>,
    inbound: &'static mut [u8; FRAME],
    token: Option<u16>,
    outbound: &'static mut [u8; FRAME],
}

static INBOUND: Slot<[u8; FRAME]> = Slot::new([0; FRAME]);
static OUTBOUND: Slot<[u8; FRAME]> = Slot::new([0; FRAME]);

fn find(kind: DeviceType) -> Option<MmioTransport<'static>> {
    (0..VIRTIO_SLOTS).find_map(|slot| {
        let header = NonNull::new((VIRTIO + slot * VIRTIO_SLOT_BYTES) as *mut VirtIOHeader)?;
        // SAFETY: each slot is a register block of this size for as long as the machine runs.
        let transport = unsafe { MmioTransport::new(header, VIRTIO_SLOT_BYTES) }.ok()?;
        (transport.device_type() == kind).then_some(transport)
    })
}

impl Card {
    /// Finds the network card; to be called once.
    pub fn find() -> Option<Self> {
        let card = VirtIONetRaw::new(find(DeviceType::Network)?).ok()?;
        let (inbound, outbound) = (INBOUND.take()?, OUTBOUND.take()?);
        Some(Self { card, inbound, token: None, outbound })
    }

    /// Returns the card's address.
    pub fn mac(&self) -> [u8; 6] {
        self.card.mac_address()
    }

    /// Returns a frame that has come, and what sends an answer to it.
    pub fn receive(&mut self) -> Option<(&[u8], Sender<'_>)> {
        let Some(token) = self.token else {
            // SAFETY: the buffer is touched again only when the card has given it back.
            self.token = unsafe { self.card.receive_begin(self.inbound) }.ok();
            return None;
        };
        if self.card.poll_receive() != Some(token) {
            return None;
        }
        self.token = None;
        // SAFETY: the buffer that was handed over under this token.
        let (header, len) = unsafe { self.card.receive_complete(token, self.inbound) }.ok()?;
        let frame = self.inbound.get(header..header + len)?;
        Some((frame, Sender { card: &mut self.card, frame: self.outbound }))
    }

    /// Returns what sends a frame.
    pub fn sender(&mut self) -> Sender<'_> {
        Sender { card: &mut self.card, frame: self.outbound }
    }
}

/// Sends one frame.
pub struct Sender<'t> {
    card: &'t mut VirtIONetRaw<Memory, MmioTransport<'static>, QUEUE>,
    frame: &'t mut [u8; FRAME],
}

impl Sender<'_> {
    /// Sends a frame of `len` bytes that `fill` writes.
    pub fn send<R>(self, len: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        let frame = self.frame.get_mut(..len).unwrap_or_default();
        let result = fill(frame);
        // A frame that is not sent is one that is lost, which TCP repairs.
        let _ = self.card.send(frame);
        result
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "panic: {info}");
    exit(false)
}
