//! The HTTP client.

use core::ffi::{c_char, c_int, c_void};
use core::ptr;

use crate::esp_err_t;

macro_rules! methods {
    ($($name:ident = $number:expr),* $(,)?) => {
        $(pub const $name: esp_http_client_method_t = $number;)*
    };
}

pub type esp_http_client_method_t = u32;
methods! {
    esp_http_client_method_t_HTTP_METHOD_GET = 0,
    esp_http_client_method_t_HTTP_METHOD_POST = 1,
    esp_http_client_method_t_HTTP_METHOD_PUT = 2,
    esp_http_client_method_t_HTTP_METHOD_PATCH = 3,
    esp_http_client_method_t_HTTP_METHOD_DELETE = 4,
    esp_http_client_method_t_HTTP_METHOD_HEAD = 5,
    esp_http_client_method_t_HTTP_METHOD_NOTIFY = 6,
    esp_http_client_method_t_HTTP_METHOD_SUBSCRIBE = 7,
    esp_http_client_method_t_HTTP_METHOD_UNSUBSCRIBE = 8,
    esp_http_client_method_t_HTTP_METHOD_OPTIONS = 9,
    esp_http_client_method_t_HTTP_METHOD_COPY = 10,
    esp_http_client_method_t_HTTP_METHOD_MOVE = 11,
    esp_http_client_method_t_HTTP_METHOD_LOCK = 12,
    esp_http_client_method_t_HTTP_METHOD_UNLOCK = 13,
    esp_http_client_method_t_HTTP_METHOD_PROPFIND = 14,
    esp_http_client_method_t_HTTP_METHOD_PROPPATCH = 15,
    esp_http_client_method_t_HTTP_METHOD_MKCOL = 16,
}

pub type esp_http_client_event_id_t = u32;
pub const esp_http_client_event_id_t_HTTP_EVENT_ON_HEADER: esp_http_client_event_id_t = 4;

#[repr(C)]
pub struct esp_http_client(u8);

pub type esp_http_client_handle_t = *mut esp_http_client;

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct esp_http_client_event {
    pub event_id: esp_http_client_event_id_t,
    pub client: esp_http_client_handle_t,
    pub data: *mut c_void,
    pub data_len: c_int,
    pub user_data: *mut c_void,
    pub header_key: *mut c_char,
    pub header_value: *mut c_char,
}

pub type esp_http_client_event_t = esp_http_client_event;

/// A union of pointers: the same bytes under two names.
macro_rules! either {
    ($($union:ident { $first:ident | $second:ident }),* $(,)?) => {
        $(
            #[derive(Clone, Copy)]
            #[repr(C)]
            pub union $union {
                pub $first: *const c_char,
                pub $second: *const c_char,
            }

            impl Default for $union {
                fn default() -> Self {
                    Self { $first: ptr::null() }
                }
            }
        )*
    };
}

either! {
    esp_http_client_config_t__bindgen_ty_1 { cert_pem | cert_der },
    esp_http_client_config_t__bindgen_ty_2 { client_cert_pem | client_cert_der },
}

#[derive(Clone, Copy)]
#[repr(C)]
pub struct esp_http_client_config_t {
    pub url: *const c_char,
    pub __bindgen_anon_1: esp_http_client_config_t__bindgen_ty_1,
    pub cert_len: usize,
    pub __bindgen_anon_2: esp_http_client_config_t__bindgen_ty_2,
    pub client_cert_len: usize,
    pub client_key_pem: *const c_char,
    pub client_key_len: usize,
    pub timeout_ms: c_int,
    pub event_handler: Option<unsafe extern "C" fn(*mut esp_http_client_event_t) -> esp_err_t>,
    pub buffer_size: c_int,
    pub buffer_size_tx: c_int,
    pub user_data: *mut c_void,
    pub use_global_ca_store: bool,
    pub crt_bundle_attach: Option<unsafe extern "C" fn(*mut c_void) -> esp_err_t>,
    pub keep_alive_enable: bool,
    pub keep_alive_idle: c_int,
    pub keep_alive_interval: c_int,
    pub keep_alive_count: c_int,
}

impl Default for esp_http_client_config_t {
    fn default() -> Self {
        Self {
            url: ptr::null(),
            __bindgen_anon_1: Default::default(),
            cert_len: 0,
            __bindgen_anon_2: Default::default(),
            client_cert_len: 0,
            client_key_pem: ptr::null(),
            client_key_len: 0,
            timeout_ms: 0,
            event_handler: None,
            buffer_size: 0,
            buffer_size_tx: 0,
            user_data: ptr::null_mut(),
            use_global_ca_store: false,
            crt_bundle_attach: None,
            keep_alive_enable: false,
            keep_alive_idle: 0,
            keep_alive_interval: 0,
            keep_alive_count: 0,
        }
    }
}

unsafe extern "C" {
    pub fn esp_http_client_init(config: *const esp_http_client_config_t) -> esp_http_client_handle_t;
    pub fn esp_http_client_cleanup(client: esp_http_client_handle_t) -> esp_err_t;
    pub fn esp_http_client_set_url(client: esp_http_client_handle_t, url: *const c_char) -> esp_err_t;
    pub fn esp_http_client_set_method(client: esp_http_client_handle_t, method: esp_http_client_method_t) -> esp_err_t;
    pub fn esp_http_client_set_header(
        client: esp_http_client_handle_t,
        key: *const c_char,
        value: *const c_char,
    ) -> esp_err_t;
    pub fn esp_http_client_set_redirection(client: esp_http_client_handle_t) -> esp_err_t;
    pub fn esp_http_client_open(client: esp_http_client_handle_t, write_len: c_int) -> esp_err_t;
    pub fn esp_http_client_write(client: esp_http_client_handle_t, buffer: *const c_char, len: c_int) -> c_int;
    pub fn esp_http_client_fetch_headers(client: esp_http_client_handle_t) -> i64;
    pub fn esp_http_client_read(client: esp_http_client_handle_t, buffer: *mut c_char, len: c_int) -> c_int;
    pub fn esp_http_client_flush_response(client: esp_http_client_handle_t, len: *mut c_int) -> esp_err_t;
    pub fn esp_http_client_get_status_code(client: esp_http_client_handle_t) -> c_int;
    pub fn esp_http_client_get_content_length(client: esp_http_client_handle_t) -> i64;
}
