//! Carries out the actions of an upload.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use steadfast_core::text::{Sink, SinkFull};
use steadfast_core::upload::{self as core_upload, Body, Input, Output, Report, Request};
use steadfast_core::{Failure, Seed};
use tokio::io::AsyncReadExt;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::{Listener, Source, Upload, UploadError, UploadReport, UploadSource};
use crate::connector::Setup;
use crate::context::SOURCES;
use crate::http::{self, ANSWER, Answer, HttpConnection};
use crate::shared::Shared;
use crate::{atomic_file, clock, tls, tokens};

/// How long the disk has for a block.
const READING: Duration = Duration::from_secs(60);

/// An upload in progress.
pub(super) struct Transfer {
    shared: Arc<Shared>,
    setup: Arc<Setup>,
    source: UploadSource,
    /// The source.
    open: Option<Open>,
    /// The block that was read last.
    block: Bytes,
    /// The source's error.
    problem: Option<String>,
    upload: core_upload::Upload<Box<str>, Vec<u8>>,
    listener: Option<Listener>,
    ways: Ways,
}

/// An open source.
enum Open {
    File(File),
    BackoffSnapshot(Cursor<Bytes>),
}

/// The connections.
#[derive(Default)]
struct Ways {
    /// The storage host, from its SAS URIs.
    storage: Option<(String, HttpConnection)>,
}

impl Transfer {
    pub(super) fn new(upload: Upload) -> Result<Self, UploadError> {
        let Upload { shared, setup, name, source, options, progress } = upload;
        let mut options = options;
        options.rereadable = !matches!(source.0, Source::Reader(_));
        let policy = shared.lock().link.link().profile().config().session.retry;
        let mut entropy = [0; 16];
        let drawn = tls::provider().secure_random.fill(&mut entropy);
        drawn.map_err(|_| UploadError::GaveUp(String::from("the operating system gave no randomness")))?;
        // Large enough for every answer.
        let memory = vec![0; ANSWER];
        let upload = core_upload::Upload::new(name, options, policy, Seed::new(entropy), memory, clock::now());
        Ok(Self {
            shared,
            setup,
            source,
            open: None,
            block: Bytes::new(),
            problem: None,
            upload: upload.map_err(|error| UploadError::of(error, None))?,
            listener: progress,
            ways: Ways::default(),
        })
    }

    /// Runs until the upload has ended.
    async fn run(&mut self) -> Result<Report, core_upload::UploadError> {
        let mut untold = 0;
        loop {
            if self.upload.untold() > untold {
                untold = self.upload.untold();
                tracing::warn!(device = %self.setup.name, "the hub was not notified of the end of an upload");
            }
            match self.upload.poll_output() {
                Output::Progress(progress) => {
                    if let Some(listener) = &mut self.listener {
                        listener(progress);
                    }
                }
                Output::Wait(at) => {
                    let delay = at.since(clock::now());
                    tracing::debug!(?delay, "an upload retries later");
                    sleep(delay).await;
                    self.upload.handle_timeout(clock::now());
                }
                Output::Home => self.home(),
                Output::Read { offset, len } => match self.read(offset, len).await {
                    Ok(len) => self.upload.handle_input(Input::Read { len }, clock::now()),
                    Err(error) => {
                        self.problem = Some(error.to_string());
                        self.upload.fail(core_upload::UploadError::Source, clock::now());
                    }
                },
                // No host has such a name.
                Output::Request(request)
                    if request.identity.is_none() && HttpConnection::to(request.host).is_none() =>
                {
                    self.upload.fail(core_upload::UploadError::Answer, clock::now());
                }
                Output::Request(request) => {
                    let attempt = request.attempt;
                    let module_id = module_id(&self.shared);
                    let sent = self.ways.send(&self.setup, &request, module_id.as_deref(), &self.block).await;
                    let input = match &sent {
                        Ok(Answer { status, retry_after_secs, body }) => {
                            Input::Answer { attempt, status: *status, retry_after_secs: *retry_after_secs, body }
                        }
                        Err(failure) => Input::Failed { attempt, failure: *failure },
                    };
                    self.upload.handle_input(input, clock::now());
                }
                Output::Done(result) => return result,
                other => {
                    tracing::error!(?other, "an upload has an unknown action");
                    return Err(core_upload::UploadError::Answer);
                }
            }
        }
    }

    /// Returns the device's assigned hub.
    fn home(&mut self) {
        let inner = self.shared.lock();
        let home = core_upload::home(inner.link.link());
        // A link that has stopped never will have a hub.
        let ended = inner.end.is_some() && matches!(home, Input::Unassigned);
        let input = if ended { Input::NoHub } else { home };
        self.upload.handle_input(input, clock::now());
    }

