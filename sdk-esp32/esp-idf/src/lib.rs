//! Glue between `steadfast-esp32` and ESP-IDF: TLS by its mbedTLS, the clocks and sockets of its std, entropy of the
//! chip, the non-volatile storage.
//!
//! It holds no rules. Where ESP-IDF is not, it is checked against signatures only (`stand-in`).

#[cfg(not(target_os = "espidf"))]
extern crate esp_idf_svc_stand_in as esp_idf_svc;

mod board;
mod tls;

pub use board::{EspBoard, seed};
pub use tls::{EspDialler, EspStream, Trust};
