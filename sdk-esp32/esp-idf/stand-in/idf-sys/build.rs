//! Tells the crates above which parts of ESP-IDF there are, as esp-idf-sys does after reading `sdkconfig`.

fn main() {
    let parts = [
        "esp32c3",
        "esp_idf_version_major=\"5\"",
        "esp_idf_version_minor=\"5\"",
        "esp_idf_version_at_least_5_1_0",
        "esp_idf_version_at_least_5_2_0",
        "esp_idf_version_at_least_5_3_0",
        "esp_idf_version_at_least_5_4_0",
        "esp_idf_version_at_least_5_5_0",
        "esp_idf_comp_esp_http_client_enabled",
        "esp_idf_comp_esp_tls_enabled",
        "esp_idf_comp_nvs_flash_enabled",
        "esp_idf_esp_tls_using_mbedtls",
        "esp_idf_mbedtls_certificate_bundle",
        "esp_idf_mbedtls_threading_c",
    ];
    println!("cargo::metadata=EMBUILD_CFG_ARGS={}", parts.join(":"));
    println!("cargo::rerun-if-changed=build.rs");
}
