//! Glue between `steadfast-esp32` and ESP-IDF: TLS by its mbedTLS, the clocks and sockets of its std, entropy of the
//! chip, the non-volatile storage, its HTTP client for uploads.
//!
//! It holds no rules. On machines without ESP-IDF it is type-checked against the real esp-idf-svc, below which hand-written
//! declarations stand in for those that ESP-IDF's headers give (`stand-in`).

mod board;
mod http;
mod tls;

pub use board::{EspBoard, seed};
pub use http::{EspHttp, EspHttps};
pub use tls::{EspDialler, EspStream, Trust};
