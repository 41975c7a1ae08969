//! A stand-in for esp-idf-sys 0.38: the declarations of ESP-IDF 5.5 that esp-idf-svc's `tls`, `nvs` and `http::client` name, written by
//! hand in the form that bindgen gives them, for type checks only. It links to nothing.
#![no_std]
#![expect(missing_docs, reason = "the documentation is ESP-IDF's")]
#![expect(non_camel_case_types, non_upper_case_globals, reason = "the names are ESP-IDF's")]

mod error;
mod http;
mod nvs;
mod os;
mod tls;

pub use error::*;
pub use http::*;
pub use nvs::*;
pub use os::*;
pub use tls::*;
