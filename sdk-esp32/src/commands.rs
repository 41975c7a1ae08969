//! What both forms of the device do alike: commands, which only change what the next `poll` does.

use core::time::Duration;

use steadfast_core::iothub;

/// Most steps of one call of `poll`, so that a board whose clock stands still cannot hold the application.
pub(crate) const STEPS: u32 = 10_000;

/// How long the last packets may take before a connection is closed.
pub(crate) const FLUSH: Duration = Duration::from_secs(2);

/// What a call of `poll` brought, before it is shown.
pub(crate) enum Turn<R> {
    Idle,
    Event(iothub::Event),
    Received(R),
}

/// The commands of a device with the fields `engine`, `board` and `stream`.
macro_rules! commands {
    () => {
        /// Starts bringing the link up; without effect while it is trying or up. Also after a [`stop`](Self::stop) the first
        /// attempt begins within [`RetryPolicy::first_jitter`](steadfast_core::RetryPolicy::first_jitter).
        pub fn start(&mut self) {
            self.set_clock();
            let now = self.board.now();
            self.engine.link.start(now);
        }

        /// Starts as [`start`](Self::start) does and connects immediately: for a device that its sleep timer wakes after it
        /// stopped in order, since such timers spread a fleet by themselves. A back-off that was
        /// [restored](Self::restore_backoff) counts all the same. After a power cut use [`start`](Self::start).
        pub fn wake(&mut self) {
            self.set_clock();
            let now = self.board.now();
            self.engine.link.wake(now);
        }

        /// Stops the link after sending what is queued, for `drain` at most; an event tells when that is done.
        pub fn stop(&mut self, drain: Duration) {
            let now = self.board.now();
            self.engine.link.stop(drain, now);
        }

        /// Hands in an assignment kept by [`Board::save`] before a reboot, so that the device goes straight to its hub.
        pub fn restore_assignment(&mut self, assignment: Assignment) {
            self.engine.link.restore_assignment(assignment);
        }

        /// Hands in what [`Board::save_backoff`] kept before a reboot, so that a device that lost power in an outage goes on
        /// waiting as before. To be called before the first [`start`](Self::start); a board whose clock is set by then lets
        /// the time without power count.
        pub fn restore_backoff(&mut self, memory: BackoffSnapshot) {
            self.set_clock();
            let now = self.board.now();
            self.engine.link.restore_backoff(memory, now);
        }

        /// Orders a registration with the Device Provisioning Service.
        pub fn reprovision(&mut self) {
            let now = self.board.now();
            self.engine.link.reprovision(now);
        }

        /// Queues a message until the service has acknowledged it, across reconnections and moves. It can be called in any
        /// state and sends nothing itself.
        ///
        /// # Errors
        /// [`PublishError`]; the message was not accepted.
        pub fn send(&mut self, message: steadfast_core::Message<'_>) -> Result<MessageId, PublishError> {
            let now = self.board.now();
            self.engine.link.publish(message, now)
        }

        /// Subscribes to a topic filter of a broker, now or once the link is up, and again whenever the broker has lost the
        /// session; what comes is a [`Poll::Message`], and an event tells the broker's answer. The table does not outlive a
        /// reboot: subscribe after each, best before [`start`](Self::start).
        ///
        /// # Errors
        /// [`SubscribeError`](steadfast_core::SubscribeError); nothing changed then.
        pub fn subscribe(
            &mut self,
            filter: &str,
            qos: steadfast_core::mqtt::QoS,
        ) -> Result<steadfast_core::SubscriptionId, steadfast_core::SubscribeError> {
            let now = self.board.now();
            self.engine.link.subscribe(filter, qos, now)
        }

        /// Ends the subscription to a filter of a broker; an event tells when the broker holds it no longer. Returns `None`
        /// when there is no such subscription.
        pub fn unsubscribe(&mut self, filter: &str) -> Option<steadfast_core::SubscriptionId> {
            let now = self.board.now();
            self.engine.link.unsubscribe(filter, now)
        }

        /// Tells the service that a message is handled. Returns whether that still counts: after a reconnection the service
        /// sends the message again.
        pub fn acknowledge(&mut self, ack: Ack) -> bool {
            let now = self.board.now();
            self.engine.acknowledge(ack, now)
        }

        /// Tells the link that a message will not be acknowledged on this connection: the service sends it again on a later
        /// one. Without this, the acknowledgements of all messages after it wait, since MQTT wants them in order.
        pub fn abandon(&mut self, ack: Ack) -> bool {
            self.engine.abandon(ack)
        }

        /// Takes note that the network below is gone, such as on a loss of Wi-Fi, instead of waiting for a keep-alive.
        pub fn network_lost(&mut self) {
            if self.stream.take().is_some() {
                let now = self.board.now();
                self.engine.failed(Failure::Network, now);
            }
        }

        /// Returns the link, to look at its state, its books and its outbox.
        pub fn link(&self) -> &Link<O, P> {
            self.engine.link.core()
        }

        /// Returns the board.
        pub const fn board(&self) -> &B {
            &self.board
        }

        /// Returns the board, to change it.
        pub const fn board_mut(&mut self) -> &mut B {
            &mut self.board
        }

        fn set_clock(&mut self) {
            if let Some(unix_secs) = self.board.unix_secs() {
                let now = self.board.now();
                self.engine.link.set_wall_clock(unix_secs, now);
            }
        }
    };
}

/// The commands of a device with services.
macro_rules! service_commands {
    () => {
        /// Asks for the twin, now or once the link is up: it comes as [`Poll::Twin`], whatever its version.
        ///
        /// Returns false when the configuration does not subscribe to twin answers.
        pub fn get_twin(&mut self) -> bool {
            let now = self.board.now();
            self.engine.link.get_twin(now)
        }

        /// Queues a patch of reported properties, a JSON object in which `null` deletes, until the service has it.
        ///
        /// It can be called in any state. What waits is merged: per path the last write counts. An event tells what became
        /// of it. [`Acknowledgement::write`](steadfast_core::iothub::pnp::Acknowledgement::write) makes the patch that
        /// acknowledges a writable property.
        ///
        /// # Errors
        /// [`ReportError`]; nothing was queued.
        pub fn report(&mut self, patch: &[u8]) -> Result<ReportId, ReportError> {
            let now = self.board.now();
            self.engine.link.report(patch, now)
        }

        /// Answers a method call with a status, usually an HTTP-like one, and a body of JSON or nothing.
        ///
        /// # Errors
        /// [`RespondError`]; the answer is not sent, to this call or any other.
        pub fn respond(&mut self, call: CallId, status: u16, body: &[u8]) -> Result<(), RespondError> {
            let now = self.board.now();
            self.engine.link.respond(call, status, body, now)
        }

        /// Tells the version of desired properties the application has applied, kept from before a reboot, so that it is not
        /// told again. Of use before the first [`start`](Self::start).
        pub fn restore_desired_version(&mut self, version: u64) {
            self.engine.link.restore_desired_version(version);
        }

        /// Returns the latest version of desired properties that was told.
        #[must_use]
        pub fn desired_version(&self) -> Option<u64> {
            self.engine.link.desired_version()
        }

        /// Says which orders of an operator are carried out: none unless this is called; see
        /// [`steadfast_core::iothub::operator_commands`].
        pub fn allow_operator_commands(&mut self, orders: OperatorCommands) {
            self.engine.link.allow_operator_commands(orders);
        }
    };
}

pub(crate) use {commands, service_commands};
