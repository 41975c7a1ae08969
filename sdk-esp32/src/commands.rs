//! Commands of both forms of the device; they take effect in the next `poll`.

use core::time::Duration;

use steadfast_core::iothub;

/// Limit of steps in one call of `poll`, so that a board with a stopped clock cannot block the application.
pub(crate) const STEPS: u32 = 10_000;

/// Timeout of the last packets before a connection is closed.
pub(crate) const FLUSH: Duration = Duration::from_secs(2);

/// The result of `poll`, before it borrows the buffers.
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

        /// Starts like [`start`](Self::start) and connects immediately: for a device that stopped before its sleep and
        /// is woken by a timer, since such timers already differ across a fleet. A [restored](Self::restore_backoff)
        /// back-off still applies. After a power failure use [`start`](Self::start).
        pub fn wake(&mut self) {
            self.set_clock();
            let now = self.board.now();
            self.engine.link.wake(now);
        }

        /// Stops the link after sending queued messages, for at most `drain`; an event reports the end.
        pub fn stop(&mut self, drain: Duration) {
            let now = self.board.now();
            self.engine.link.stop(drain, now);
        }

        /// Restores an assignment stored by [`Board::save`] before a reboot, so that the device connects directly to
        /// its hub.
        pub fn restore_assignment(&mut self, assignment: Assignment) {
            self.engine.link.restore_assignment(assignment);
        }

        /// Restores the back-off state stored by [`Board::save_backoff`] before a reboot. Call it before the first
        /// [`start`](Self::start); if the board's clock is set by then, the time without power counts.
        pub fn restore_backoff(&mut self, memory: BackoffSnapshot) {
            self.set_clock();
            let now = self.board.now();
            self.engine.link.restore_backoff(memory, now);
        }

        /// Registers with the Device Provisioning Service again.
        pub fn reprovision(&mut self) {
            let now = self.board.now();
            self.engine.link.reprovision(now);
        }

        /// Queues a message until the service has acknowledged it, across reconnections and moves. It can be called in
        /// any state; `poll` sends the message.
        ///
        /// # Errors
        /// [`PublishError`]; the message was not accepted.
        pub fn send(&mut self, message: steadfast_core::Message<'_>) -> Result<MessageId, PublishError> {
            let now = self.board.now();
            self.engine.link.publish(message, now)
        }

        /// Subscribes to a topic filter of a broker, now or once the link is up, and again after the broker has lost
        /// the session; its messages are [`Poll::Message`], and an event reports the broker's answer. The table is in
        /// memory: subscribe after each reboot, best before [`start`](Self::start).
        ///
        /// # Errors
        /// [`SubscribeError`](steadfast_core::SubscribeError); nothing has changed.
        pub fn subscribe(
            &mut self,
            filter: &str,
            qos: steadfast_core::mqtt::QoS,
        ) -> Result<steadfast_core::SubscriptionId, steadfast_core::SubscribeError> {
            let now = self.board.now();
            self.engine.link.subscribe(filter, qos, now)
        }

        /// Ends the subscription to a filter of a broker; an event confirms it. Returns `None` if there is no such
        /// subscription.
        pub fn unsubscribe(&mut self, filter: &str) -> Option<steadfast_core::SubscriptionId> {
            let now = self.board.now();
            self.engine.link.unsubscribe(filter, now)
        }

        /// Acknowledges a handled message. Returns false if it is too late: after a reconnection the service sends the
        /// message again.
        pub fn acknowledge(&mut self, ack: Ack) -> bool {
            let now = self.board.now();
            self.engine.acknowledge(ack, now)
        }

        /// Abandons a message on this connection: the service redelivers it on a later one. Without this, the
        /// acknowledgements of all later messages wait, since MQTT requires them in order.
        pub fn abandon(&mut self, ack: Ack) -> bool {
            self.engine.abandon(ack)
        }

        /// Reports that the network is down, such as after a loss of Wi-Fi, instead of waiting for the keep-alive
        /// timeout.
        pub fn network_lost(&mut self) {
            if self.stream.take().is_some() {
                let now = self.board.now();
                self.engine.failed(Failure::Network, now);
            }
        }

        /// Returns the link, to read its state, ledger and outbox.
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
        /// Requests the twin, now or once the link is up: it arrives as [`Poll::Twin`], whatever its version.
        ///
        /// Returns false if the configuration does not subscribe to twin responses.
        pub fn get_twin(&mut self) -> bool {
            let now = self.board.now();
            self.engine.link.get_twin(now)
        }

        /// Queues a patch of reported properties, a JSON object in which `null` deletes, until the service has it.
        ///
        /// It can be called in any state. Queued patches are merged: the last write to a path wins. An event reports
        /// the outcome. [`Acknowledgement::write`](steadfast_core::iothub::pnp::Acknowledgement::write) makes the patch
        /// that acknowledges a writable property.
        ///
        /// # Errors
        /// [`ReportError`]; nothing was queued.
        pub fn report(&mut self, patch: &[u8]) -> Result<ReportId, ReportError> {
            let now = self.board.now();
            self.engine.link.report(patch, now)
        }

        /// Answers a method call with a status, usually an HTTP-like one, and a body, which is JSON or empty.
        ///
        /// # Errors
        /// [`RespondError`]; the answer is not sent, to this call or any other.
        pub fn respond(&mut self, call: CallId, status: u16, body: &[u8]) -> Result<(), RespondError> {
            let now = self.board.now();
            self.engine.link.respond(call, status, body, now)
        }

        /// Sets the version of desired properties that the application had applied before a reboot, so that it is not
        /// delivered again. Call it before the first [`start`](Self::start).
        pub fn restore_desired_version(&mut self, version: u64) {
            self.engine.link.restore_desired_version(version);
        }

        /// Returns the latest delivered version of desired properties.
        #[must_use]
        pub fn desired_version(&self) -> Option<u64> {
            self.engine.link.desired_version()
        }

        /// Sets the allowed operator commands. Default none; see [`steadfast_core::iothub::operator_commands`].
        pub fn allow_operator_commands(&mut self, orders: OperatorCommands) {
            self.engine.link.allow_operator_commands(orders);
        }
    };
}

pub(crate) use {commands, service_commands};
