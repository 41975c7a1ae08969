//! File uploads: requests to the hub and to the storage, as text.

use hub_emulator::{Config, Emulator, HubConfig, Key};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::support::{HUB, SOON, start, tls_stream, token};

const DEVICE: &str = "Dev-1";
const STORAGE: &str = "emulator.blob.core.windows.net";

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    /// With Content-Length.
    Counted,
    /// In chunks of three bytes.
    Chunked,
    /// With `Expect: 100-continue`.
    Announced,
}

/// The upload dialect of one SDK.
#[derive(Clone, Debug)]
struct Dialect {
    name: &'static str,
    /// Source files, `repository: path`.
    sources: &'static [&'static str],
    /// The prefix before the path of the hub's resources.
    before: &'static str,
    version: &'static str,
    http: &'static str,
    headers: &'static str,
    body: Body,
    /// The correlation id is at the end of the path instead of in the body.
    id_in_path: bool,
    /// In blocks with these ids, or as a whole blob.
    blocks: &'static [&'static str],
}

const COMMON: Dialect = Dialect {
    name: "",
    sources: &[],
    before: "",
    version: "2020-09-30",
    http: "HTTP/1.1",
    headers: "",
    body: Body::Counted,
    id_in_path: false,
    blocks: &[],
};

fn dialects() -> Vec<Dialect> {
    vec![
        Dialect {
            name: "C",
            sources: &[
                "Azure/azure-iot-sdk-c: iothub_client/src/iothub_client_ll_uploadtoblob.c",
                "Azure/azure-iot-sdk-c: iothub_client/src/blob.c",
            ],
            version: "2016-11-14",
            headers: "Accept: application/json\r\nUser-Agent: iothubclient/1.2.0\r\nConnection: keep-alive\r\n",
            id_in_path: true,
            // Six characters, padded with spaces.
            blocks: &["ICAgICAw", "ICAgICAx"],
            ..COMMON
        },
        Dialect {
            name: "C#",
            sources: &["Azure/azure-iot-sdk-csharp: iothub/device/src/Transport/HttpClientHelper.cs"],
            headers: "Accept: application/json\r\nUser-Agent: .NET/1.42.0\r\n",
            ..COMMON
        },
        Dialect {
            name: "Java",
            sources: &["Azure/azure-iot-sdk-java: .../device/transport/https/HttpsTransportManager.java"],
            headers: "Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\r\nConnection: keep-alive\r\n",
            blocks: &["MDAwMDAwMDA=", "MDAwMDAwMDE="],
            ..COMMON
        },
        Dialect {
            name: "chunks",
            sources: &["RFC 9112, 7.1"],
            headers: "Transfer-Encoding: chunked\r\nAccept: application/json\r\nAccept: */*\r\n",
            body: Body::Chunked,
            ..COMMON
        },
        Dialect {
            name: "announced, as curl does",
            sources: &["RFC 9110, 10.1.1"],
            headers: "Expect: 100-continue\r\n",
            body: Body::Announced,
            ..COMMON
        },
        Dialect {
            name: "Python 2.9",
            sources: &["Azure/azure-iot-sdk-python: azure-iot-device/azure/iot/device/common/http_transport.py"],
            before: "https://hub-a.azure-devices.net/",
            version: "2019-10-01",
            headers: "Accept: application/json\r\nAccept-Encoding: identity\r\n",
            ..COMMON
        },
        Dialect {
            name: "a client of HTTP/1.0",
            sources: &["RFC 1945"],
            http: "HTTP/1.0",
            headers: "Connection: Keep-Alive\r\n",
            ..COMMON
        },
    ]
}

#[tokio::test]
async fn every_dialect_uploads_a_file() {
    for dialect in dialects() {
        assert!(!dialect.sources.is_empty(), "{} names its sources", dialect.name);
        println!("{} ({})", dialect.name, dialect.sources.join(", "));
        upload(&dialect).await;
    }
}

