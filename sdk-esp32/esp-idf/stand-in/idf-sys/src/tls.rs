//! ESP-TLS, over mbedTLS.

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

use crate::esp_err_t;

pub const ESP_TLS_ERR_SSL_WANT_READ: i32 = -0x6900;
pub const ESP_TLS_ERR_SSL_WANT_WRITE: i32 = -0x6880;

/// A union of pointers: the same bytes under two names.
macro_rules! either {
    ($($union:ident { $first:ident | $second:ident : $of:ty = $default:expr }),* $(,)?) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(C)]
            pub union $union {
                pub $first: $of,
                pub $second: $of,
            }

            impl Default for $union {
                fn default() -> Self {
                    Self { $first: $default }
                }
            }
        )*
    };
}

either! {
    esp_tls_cfg__bindgen_ty_1 { cacert_buf | cacert_pem_buf: *const u8 = ptr::null() },
    esp_tls_cfg__bindgen_ty_2 { cacert_bytes | cacert_pem_bytes: u32 = 0 },
    esp_tls_cfg__bindgen_ty_3 { clientcert_buf | clientcert_pem_buf: *const u8 = ptr::null() },
    esp_tls_cfg__bindgen_ty_4 { clientcert_bytes | clientcert_pem_bytes: u32 = 0 },
    esp_tls_cfg__bindgen_ty_5 { clientkey_buf | clientkey_pem_buf: *const u8 = ptr::null() },
    esp_tls_cfg__bindgen_ty_6 { clientkey_bytes | clientkey_pem_bytes: u32 = 0 },
    esp_tls_cfg_server__bindgen_ty_3 { servercert_buf | servercert_pem_buf: *const u8 = ptr::null() },
    esp_tls_cfg_server__bindgen_ty_4 { servercert_bytes | servercert_pem_bytes: u32 = 0 },
    esp_tls_cfg_server__bindgen_ty_5 { serverkey_buf | serverkey_pem_buf: *const u8 = ptr::null() },
    esp_tls_cfg_server__bindgen_ty_6 { serverkey_bytes | serverkey_pem_bytes: u32 = 0 },
}

#[repr(C)]
pub struct esp_tls(u8);

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct tls_keep_alive_cfg {
    pub keep_alive_enable: bool,
    pub keep_alive_idle: c_int,
    pub keep_alive_interval: c_int,
    pub keep_alive_count: c_int,
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct esp_tls_cfg {
    pub alpn_protos: *mut *const c_char,
    pub __bindgen_anon_1: esp_tls_cfg__bindgen_ty_1,
    pub __bindgen_anon_2: esp_tls_cfg__bindgen_ty_2,
    pub __bindgen_anon_3: esp_tls_cfg__bindgen_ty_3,
    pub __bindgen_anon_4: esp_tls_cfg__bindgen_ty_4,
    pub __bindgen_anon_5: esp_tls_cfg__bindgen_ty_5,
    pub __bindgen_anon_6: esp_tls_cfg__bindgen_ty_6,
    pub clientkey_password: *const u8,
    pub clientkey_password_len: u32,
    pub non_block: bool,
    pub use_secure_element: bool,
    pub timeout_ms: c_int,
    pub use_global_ca_store: bool,
    pub common_name: *const c_char,
    pub skip_common_name: bool,
    pub keep_alive_cfg: *mut tls_keep_alive_cfg,
    pub crt_bundle_attach: Option<unsafe extern "C" fn(*mut c_void) -> esp_err_t>,
    pub is_plain_tcp: bool,
    pub if_name: *mut c_void,
}

impl Default for esp_tls_cfg {
    fn default() -> Self {
        unreachable!("a stand-in")
    }
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct esp_tls_cfg_server {
    pub alpn_protos: *mut *const c_char,
    pub __bindgen_anon_1: esp_tls_cfg__bindgen_ty_1,
    pub __bindgen_anon_2: esp_tls_cfg__bindgen_ty_2,
    pub __bindgen_anon_3: esp_tls_cfg_server__bindgen_ty_3,
    pub __bindgen_anon_4: esp_tls_cfg_server__bindgen_ty_4,
    pub __bindgen_anon_5: esp_tls_cfg_server__bindgen_ty_5,
    pub __bindgen_anon_6: esp_tls_cfg_server__bindgen_ty_6,
    pub serverkey_password: *const u8,
    pub serverkey_password_len: u32,
    pub use_secure_element: bool,
    pub tls_handshake_timeout_ms: u32,
}

impl Default for esp_tls_cfg_server {
    fn default() -> Self {
        unreachable!("a stand-in")
    }
}

pub type esp_tls_conn_state = u32;
pub const esp_tls_conn_state_ESP_TLS_CONNECTING: esp_tls_conn_state = 1;

unsafe extern "C" {
    pub fn esp_crt_bundle_attach(config: *mut c_void) -> esp_err_t;
    pub fn esp_tls_init() -> *mut esp_tls;
    pub fn esp_tls_set_conn_sockfd(tls: *mut esp_tls, descriptor: c_int) -> esp_err_t;
    pub fn esp_tls_set_conn_state(tls: *mut esp_tls, state: esp_tls_conn_state) -> esp_err_t;
    pub fn esp_tls_conn_new_sync(
        host: *const c_char,
        host_len: c_int,
        port: c_int,
        config: *const esp_tls_cfg,
        tls: *mut esp_tls,
    ) -> c_int;
    pub fn esp_tls_conn_new_async(
        host: *const c_char,
        host_len: c_int,
        port: c_int,
        config: *const esp_tls_cfg,
        tls: *mut esp_tls,
    ) -> c_int;
    pub fn esp_tls_conn_read(tls: *mut esp_tls, data: *mut c_void, len: usize) -> isize;
    pub fn esp_tls_conn_write(tls: *mut esp_tls, data: *const c_void, len: usize) -> isize;
    pub fn esp_tls_conn_destroy(tls: *mut esp_tls) -> c_int;
    pub fn esp_tls_server_session_create(
        config: *mut esp_tls_cfg_server,
        descriptor: c_int,
        tls: *mut esp_tls,
    ) -> c_int;
    pub fn esp_tls_server_session_init(
        config: *mut esp_tls_cfg_server,
        descriptor: c_int,
        tls: *mut esp_tls,
    ) -> esp_err_t;
    pub fn esp_tls_server_session_continue_async(tls: *mut esp_tls) -> c_int;
    pub fn esp_tls_server_session_delete(tls: *mut esp_tls);
}
