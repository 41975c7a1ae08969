//! A stand-in for esp-idf-hal 0.47: names and signatures that esp-idf-svc asks for, without what they do.
#![no_std]

/// The declarations below.
pub mod sys {
    pub use esp_idf_sys::*;
}

/// Streams and their errors.
pub mod io {
    use core::fmt;

    pub use embedded_io::*;

    use crate::sys::EspError;

    /// An error of ESP-IDF as one of a stream.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EspIOError(pub EspError);

    impl Error for EspIOError {
        fn kind(&self) -> ErrorKind {
            ErrorKind::Other
        }
    }

    impl From<EspError> for EspIOError {
        fn from(error: EspError) -> Self {
            Self(error)
        }
    }

    impl fmt::Display for EspIOError {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    impl core::error::Error for EspIOError {}

    /// Asynchronous streams.
    pub mod asynch {
        pub use embedded_io_async::*;
    }
}

/// Cores.
pub mod cpu {
    /// A core.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Core {
        /// The only one.
        Core0,
    }
}

/// Pauses.
pub mod delay {
    /// Ticks of FreeRTOS.
    pub struct TickType(pub u32);

    /// Waits by FreeRTOS.
    pub struct FreeRtos;

    impl FreeRtos {
        /// Waits.
        pub fn delay_ms(_ms: u32) {
            unreachable!("a stand-in")
        }
    }
}

/// Tasks.
pub mod task {
    use core::ffi::{CStr, c_void};

    use crate::cpu::Core;
    use crate::sys::{EspError, TaskHandle_t};

    /// Starts a task.
    ///
    /// # Errors
    /// ESP-IDF's.
    ///
    /// # Safety
    /// As esp-idf-hal says.
    pub unsafe fn create(
        _work: extern "C" fn(*mut c_void),
        _name: &'static CStr,
        _stack: usize,
        _argument: *mut c_void,
        _priority: u8,
        _core: Option<Core>,
    ) -> Result<TaskHandle_t, EspError> {
        unreachable!("a stand-in")
    }

    /// Ends a task.
    ///
    /// # Safety
    /// As esp-idf-hal says.
    pub unsafe fn destroy(_task: TaskHandle_t) {
        unreachable!("a stand-in")
    }

    /// Waking of asynchronous tasks.
    pub mod asynch {
        /// A flag that a task waits for.
        #[derive(Debug, Default)]
        pub struct Notification(());

        impl Notification {
            /// A flag that is down.
            #[must_use]
            pub const fn new() -> Self {
                Self(())
            }

            /// Raises it.
            pub fn notify_lsb(&self) -> bool {
                unreachable!("a stand-in")
            }

            /// Waits for it.
            pub async fn wait(&self) -> core::num::NonZeroU32 {
                unreachable!("a stand-in")
            }
        }
    }
}
