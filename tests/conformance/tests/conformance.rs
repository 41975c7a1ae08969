//! Every scenario, for every frontend.

use conformance::{Asynchronous, Blocking, Core, Linux, every_scenario};

every_scenario! {
    core: Core,
    linux: Linux,
    esp32_blocking: Blocking,
    esp32_asynchronous: Asynchronous,
}
