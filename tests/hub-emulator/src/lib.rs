//! Local IoT Hub and DPS.
