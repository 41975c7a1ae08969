//! Direct methods that a module calls of other modules, and of devices below its gateway.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use steadfast_core::azure::sas::Resource;
use steadfast_core::edge::methods::{self, Answer, Call, CallError, PAYLOAD_MAX};
use steadfast_core::{Failure, Service};

use super::workload::Growing;
use crate::connector::Setup;
use crate::device::Device;
use crate::http::{HttpConnection, Request};
use crate::shared::Shared;
use crate::tokens;

/// Default wait for the answer.
const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// Longest answer that is read: a payload and its envelope.
const ANSWER: usize = PAYLOAD_MAX + 1024;

/// Time allowed for the call beyond the waits requested of the gateway.
const SLACK: Duration = Duration::from_secs(30);

impl Device {
    /// Calls a direct method of `device_id`, or with [`ModuleCall::of_module`] of one of its modules, through this
    /// module's gateway. The call is made when it is awaited.
    ///
    /// `payload` is a JSON text, or empty. The call uses HTTPS and is independent of the link, whether that is up or
    /// not. It is never repeated, since a method need not be idempotent.
    ///
    /// ```no_run
    /// # async fn example(module: steadfast::Device) -> Result<(), steadfast::InvokeError> {
    /// let answer = module.invoke_method("line-7", "flush", r#"{"litres":2}"#).of_module("valve").await?;
    /// println!("{}: {}", answer.status, answer.payload);
    /// # Ok(())
    /// # }
    /// ```
    pub fn invoke_method(&self, device_id: &str, name: &str, payload: &str) -> ModuleCall {
        ModuleCall {
            shared: Arc::clone(self.shared()),
            setup: Arc::clone(self.setup()),
            device_id: device_id.into(),
            module_id: None,
            name: name.into(),
            payload: payload.into(),
            connect_wait: Duration::ZERO,
            answer_wait: ANSWER_WAIT,
        }
    }
}

/// A call that is made when it is awaited. Made by [`Device::invoke_method`].
#[must_use = "a call is made when it is awaited"]
pub struct ModuleCall {
    shared: Arc<Shared>,
    setup: Arc<Setup>,
    device_id: Box<str>,
    module_id: Option<Box<str>>,
    name: Box<str>,
    payload: Box<str>,
    connect_wait: Duration,
    answer_wait: Duration,
}

impl ModuleCall {
    /// Calls this module of the device instead of the device itself.
    pub fn of_module(self, module_id: &str) -> Self {
        Self { module_id: Some(module_id.into()), ..self }
    }

    /// Sets how long the gateway waits for the one called to connect, up to 300 s, in whole seconds. Default 0 s.
    pub fn connect_wait(self, wait: Duration) -> Self {
        Self { connect_wait: wait, ..self }
    }

    /// Sets how long the gateway waits for the answer, 5 s to 300 s, in whole seconds. Default 30 s.
    pub fn answer_wait(self, wait: Duration) -> Self {
        Self { answer_wait: wait, ..self }
    }

    async fn run(self) -> Result<ModuleCallAnswer, InvokeError> {
        let call = Call {
            device_id: &self.device_id,
            module_id: self.module_id.as_deref(),
            name: &self.name,
            payload: &self.payload,
            connect_wait: self.connect_wait,
            answer_wait: self.answer_wait,
        };
        call.check().map_err(InvokeError::Unfit)?;
        let caller = self.caller().ok_or(InvokeError::NoModule)?;
        let resource =
            Resource::Device { hub: &caller.hub, device_id: &caller.device_id, module_id: Some(&caller.module_id) };
        let mut request = Request::new(Method::POST, call.path().to_string())
            .header("content-type", "application/json")
            .header(methods::CALLER_HEADER, format!("{}/{}", caller.device_id, caller.module_id));
        let token = tokens::for_request(&self.setup, &resource, 0).await.map_err(InvokeError::Failed)?;
        if let Some(token) = token {
            request = request.header("authorization", token.as_str());
        }
        let mut body = Growing(Vec::new());
        // It grows.
        let _ = call.put_body(&mut body);
        let way = HttpConnection::to(&caller.gateway).ok_or(InvokeError::Failed(Failure::Unresolved))?;
        let mut way = way.within(self.connect_wait + self.answer_wait + SLACK, ANSWER);
        let shown = self.setup.certificate.is_some();
        let answer = way.send(&self.setup, shown, &request, &Bytes::from(body.0)).await.map_err(InvokeError::Failed)?;
        if !(200..300).contains(&answer.status) {
            let message = methods::error_message(&answer.body);
            let message = message.map(|text| text.chars().take(200).filter(|one| !one.is_control()).collect());
            let (status, retry_after_secs) = (answer.status, answer.retry_after_secs);
            return Err(InvokeError::Refused { status, message: message.unwrap_or_default(), retry_after_secs });
        }
        let answer = Answer::read(&answer.body).ok_or(InvokeError::BadAnswer)?;
        let payload = answer.payload.map(|payload| payload.raw().to_owned()).unwrap_or_default();
        Ok(ModuleCallAnswer { status: answer.status, payload })
    }

    /// The calling module and its gateway.
    fn caller(&self) -> Option<Caller> {
        let inner = self.shared.lock();
        let config = inner.link.link().profile().config();
        let Service::Hub { host, device_id } = &config.service else { return None };
        let (hub, device_id) = (host.to_string(), device_id.to_string());
        Some(Caller {
            hub,
            device_id,
            module_id: config.module_id.as_deref()?.to_owned(),
            gateway: config.gateway.as_deref()?.to_owned(),
        })
    }
}

struct Caller {
    hub: String,
    device_id: String,
    module_id: String,
    gateway: String,
}

impl IntoFuture for ModuleCall {
    type Output = Result<ModuleCallAnswer, InvokeError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for ModuleCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModuleCall")
            .field("device_id", &self.device_id)
            .field("module_id", &self.module_id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The answer of a called method.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModuleCallAnswer {
    /// The method's status, whose meaning it defines.
    pub status: i32,
    /// JSON, or nothing.
    pub payload: String,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvokeError {
    /// The call's arguments are invalid.
    Unfit(CallError),
    /// Only a module of a configured hub with a gateway can call.
    NoModule,
    /// The gateway was not reached, or no token was made: the method may have run only if the connection broke.
    Failed(Failure),
    /// The gateway did not forward the call, or got no answer to it.
    Refused {
        /// HTTP status of its answer: 401 if the caller is not authorised, 404 if the target is not connected or has no
        /// methods, 504 if it did not answer in time.
        status: u16,
        /// Its words, if it had any.
        message: String,
        /// The gateway's retry-after in seconds, if any.
        retry_after_secs: Option<u32>,
    },
    /// The gateway's answer cannot be parsed.
    BadAnswer,
}

impl fmt::Display for InvokeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(error) => error.fmt(f),
            Self::NoModule => f.write_str("only a module with a gateway can call methods"),
            Self::Failed(failure) => write!(f, "the call was not sent or not answered: {failure}"),
            Self::Refused { status, message, .. } if message.is_empty() => write!(f, "the gateway answered {status}"),
            Self::Refused { status, message, .. } => write!(f, "the gateway answered {status}: {message}"),
            Self::BadAnswer => f.write_str("the gateway's answer cannot be parsed"),
        }
    }
}

impl std::error::Error for InvokeError {}
