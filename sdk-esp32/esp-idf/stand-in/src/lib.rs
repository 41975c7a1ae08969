//! The signatures of esp-idf-svc 0.53 that the glue uses, without what they do: a stand-in for type checks on machines
//! without ESP-IDF. Nothing of it runs. That the glue fits it proves only that the glue fits these signatures.
#![expect(missing_docs, reason = "the documentation is that of esp-idf-svc")]
#![expect(clippy::missing_safety_doc, reason = "the documentation is that of esp-idf-sys")]

pub mod sys {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EspError(i32);

    impl EspError {
        pub const fn code(&self) -> i32 {
            self.0
        }
    }

    pub const ESP_TLS_ERR_SSL_WANT_READ: i32 = -0x6900;
    pub const ESP_TLS_ERR_SSL_WANT_WRITE: i32 = -0x6880;
    pub const EWOULDBLOCK: u32 = 11;
    pub const ESP_ERR_MBEDTLS_SSL_HANDSHAKE_FAILED: u32 = 0x801a;

    pub unsafe fn esp_random() -> u32 {
        unreachable!("a stand-in")
    }
}

pub mod tls {
    use super::sys::EspError;

    #[derive(Clone, Copy, Debug)]
    pub struct X509<'a>(&'a [u8]);

    impl<'a> X509<'a> {
        pub const fn pem_until_nul(bytes: &'a [u8]) -> Self {
            Self(bytes)
        }

        pub fn data(&self) -> &[u8] {
            self.0
        }
    }

    #[derive(Debug)]
    pub struct Config<'a> {
        pub ca_cert: Option<X509<'a>>,
        pub client_cert: Option<X509<'a>>,
        pub client_key: Option<X509<'a>>,
        pub non_block: bool,
        pub timeout_ms: u32,
        pub use_global_ca_store: bool,
        pub common_name: Option<&'a str>,
        pub skip_common_name: bool,
        pub use_crt_bundle_attach: bool,
    }

    impl Config<'_> {
        pub const fn new() -> Self {
            Self {
                ca_cert: None,
                client_cert: None,
                client_key: None,
                non_block: false,
                timeout_ms: 4000,
                use_global_ca_store: false,
                common_name: None,
                skip_common_name: false,
                use_crt_bundle_attach: true,
            }
        }
    }

    impl Default for Config<'_> {
        fn default() -> Self {
            Self::new()
        }
    }

    #[derive(Debug)]
    pub struct CompletedHandshake(());

    pub trait Socket {
        fn handle(&self) -> i32;
        fn release(&mut self) -> Result<(), EspError>;
    }

    #[derive(Debug)]
    pub struct EspTls<S: Socket>(S);

    impl<S: Socket> EspTls<S> {
        pub fn adopt(_socket: S) -> Result<Self, EspError> {
            unreachable!("a stand-in")
        }

        pub fn negotiate(&mut self, _host: &str, _cfg: &Config<'_>) -> Result<CompletedHandshake, EspError> {
            unreachable!("a stand-in")
        }

        pub fn read(&mut self, _buf: &mut [u8]) -> Result<usize, EspError> {
            unreachable!("a stand-in")
        }

        pub fn write(&mut self, _buf: &[u8]) -> Result<usize, EspError> {
            unreachable!("a stand-in")
        }
    }
}

pub mod nvs {
    use super::sys::EspError;
    use embedded_svc::storage::{RawStorage, StorageBase};

    pub trait NvsPartitionId {}

    #[derive(Debug)]
    pub struct NvsDefault(());

    impl NvsPartitionId for NvsDefault {}

    #[derive(Clone, Debug)]
    pub struct EspNvsPartition<T>(core::marker::PhantomData<T>);

    pub type EspDefaultNvsPartition = EspNvsPartition<NvsDefault>;

    impl EspNvsPartition<NvsDefault> {
        pub fn take() -> Result<Self, EspError> {
            unreachable!("a stand-in")
        }
    }

    #[derive(Debug)]
    pub struct EspKeyValueStorage<T: NvsPartitionId>(core::marker::PhantomData<T>);

    impl<T: NvsPartitionId> EspKeyValueStorage<T> {
        pub fn new(_partition: EspNvsPartition<T>, _namespace: &str, _read_write: bool) -> Result<Self, EspError> {
            unreachable!("a stand-in")
        }
    }

    impl<T: NvsPartitionId> StorageBase for EspKeyValueStorage<T> {
        type Error = EspError;

        fn contains(&self, _name: &str) -> Result<bool, EspError> {
            unreachable!("a stand-in")
        }

        fn remove(&mut self, _name: &str) -> Result<bool, EspError> {
            unreachable!("a stand-in")
        }
    }

    impl<T: NvsPartitionId> RawStorage for EspKeyValueStorage<T> {
        fn len(&self, _name: &str) -> Result<Option<usize>, EspError> {
            unreachable!("a stand-in")
        }

        fn get_raw<'a>(&self, _name: &str, _buf: &'a mut [u8]) -> Result<Option<&'a [u8]>, EspError> {
            unreachable!("a stand-in")
        }

        fn set_raw(&mut self, _name: &str, _buf: &[u8]) -> Result<bool, EspError> {
            unreachable!("a stand-in")
        }
    }
}
