//! Nothing of its own: what it depends on is what is checked.

pub use {esp32_idf, steadfast_esp_idf};
