//! The control port: just enough HTTP/1.1 for curl and scripts, on 127.0.0.1.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::control::Control;
use crate::emulator::{accept, stopped};
use crate::routes::route;
use crate::{Error, percent_decode};

/// Largest request head and largest request body.
const LIMIT: usize = 1024 * 1024;
/// Timeout of receiving a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A parsed request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Decoded segments of the path.
    pub(crate) path: Vec<String>,
    pub(crate) query: HashMap<String, String>,
    /// Null when there is none.
    pub(crate) body: Value,
}

/// The reply of a route.
#[derive(Debug)]
pub(crate) enum Reply {
    Json(Value),
    Text(String),
    /// A body as DER.
    RevocationList(Vec<u8>),
}

/// Serves the control API on a port of 127.0.0.1 (0 picks a free port) until the emulator stops.
///
/// # Errors
/// [`Error::Listen`] when the port is taken.
pub async fn serve_control(control: Control, port: u16) -> Result<SocketAddr, Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listen_error = |error| Error::Listen(format!("{address} for the control port"), error);
    let listener = TcpListener::bind(address).await.map_err(listen_error)?;
    let address = listener.local_addr().map_err(listen_error)?;
    tokio::spawn(async move {
        let mut stop = control.shared.stop.subscribe();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                (stream, slot) = accept(&control.shared.unauthenticated, &listener, address) => {
                    let control = control.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = answer(control, stream) => {}
                            () = slot.closed() => {}
                        }
                    });
                }
            }
        }
    });
    Ok(address)
}

async fn answer(control: Control, mut stream: TcpStream) {
    let read = timeout(REQUEST_TIMEOUT, read_request(&mut stream)).await;
    let (status, reply) = match read {
        Ok(Ok(request)) => match route(&control, &request).await {
            Ok(reply) => ("200 OK", reply),
            Err(error) => (status_of(&error), Reply::Json(json!({ "error": error.to_string() }))),
        },
        Ok(Err(why)) => ("400 Bad Request", Reply::Json(json!({ "error": why }))),
        Err(_) => ("408 Request Timeout", Reply::Json(json!({ "error": "the request was not complete within 10 s" }))),
    };
    let (kind, body) = match reply {
        Reply::Json(value) => ("application/json", format!("{value:#}\n").into_bytes()),
        Reply::Text(text) => ("text/plain; charset=utf-8", text.into_bytes()),
        Reply::RevocationList(list) => ("application/pkix-crl", list),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    // The client may have closed the connection already.
    let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
    let _ = stream.shutdown().await;
}

fn status_of(error: &Error) -> &'static str {
    match error {
        Error::NoSuchHub(_) | Error::NoSuchDevice(_) | Error::NoSuchEnrollment(_) | Error::NotListening(_) => {
            "404 Not Found"
        }
        Error::QueueFull | Error::NeverConnected(_) => "409 Conflict",
        Error::Conflict => "412 Precondition Failed",
        Error::NoAnswer => "504 Gateway Timeout",
        Error::HubName(_) | Error::Request(_) => "400 Bad Request",
        Error::Certificate(_) | Error::Listen(..) | Error::Write(..) => "500 Internal Server Error",
    }
}

async fn read_request(stream: &mut TcpStream) -> Result<Request, &'static str> {
    let mut input = Vec::new();
    let end = loop {
        if let Some(at) = input.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, &mut input).await?;
    };
    let head = std::str::from_utf8(&input[..end]).map_err(|_| "the head of the request is not UTF-8")?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, target) = (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().map_err(|_| "the content length is not a number")?;
        }
    }
    if length > LIMIT {
        return Err("the body exceeds 1 MiB");
    }
    while input.len() < end + length {
        more(stream, &mut input).await?;
    }
    let body = input[end..end + length].trim_ascii();
    let body = match body {
        [] => Value::Null,
        body => serde_json::from_slice(body).map_err(|_| "the body is not JSON")?,
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let path = path.split('/').filter(|segment| !segment.is_empty()).map(percent_decode).collect();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let query = pairs.map(|(key, value)| (percent_decode(key), percent_decode(value))).collect();
    Ok(Request { method, path, query, body })
}

async fn more(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<(), &'static str> {
    if input.len() > 2 * LIMIT {
        return Err("the request is too large");
    }
    match stream.read_buf(input).await {
        Ok(count) if count > 0 => Ok(()),
        Ok(_) | Err(_) => Err("the request ends early"),
    }
}
