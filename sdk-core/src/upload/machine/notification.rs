//! The end of an upload: the notification to the hub, of success or failure.

use core::time::Duration;

use super::{RENEWALS, Step, Upload, is_busy};
use crate::time::Instant;
use crate::upload::sas_uri::error_code;
use crate::upload::{Obstacle, Report, Stage, UploadError};

/// Attempts to notify the hub of a failure.
const NOTIFICATIONS: u8 = 3;

/// Longest wait before each of them, in milliseconds, times the tries before.
const NOTIFICATION_PAUSE_MS: u32 = 1_000;

/// The notification that closes an upload at the hub before any other step.
#[derive(Clone, Copy)]
pub(super) struct Notification {
    pub(super) success: bool,
    pub(super) status: u16,
    pub(super) tries: u8,
    /// `None` for another SAS URI.
    pub(super) end: Option<UploadError>,
}

impl<N: AsRef<str>, M: AsRef<[u8]> + AsMut<[u8]>> Upload<N, M> {
    /// Takes the hub's answer to the notification of success.
    pub(super) fn notified(&mut self, status: u16, retry_after_secs: Option<u32>, body: &[u8], now: Instant) {
        let done =
            Report { bytes: self.progress.bytes, blocks: self.progress.blocks, failures: self.progress.failures };
        match status {
            200..=299 => self.end(Ok(done)),
            _ if is_busy(status) => self.failed(Obstacle::Busy(status), retry_after_secs, now),
            401 if self.renew() => self.failed(Obstacle::Unauthorized, None, now),
            // The hub counts this upload as ended: it had expired, or the hub's answer was lost. A notification for a
            // new SAS URI of the same blob replaces it, so that no success is claimed that the hub may not know.
            400 | 404 if !self.told_anew => {
                self.told_anew = true;
                self.untold = self.untold.saturating_add(1);
                self.grant.clear();
                self.step = Step::Home;
            }
            _ => {
                let refused = UploadError::Refused { stage: Stage::Notify, status, code: error_code(body) };
                self.step = Step::Moved(Some(refused));
            }
        }
    }

    /// The assigned hub has rejected the notification.
    pub(super) fn stay(&mut self, refusal: Option<UploadError>) {
        match refusal {
            Some(error) => self.leave(error),
            None => self.step = Step::Notify,
        }
    }

    /// Ends without an accepted notification.
    pub(super) fn leave(&mut self, error: UploadError) {
        self.untold = self.untold.saturating_add(1);
        self.end(Err(error));
    }

    /// The device was moved from the hub that rejected the notification: the file belongs to its new hub.
    pub(super) fn follow(&mut self, refusal: Option<UploadError>) {
        if !self.options.rereadable {
            return self.stay(refusal);
        }
        self.untold = self.untold.saturating_add(1);
        self.grant.clear();
        self.rewind();
        self.step = Step::Home;
    }

    /// Notifies the hub of the open upload's end, and then ends with an error or requests another SAS URI.
    pub(super) fn part(&mut self, success: bool, status: u16, end: Option<UploadError>, now: Instant) {
        self.wait = None;
        // A pending answer is ignored.
        self.attempt = self.attempt.next();
        if self.grant.is_open() {
            self.pause(Notification { success, status, tries: 0, end }, now);
        } else {
            self.parting(end);
        }
    }

    pub(super) fn pause(&mut self, notification: Notification, now: Instant) {
        let longest = NOTIFICATION_PAUSE_MS.saturating_mul(u32::from(notification.tries));
        if longest > 0 {
            let pause = self.rng.between(longest >> 1, longest);
            self.wait = Some(now.after(Duration::from_millis(u64::from(pause))));
        }
        self.step = Step::Notification(notification);
    }

    /// Takes the hub's answer to the notification; `None` if there was none.
    pub(super) fn parted(&mut self, notification: Notification, status: Option<u16>, now: Instant) {
        let again = match status {
            Some(200..=299) => return self.parting(notification.end),
            Some(401) => self.renew(),
            Some(status) => is_busy(status),
            None => true,
        };
        let tries = notification.tries.saturating_add(1);
        if again && tries < NOTIFICATIONS {
            self.pause(Notification { tries, ..notification }, now);
        } else {
            self.untold = self.untold.saturating_add(1);
            self.parting(notification.end);
        }
    }

    pub(super) fn parting(&mut self, end: Option<UploadError>) {
        self.grant.clear();
        match end {
            Some(error) => self.end(Err(error)),
            None => self.step = Step::Home,
        }
    }

    /// Has another credential used the next time, some times.
    pub(super) const fn renew(&mut self) -> bool {
        self.notice_refusals = self.notice_refusals.saturating_add(1);
        self.notice_refusals <= RENEWALS
    }
}