    /// Reads a block, and returns how long it is.
    async fn read(&mut self, offset: u64, len: usize) -> io::Result<usize> {
        if offset == 0 {
            self.open = None;
        }
        let most = u64::try_from(len).unwrap_or(u64::MAX);
        let mut block = Vec::new();
        let open = match &mut self.source.0 {
            Source::Reader(reader) => {
                reader.as_mut().take(most).read_to_end(&mut block).await?;
                None
            }
            Source::Bytes(bytes) => {
                Some(self.open.take().unwrap_or_else(|| Open::BackoffSnapshot(Cursor::new(bytes.clone()))))
            }
            Source::File(path) => {
                let (path, open) = (path.clone(), self.open.take());
                let reading = SOURCES.run(move || {
                    let file = match open {
                        Some(Open::File(file)) => file,
                        Some(Open::BackoffSnapshot(_)) | None => atomic_file::open(&path)?.0,
                    };
                    let mut block = Vec::new();
                    Read::take(&file, most).read_to_end(&mut block)?;
                    io::Result::Ok((file, block))
                });
                let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "the disk does not answer");
                let (file, read) = timeout(READING, reading).await.map_err(silent)???;
                block = read;
                Some(Open::File(file))
            }
        };
        self.open = match open {
            Some(Open::BackoffSnapshot(mut memory)) => {
                Read::take(&mut memory, most).read_to_end(&mut block)?;
                Some(Open::BackoffSnapshot(memory))
            }
            other => other,
        };
        self.block = Bytes::from(block);
        Ok(self.block.len())
    }

    /// Drops the source and the listener; returns whether the hub still needs the upload notification.
    fn abandon(&mut self) -> bool {
        self.listener = None;
        self.open = None;
        self.block = Bytes::new();
        self.source = UploadSource::bytes(Vec::new());
        self.upload.cancel(clock::now());
        loop {
            match self.upload.poll_output() {
                Output::Progress(_) => {}
                Output::Done(_) => return false,
                Output::Home | Output::Read { .. } | Output::Request(_) | Output::Wait(_) | _ => return true,
            }
        }
    }
}

fn module_id(shared: &Shared) -> Option<String> {
    shared.lock().link.link().profile().config().module_id.as_deref().map(str::to_owned)
}

impl Ways {
    async fn send(
        &mut self,
        setup: &Arc<Setup>,
        request: &Request<'_>,
        module_id: Option<&str>,
        block: &Bytes,
    ) -> Result<Answer, Failure> {
        let kept = self.storage.take().filter(|(host, _)| request.identity.is_none() && host == request.host);
        let mut way = match kept {
            Some((_, way)) => way,
            None => HttpConnection::to(request.host).ok_or(Failure::Unresolved)?,
        };
        let mut uri = Text(Zeroizing::new(Vec::new()));
        request.uri.write(&mut uri).map_err(|_| Failure::Network)?;
        let uri = String::from_utf8(std::mem::take(&mut *uri.0)).map_err(|_| Failure::Network)?;
        let method = if request.method == core_upload::Method::Post { Method::POST } else { Method::PUT };
        let mut message = http::Request::new(method, uri);
        for (name, value) in request.headers() {
            message = message.header(name, *value);
        }
        if let Some(identity) = &request.identity
            && let Some(token) = tokens::for_request(setup, &identity.resource(module_id), identity.refusals).await?
        {
            message = message.header("authorization", token.as_str());
        }
        let body = match request.body {
            Body::Document(document) => {
                let mut text = Text(Zeroizing::new(Vec::with_capacity(document.len())));
                document.write(&mut text).map_err(|_| Failure::Network)?;
                Bytes::from(std::mem::take(&mut *text.0))
            }
            Body::Block { .. } | _ => block.clone(),
        };
        let shown = request.identity.is_some() && setup.certificate.is_some();
        let answer = way.send(setup, shown, &message, &body).await;
        if request.identity.is_none() && answer.is_ok() {
            self.storage = Some((request.host.to_owned(), way));
        }
        answer
    }
}

/// A text in memory.
struct Text(Zeroizing<Vec<u8>>);

impl Sink for Text {
    fn put(&mut self, bytes: &[u8]) -> Result<(), SinkFull> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// A transfer that, if dropped early, spawns a task to notify the hub.
pub(super) struct Guard(Option<Box<Transfer>>);

impl Guard {
    pub(super) fn new(transfer: Transfer) -> Self {
        Self(Some(Box::new(transfer)))
    }

    pub(super) async fn run(&mut self) -> Result<UploadReport, UploadError> {
        let Some(transfer) = &mut self.0 else { return Err(UploadError::NoHub) };
        let result = transfer.run().await;
        let blob = transfer.upload.blob().to_owned();
        let problem = transfer.problem.take();
        self.0 = None;
        match result {
            Ok(Report { bytes, blocks, failures, .. }) => Ok(UploadReport { blob, bytes, blocks, failures }),
            Err(error) => Err(UploadError::of(error, problem)),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(mut transfer) = self.0.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return };
        if transfer.abandon() {
            runtime.spawn(async move { transfer.run().await });
        }
    }
}
