//! The non-volatile storage.

use core::ffi::{c_char, c_void};

use crate::esp_err_t;

pub const ESP_ERR_NVS_NOT_FOUND: esp_err_t = 0x1102;
pub const ESP_ERR_NVS_NO_FREE_PAGES: esp_err_t = 0x110d;
pub const ESP_ERR_NVS_NEW_VERSION_FOUND: esp_err_t = 0x1110;
pub const ESP_ERR_NVS_KEYS_NOT_INITIALIZED: esp_err_t = 0x1116;
pub const ESP_ERR_NVS_CORRUPT_KEY_PART: esp_err_t = 0x1117;
pub const ESP_ERR_NVS_INVALID_LENGTH: esp_err_t = 0x110c;

pub type nvs_handle_t = u32;
pub type nvs_open_mode_t = u32;
pub const nvs_open_mode_t_NVS_READONLY: nvs_open_mode_t = 0;
pub const nvs_open_mode_t_NVS_READWRITE: nvs_open_mode_t = 1;

pub type nvs_type_t = u32;
pub const nvs_type_t_NVS_TYPE_U8: nvs_type_t = 0x01;
pub const nvs_type_t_NVS_TYPE_I8: nvs_type_t = 0x11;
pub const nvs_type_t_NVS_TYPE_U16: nvs_type_t = 0x02;
pub const nvs_type_t_NVS_TYPE_I16: nvs_type_t = 0x12;
pub const nvs_type_t_NVS_TYPE_U32: nvs_type_t = 0x04;
pub const nvs_type_t_NVS_TYPE_I32: nvs_type_t = 0x14;
pub const nvs_type_t_NVS_TYPE_U64: nvs_type_t = 0x08;
pub const nvs_type_t_NVS_TYPE_I64: nvs_type_t = 0x18;
pub const nvs_type_t_NVS_TYPE_STR: nvs_type_t = 0x21;
pub const nvs_type_t_NVS_TYPE_BLOB: nvs_type_t = 0x42;
pub const nvs_type_t_NVS_TYPE_ANY: nvs_type_t = 0xff;

#[repr(C)]
pub struct nvs_opaque_iterator_t(u8);

pub type nvs_iterator_t = *mut nvs_opaque_iterator_t;

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct nvs_entry_info_t {
    pub namespace_name: [u8; 16],
    pub key: [u8; 16],
    pub type_: nvs_type_t,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct nvs_sec_cfg_t {
    pub eky: [u8; 32],
    pub tky: [u8; 32],
}

#[repr(C)]
pub struct esp_partition_t(u8);

pub type esp_partition_type_t = u32;
pub const esp_partition_type_t_ESP_PARTITION_TYPE_DATA: esp_partition_type_t = 1;
pub type esp_partition_subtype_t = u32;
pub const esp_partition_subtype_t_ESP_PARTITION_SUBTYPE_DATA_NVS_KEYS: esp_partition_subtype_t = 4;

macro_rules! numbers {
    ($($set:ident $get:ident $number:ty),* $(,)?) => {
        unsafe extern "C" {
            $(
                pub fn $set(handle: nvs_handle_t, key: *const c_char, value: $number) -> esp_err_t;
                pub fn $get(handle: nvs_handle_t, key: *const c_char, value: *mut $number) -> esp_err_t;
            )*
        }
    };
}

numbers! {
    nvs_set_u8 nvs_get_u8 u8,
    nvs_set_i8 nvs_get_i8 i8,
    nvs_set_u16 nvs_get_u16 u16,
    nvs_set_i16 nvs_get_i16 i16,
    nvs_set_u32 nvs_get_u32 u32,
    nvs_set_i32 nvs_get_i32 i32,
    nvs_set_u64 nvs_get_u64 u64,
    nvs_set_i64 nvs_get_i64 i64,
}

unsafe extern "C" {
    pub fn nvs_flash_init() -> esp_err_t;
    pub fn nvs_flash_erase() -> esp_err_t;
    pub fn nvs_flash_init_partition(label: *const c_char) -> esp_err_t;
    pub fn nvs_flash_deinit_partition(label: *const c_char) -> esp_err_t;
    pub fn nvs_flash_erase_partition(label: *const c_char) -> esp_err_t;
    pub fn nvs_flash_secure_init_partition(label: *const c_char, keys: *mut nvs_sec_cfg_t) -> esp_err_t;
    pub fn nvs_flash_read_security_cfg(partition: *const esp_partition_t, keys: *mut nvs_sec_cfg_t) -> esp_err_t;
    pub fn nvs_flash_generate_keys(partition: *const esp_partition_t, keys: *mut nvs_sec_cfg_t) -> esp_err_t;
    pub fn esp_partition_find_first(
        of_type: esp_partition_type_t,
        of_subtype: esp_partition_subtype_t,
        label: *const c_char,
    ) -> *const esp_partition_t;
    pub fn nvs_open(name: *const c_char, mode: nvs_open_mode_t, handle: *mut nvs_handle_t) -> esp_err_t;
    pub fn nvs_open_from_partition(
        label: *const c_char,
        name: *const c_char,
        mode: nvs_open_mode_t,
        handle: *mut nvs_handle_t,
    ) -> esp_err_t;
    pub fn nvs_close(handle: nvs_handle_t);
    pub fn nvs_commit(handle: nvs_handle_t) -> esp_err_t;
    pub fn nvs_find_key(handle: nvs_handle_t, key: *const c_char, of_type: *mut nvs_type_t) -> esp_err_t;
    pub fn nvs_erase_key(handle: nvs_handle_t, key: *const c_char) -> esp_err_t;
    pub fn nvs_erase_all(handle: nvs_handle_t) -> esp_err_t;
    pub fn nvs_get_blob(handle: nvs_handle_t, key: *const c_char, value: *mut c_void, len: *mut usize) -> esp_err_t;
    pub fn nvs_set_blob(handle: nvs_handle_t, key: *const c_char, value: *const c_void, len: usize) -> esp_err_t;
    pub fn nvs_get_str(handle: nvs_handle_t, key: *const c_char, value: *mut c_char, len: *mut usize) -> esp_err_t;
    pub fn nvs_set_str(handle: nvs_handle_t, key: *const c_char, value: *const c_char) -> esp_err_t;
    pub fn nvs_entry_find_in_handle(
        handle: nvs_handle_t,
        of_type: nvs_type_t,
        iterator: *mut nvs_iterator_t,
    ) -> esp_err_t;
    pub fn nvs_entry_next(iterator: *mut nvs_iterator_t) -> esp_err_t;
    pub fn nvs_entry_info(iterator: nvs_iterator_t, info: *mut nvs_entry_info_t) -> esp_err_t;
    pub fn nvs_release_iterator(iterator: nvs_iterator_t);
}