async fn upload(dialect: &Dialect) {
    let key = Key::from_seed("dialect");
    let hub = HubConfig::new(HUB).device(DEVICE, key.clone());
    let emulator = start(Config::new().hub_with(hub).https_port(0).storage_host(STORAGE)).await;
    let authorization = format!("Authorization: {}\r\n", token(HUB, DEVICE, &key));

    // One connection for both requests to the hub.
    let mut hub = Line::open(&emulator, HUB).await;
    let target = format!("{}/devices/{DEVICE}/files?api-version={}", dialect.before, dialect.version);
    let body = json!({"blobName": "dir/log 1.txt"}).to_string();
    let (status, answer) = hub.ask(dialect, "POST", &target, &authorization, body.as_bytes()).await;
    assert_eq!(status, 200, "{}: {answer}", dialect.name);
    let place: Value = serde_json::from_str(&answer).unwrap();
    let text = |name: &str| place[name].as_str().unwrap().to_owned();

    let mut storage = Line::open(&emulator, STORAGE).await;
    let blob = text("blobName").replace('/', "%2f").replace(' ', "%20");
    let base = format!("/{}/{blob}{}", text("containerName"), text("sasToken"));
    if dialect.blocks.is_empty() {
        let (status, _) = storage.ask(dialect, "PUT", &base, "x-ms-blob-type: BlockBlob\r\n", b"one two").await;
        assert_eq!(status, 201, "{}", dialect.name);
    } else {
        let mut list = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n<BlockList>".to_owned();
        for (id, part) in dialect.blocks.iter().zip([&b"one "[..], b"two"]) {
            let target = format!("{base}&comp=block&blockid={id}");
            assert_eq!(storage.ask(dialect, "PUT", &target, "", part).await.0, 201, "{}", dialect.name);
            list += &format!("<Latest>{id}</Latest>");
        }
        list += "</BlockList>";
        let target = format!("{base}&comp=blocklist");
        assert_eq!(storage.ask(dialect, "PUT", &target, "", list.as_bytes()).await.0, 201, "{}", dialect.name);
    }
    assert_eq!(emulator.uploaded(DEVICE, "dir/log 1.txt").unwrap(), b"one two", "{}", dialect.name);

    let mut notification = json!({"isSuccess": true, "statusCode": 201, "statusDescription": ""});
    let correlation = text("correlationId");
    let end = if dialect.id_in_path {
        format!("notifications/{correlation}")
    } else {
        notification["correlationId"] = json!(correlation);
        "notifications".to_owned()
    };
    let target = format!("{}/devices/{DEVICE}/files/{end}?api-version={}", dialect.before, dialect.version);
    let (status, answer) = hub.ask(dialect, "POST", &target, &authorization, notification.to_string().as_bytes()).await;
    assert_eq!((status, answer.as_str()), (204, ""), "{}", dialect.name);
    emulator.stop().await;
}

/// A connection that stays open between requests.
struct Line {
    stream: TlsStream<TcpStream>,
    host: String,
}

impl Line {
    async fn open(emulator: &Emulator, name: &str) -> Self {
        let stream = tls_stream(emulator.https_addr().unwrap(), emulator.ca_pem(), name, None).await.unwrap();
        Self { stream, host: format!("{name}:443") }
    }

    /// Sends a request; returns status and body of the response.
    async fn ask(
        &mut self,
        dialect: &Dialect,
        method: &str,
        target: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        let (length, body) = match dialect.body {
            Body::Counted | Body::Announced => (format!("Content-Length: {}\r\n", body.len()), body.to_vec()),
            Body::Chunked => {
                let mut chunks: Vec<u8> = body
                    .chunks(3)
                    .flat_map(|part| [b"0", &b"0123"[part.len()..=part.len()], b"\r\n", part, b"\r\n"].concat())
                    .collect();
                chunks.extend(b"0\r\n\r\n");
                (String::new(), chunks)
            }
        };
        let Dialect { http, headers: own, .. } = dialect;
        let head = format!("{method} {target} {http}\r\nHost: {}\r\n{own}{headers}{length}\r\n", self.host);
        self.stream.write_all(head.as_bytes()).await.unwrap();
        if dialect.body == Body::Announced {
            assert_eq!(self.head().await, "HTTP/1.1 100 Continue");
        }
        self.stream.write_all(&body).await.unwrap();
        let head = self.head().await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.split("\r\n").find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        timeout(SOON, self.stream.read_exact(&mut body)).await.unwrap().unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    /// Reads up to the empty line.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(SOON, self.stream.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(head).unwrap().trim_end().to_owned()
    }
}
