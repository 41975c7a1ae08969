//! The end of an upload: word to the hub, good or bad.

use core::time::Duration;

use super::{RENEWALS, Step, Upload, is_busy};
use crate::time::Instant;
use crate::upload::sas_uri::error_code;
use crate::upload::{Obstacle, Report, Stage, UploadError};

/// Tries to tell the hub of a failure.
const NOTIFICATIONS: u8 = 3;

/// Longest wait before each of them, in milliseconds, times the tries before.
const NOTIFICATION_PAUSE_MS: u32 = 1_000;

/// The word that closes an upload at the hub before anything else.
#[derive(Clone, Copy)]
pub(super) struct Notification {
    pub(super) success: bool,
    pub(super) status: u16,
    pub(super) tries: u8,
    /// `None` for another grant.
    pub(super) end: Option<UploadError>,
}

impl<N: AsRef<str>, M: AsRef<[u8]> + AsMut<[u8]>> Upload<N, M> {
    /// Takes the hub's answer to the word of success.
    pub(super) fn notified(&mut self, status: u16, retry_after_secs: Option<u32>, body: &[u8], now: Instant) {
        let done =
            Report { bytes: self.progress.bytes, blocks: self.progress.blocks, failures: self.progress.failures };
        match status {
            200..=299 => self.end(Ok(done)),
            _ if is_busy(status) => self.failed(Obstacle::Busy(status), retry_after_secs, now),
            401 if self.renew() => self.failed(Obstacle::Unauthorized, None, now),
            // The hub counts this upload as over: it had expired, or its own answer was lost. A new grant for the same
            // place is told of in its stead, so that no success is claimed of which the hub may not know.
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

    /// The hub at which the device is has not taken note.
    pub(super) fn stay(&mut self, refusal: Option<UploadError>) {
        match refusal {
            Some(error) => self.leave(error),
            None => self.step = Step::Notify,
        }
    }

    /// Ends although the hub has not taken note.
    pub(super) fn leave(&mut self, error: UploadError) {
        self.untold = self.untold.saturating_add(1);
        self.end(Err(error));
    }

    /// The device has another hub than the one which has not taken note: the file belongs there.
    pub(super) fn follow(&mut self, refusal: Option<UploadError>) {
        if !self.options.rereadable {
            return self.stay(refusal);
        }
        self.untold = self.untold.saturating_add(1);
        self.grant.clear();
        self.rewind();
        self.step = Step::Home;
    }

    /// Tells the hub how the open grant ends, and then ends with an error or takes another grant.
    pub(super) fn part(&mut self, success: bool, status: u16, end: Option<UploadError>, now: Instant) {
        self.wait = None;
        // An answer that is still on its way is of no more use.
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

    /// Takes the hub's answer to the word of the end; `None` when there was none.
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
