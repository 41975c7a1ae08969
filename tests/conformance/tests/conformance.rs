//! Every story, for every frontend.

use conformance::{Asynchronous, Blocking, Core, Linux, every_story};

every_story! {
    core: Core,
    linux: Linux,
    esp32_blocking: Blocking,
    esp32_asynchronous: Asynchronous,
}
