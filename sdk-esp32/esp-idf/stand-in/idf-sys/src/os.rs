//! FreeRTOS, the C library and the chip.

use core::ffi::{c_char, c_int, c_void};

use crate::esp_err_t;

pub type TaskHandle_t = *mut c_void;
pub type TickType_t = u32;
pub type time_t = i64;
pub type suseconds_t = i32;
pub type pthread_mutex_t = u32;
pub type pthread_cond_t = u32;

pub const EWOULDBLOCK: u32 = 11;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct timeval {
    pub tv_sec: time_t,
    pub tv_usec: suseconds_t,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct timespec {
    pub tv_sec: time_t,
    pub tv_nsec: i32,
}

#[derive(Debug)]
#[repr(C)]
pub struct pthread_mutexattr_t(c_int);

#[derive(Debug)]
#[repr(C)]
pub struct pthread_condattr_t(c_int);

pub type u_int64_t = u64;

/// A lock of the C library.
pub type _LOCK_T = *mut c_void;

/// The part of a stream of the C library that logging reads.
#[derive(Debug)]
#[repr(C)]
pub struct FILE {
    pub _flags: i16,
    pub _flags2: c_int,
    pub _lock: _LOCK_T,
}

/// The part of a thread's state that logging reads.
#[derive(Debug)]
#[repr(C)]
pub struct _reent {
    pub _stdout: *mut FILE,
}

pub const __SNLK: u32 = 1;
pub const __SSTR: u32 = 0x200;

pub const CONFIG_LOG_MAXIMUM_LEVEL: u32 = 3;

pub type esp_log_level_t = u32;
pub const esp_log_level_t_ESP_LOG_NONE: esp_log_level_t = 0;
pub const esp_log_level_t_ESP_LOG_ERROR: esp_log_level_t = 1;
pub const esp_log_level_t_ESP_LOG_WARN: esp_log_level_t = 2;
pub const esp_log_level_t_ESP_LOG_INFO: esp_log_level_t = 3;
pub const esp_log_level_t_ESP_LOG_DEBUG: esp_log_level_t = 4;
pub const esp_log_level_t_ESP_LOG_VERBOSE: esp_log_level_t = 5;

unsafe extern "C" {
    pub fn esp_random() -> u32;
    pub fn esp_err_to_name(code: esp_err_t) -> *const c_char;
    pub fn esp_log_level_set(tag: *const c_char, level: esp_log_level_t);
    pub fn esp_log_level_get(tag: *const c_char) -> esp_log_level_t;
    pub fn esp_log_timestamp() -> u32;
    pub fn esp_log_system_timestamp() -> *mut c_char;
    pub fn __getreent() -> *mut _reent;
    pub fn _lock_acquire_recursive(lock: *mut _LOCK_T);
    pub fn _lock_release_recursive(lock: *mut _LOCK_T);
    pub fn fwrite(data: *const c_void, size: u32, count: u32, file: *mut FILE) -> u32;
    pub fn esp_timer_get_time() -> i64;
    pub fn gettimeofday(time: *mut timeval, zone: *mut c_void) -> c_int;
    pub fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int;
    pub fn pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int;
    pub fn pthread_mutex_destroy(mutex: *mut pthread_mutex_t) -> c_int;
    pub fn pthread_cond_init(condition: *mut pthread_cond_t, attributes: *const pthread_condattr_t) -> c_int;
    pub fn pthread_cond_wait(condition: *mut pthread_cond_t, mutex: *mut pthread_mutex_t) -> c_int;
    pub fn pthread_cond_timedwait(
        condition: *mut pthread_cond_t,
        mutex: *mut pthread_mutex_t,
        until: *const timespec,
    ) -> c_int;
    pub fn pthread_cond_signal(condition: *mut pthread_cond_t) -> c_int;
    pub fn pthread_cond_broadcast(condition: *mut pthread_cond_t) -> c_int;
    pub fn pthread_cond_destroy(condition: *mut pthread_cond_t) -> c_int;
}
