//! A device on an ESP32 under ESP-IDF: Wi-Fi, SNTP, then the library's device.

#[cfg(target_os = "espidf")]
fn main() {
    if let Err(error) = device::run() {
        println!("{error}");
    }
}

#[cfg(not(target_os = "espidf"))]
fn main() {
    println!("this image is for ESP-IDF; docs/porting.md says how to build it");
}

#[cfg(target_os = "espidf")]
mod device {
    use std::error::Error;
    use std::time::Duration;

    use esp_idf_svc::eventloop::EspSystemEventLoop;
    use esp_idf_svc::hal::peripherals::Peripherals;
    use esp_idf_svc::nvs::EspDefaultNvsPartition;
    use esp_idf_svc::sntp::{EspSntp, SyncStatus};
    use esp_idf_svc::wifi::{BlockingWifi, EspWifi};
    use steadfast_core::azure::sas::SymmetricKey;

    pub(super) fn run() -> Result<(), Box<dyn Error>> {
        esp_idf_svc::sys::link_patches();
        let peripherals = Peripherals::take()?;
        let events = EspSystemEventLoop::take()?;
        let nvs = EspDefaultNvsPartition::take()?;

        let wifi = EspWifi::new(peripherals.modem, events.clone(), Some(nvs.clone()))?;
        let mut wifi = BlockingWifi::wrap(wifi, events)?;
        wifi.set_configuration(&esp32_idf::station(env!("WIFI_SSID"), env!("WIFI_PASSWORD"))?)?;
        wifi.start()?;
        wifi.connect()?;
        wifi.wait_netif_up()?;
        let sntp = EspSntp::new_default()?;
        while sntp.get_sync_status() != SyncStatus::Completed {
            std::thread::sleep(Duration::from_millis(100));
        }

        let key = SymmetricKey::from_base64(env!("DEVICE_KEY"))?;
        esp32_idf::run(nvs, key, wifi)
    }
}
