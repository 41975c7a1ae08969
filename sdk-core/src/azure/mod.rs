//! Azure IoT.
