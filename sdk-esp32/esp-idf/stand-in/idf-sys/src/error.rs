//! Codes, and the type that carries them.

use core::fmt;
use core::num::NonZeroI32;

pub type esp_err_t = i32;

pub const ESP_OK: esp_err_t = 0;
pub const ESP_FAIL: esp_err_t = -1;
pub const ESP_ERR_NO_MEM: esp_err_t = 0x101;
pub const ESP_ERR_INVALID_ARG: esp_err_t = 0x102;
pub const ESP_ERR_INVALID_STATE: esp_err_t = 0x103;
pub const ESP_ERR_INVALID_SIZE: esp_err_t = 0x104;
pub const ESP_ERR_NOT_FOUND: esp_err_t = 0x105;
pub const ESP_ERR_TIMEOUT: esp_err_t = 0x107;

/// A code other than [`ESP_OK`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct EspError(NonZeroI32);

impl EspError {
    #[must_use]
    pub const fn from(code: esp_err_t) -> Option<Self> {
        match NonZeroI32::new(code) {
            Some(code) => Some(Self(code)),
            None => None,
        }
    }

    #[must_use]
    pub const fn from_non_zero(code: NonZeroI32) -> Self {
        Self(code)
    }

    #[must_use]
    pub const fn from_infallible<const E: esp_err_t>() -> Self {
        match Self::from(E) {
            Some(error) => error,
            None => panic!("ESP_OK is no error"),
        }
    }

    pub fn convert(code: esp_err_t) -> Result<(), Self> {
        Self::check_and_return(code, ())
    }

    pub fn check_and_return<T>(code: esp_err_t, value: T) -> Result<T, Self> {
        Self::from(code).map_or(Ok(value), Err)
    }

    pub fn panic(&self) {
        panic!("{self}")
    }

    #[must_use]
    pub fn code(&self) -> esp_err_t {
        self.0.get()
    }
}

impl fmt::Display for EspError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for EspError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::error::Error for EspError {}

#[macro_export]
macro_rules! esp {
    ($code:expr) => {
        $crate::EspError::convert($code as $crate::esp_err_t)
    };
}

#[macro_export]
macro_rules! esp_result {
    ($code:expr, $value:expr) => {
        $crate::EspError::check_and_return($code as $crate::esp_err_t, $value)
    };
}

#[macro_export]
macro_rules! esp_nofail {
    ($code:expr) => {
        if let Some(error) = $crate::EspError::from($code as $crate::esp_err_t) {
            error.panic();
        }
    };
}
