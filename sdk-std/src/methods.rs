//! A handler for each method.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use steadfast_core::iothub::service_topics::NOT_FOUND;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::device::Device;

/// Status for a handler that exceeded its timeout.
const TOO_SLOW: u16 = 504;

/// Status for a handler that panicked.
const FAILED: u16 = 500;

/// The answer of a method's handler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MethodAnswer {
    /// An HTTP-like status.
    pub status: u16,
    /// JSON, or nothing.
    pub body: Vec<u8>,
}

impl MethodAnswer {
    /// Makes an answer from a status and a body, which is JSON or empty.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into() }
    }

    /// Makes the answer 200 with a body, which is JSON or empty.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200, body)
    }

    /// Makes an answer from a status and `value` as JSON; 500 without a body if the value cannot be serialised, such as
    /// a map whose keys are not strings.
    #[cfg(feature = "json")]
    pub fn json_of(status: u16, value: &(impl serde::Serialize + ?Sized)) -> Self {
        serde_json::to_vec(value).map_or_else(|_| Self::new(FAILED, ""), |body| Self::new(status, body))
    }
}

type Handling = Pin<Box<dyn Future<Output = MethodAnswer> + Send>>;
type Handler = Box<dyn Fn(Vec<u8>) -> Handling + Send + Sync>;

/// The methods of a device, a handler for each.
///
/// ```no_run
/// use steadfast::{Device, MethodAnswer, Methods};
///
/// # async fn serve(device: Device) {
/// Methods::new()
///     .on("reboot", |_body| async { MethodAnswer::new(202, "") })
///     .on("thermostat1*getMaxMinReport", |body| async move { MethodAnswer::ok(body) })
///     .serve(&device)
///     .await;
/// # }
/// ```
pub struct Methods {
    handlers: HashMap<String, Handler>,
    patience: Duration,
}

impl Methods {
    /// Begins without methods.
    #[must_use]
    pub fn new() -> Self {
        Self { handlers: HashMap::new(), patience: Duration::from_secs(30) }
    }

    /// Adds a method; of a component's command the name is `component*command`. A later handler of the same name
    /// replaces an earlier one.
    #[must_use]
    pub fn on<F, R>(mut self, name: &str, handler: F) -> Self
    where
        F: Fn(Vec<u8>) -> R + Send + Sync + 'static,
        R: Future<Output = MethodAnswer> + Send + 'static,
    {
        self.handlers.insert(name.to_owned(), Box::new(move |body| Box::pin(handler(body))));
        self
    }

    /// Adds a method whose body is read as JSON and whose answer is written as JSON, with status 200; a handler's error
    /// is its own answer.
    ///
    /// A body that is no `T` is answered with 400 and the reason, `{"error":"..."}`; an empty one counts as `null`, which
    /// `()` and an `Option` are.
    ///
    /// ```no_run
    /// use steadfast::{MethodAnswer, Methods};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Interval {
    ///     seconds: u64,
    /// }
    ///
    /// let methods = Methods::new().on_json("setInterval", |wish: Interval| async move {
    ///     if wish.seconds == 0 {
    ///         return Err(MethodAnswer::json_of(400, "the interval must be above 0"));
    ///     }
    ///     Ok(serde_json::json!({ "seconds": wish.seconds }))
    /// });
    /// ```
    #[cfg(feature = "json")]
    #[must_use]
    pub fn on_json<T, A, F, R>(self, name: &str, handler: F) -> Self
    where
        T: serde::de::DeserializeOwned,
        A: serde::Serialize,
        F: Fn(T) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, MethodAnswer>> + Send + 'static,
    {
        self.on(name, move |body| {
            let wish = serde_json::from_slice(if body.is_empty() { b"null" } else { &body });
            let handling = wish.map(&handler);
            async move {
                match handling {
                    Ok(handling) => {
                        handling.await.map_or_else(|refusal| refusal, |answer| MethodAnswer::json_of(200, &answer))
                    }
                    Err(error) => MethodAnswer::json_of(400, &serde_json::json!({ "error": error.to_string() })),
                }
            }
        })
    }

    /// Sets the timeout of a handler, after which the call is answered with 504 and the handler dropped. Default 30 s,
    /// a caller's default timeout.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Answers calls until the device's driver ends. It runs up to 64 handlers concurrently, or as many as
    /// [`method_calls`](crate::Builder::method_calls) allows; further calls are answered with 503.
    ///
    /// A method without a handler is answered with 404. One whose handler panics, or whose answer is not JSON or larger
    /// than 128 KiB, is answered with 500 and a warning in the log. An answer after the end of the call's connection is
    /// dropped with a warning. Dropping the future drops the running handlers.
    pub async fn serve(&self, device: &Device) {
        let mut running = JoinSet::new();
        let mut calls = device.direct_methods();
        loop {
            let call = tokio::select! {
                call = calls.next() => call,
                Some(_) = running.join_next() => continue,
            };
            let Some(call) = call else { return };
            let Some(handler) = self.handlers.get(call.name()) else {
                answer(call, &MethodAnswer::new(NOT_FOUND, ""));
                continue;
            };
            let handling = timeout(self.patience, handler(call.payload().to_vec()));
            running.spawn(async move {
                // A separate task, so that a panic ends only this call.
                let handled = tokio::spawn(handling).await;
                let answered = match handled {
                    Ok(Ok(answered)) => answered,
                    Ok(Err(_)) => MethodAnswer::new(TOO_SLOW, ""),
                    Err(_) => MethodAnswer::new(FAILED, ""),
                };
                answer(call, &answered);
            });
        }
    }
}

fn answer(call: crate::direct_methods::MethodCall, answer: &MethodAnswer) {
    let name = call.name().to_owned();
    if let Err(error) = call.respond(answer.status, &answer.body) {
        tracing::warn!(method = name, %error, "the answer to a method call was dropped");
    }
}

impl Default for Methods {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.handlers.keys()).finish()
    }
}
