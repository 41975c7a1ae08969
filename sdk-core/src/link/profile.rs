//! The differences between services.

use core::time::Duration;

use super::config::SessionConfig;
use super::deliver::{Message, PublishError};
use super::timeouts::Reprovisioning;
use super::visit::{Answer, AnswerHead, Visit};
use crate::io::{Assignment, Endpoint, ServiceKind};
use crate::mqtt::{Compose, Login, QoS};
use crate::outbox::{Destination, Entry};
use crate::retry::{Policy, RetryContext};
use crate::text::Text;

/// Most filters of a profile: each has a bit in [`Places`].
pub const FILTERS_MAX: u8 = 16;

/// A bit for each filter of a profile, from the lowest.
pub type Places = u16;

/// The differences between services: identity, credential, filters and topics, accepted messages, and whether another
/// service must be visited first.
///
/// A [`crate::Link`] has one, which owns the settings: [`crate::IotHub`], [`crate::Provisioned`], [`crate::Broker`], or
/// [`crate::AnyProfile`] for programs that choose when they run. The link calls it and never the other way round; a
/// profile neither waits nor sends. With a profile that visits no other service the dialogue of visits is not linked,
/// and likewise visits over HTTPS, and what the application subscribes to by itself.
///
/// It cannot be implemented outside this crate yet, since a profile of MQTT 5 will change it.
pub trait Profile: Login + sealed::Sealed {
    /// The error of invalid settings.
    type Error;

    /// Whether another service may have to be visited: [`visit`](Self::visit).
    const VISITS: bool;

    /// Whether a visit may go over HTTPS, by [`crate::Action::Register`]: [`Endpoint::https`].
    const HTTPS: bool;

    /// Whether the application subscribes by itself: [`filters`](Self::filters).
    const SUBSCRIBES: bool;

    /// Most bytes around the destination and the payload of a message.
    const FRAME: usize;

    /// Checks everything that is known before the first packet.
    ///
    /// # Errors
    /// The invalid setting.
    fn check(&self) -> Result<(), Self::Error>;

    /// Returns the settings of the session, the same each time.
    fn session(&self) -> &SessionConfig;

    /// Returns the device's identity, which is mixed into its random numbers.
    fn identity(&self) -> &str;

    /// Returns the delay before an attempt; by default that of the session's policy.
    fn retry_delay(&self, context: &RetryContext, word: u32) -> Duration {
        Policy::delay(&self.session().retry, context, word)
    }

    /// Returns the target of the connection.
    fn endpoint(&self) -> Endpoint<'_>;

    /// Returns the lifetime of a token; `None` without a signature.
    fn token_lifetime(&self) -> Option<Duration> {
        None
    }

    /// Starts a token that expires then, in Unix seconds.
    fn begin_token(&mut self, expiry_unix_secs: u64) {
        let _ = expiry_unix_secs;
    }

    /// Returns the text to sign for it.
    fn string_to_sign(&self) -> Text<'_> {
        Text::from("")
    }

    /// Takes the signature.
    fn take_signature(&mut self, signature: &[u8; 32]) {
        let _ = signature;
    }

    /// Takes a ready-made token instead of a signature and returns its expiry in Unix seconds, if that is later than
    /// `now` and the token could be stored.
    fn take_token(&mut self, token: &str, now_unix_secs: u64) -> Option<u64> {
        let _ = (token, now_unix_secs);
        None
    }

    /// Returns the indices of the wanted filters.
    fn wanted(&self) -> Places;

    /// Returns the filter at an index, and the QoS to request.
    fn filter(&self, place: u8) -> (Text<'_>, QoS);

    /// Returns the filters of the application.
    fn filters(&mut self) -> Option<&mut dyn Filters> {
        None
    }

    /// Checks a message. `stamped`: the time of its acceptance is added.
    ///
    /// # Errors
    /// [`PublishError`].
    fn check_message(&self, message: &Message<'_>, stamped: bool) -> Result<(), PublishError>;

    /// Returns whether the time of its acceptance is to be added to a message.
    fn stamps(&self, destination: Destination<'_>) -> bool {
        let _ = destination;
        false
    }

    /// Prepares the data that [`topic`](Self::topic) needs besides the message's entry.
    fn prepare(&mut self, created_unix_ms: Option<u64>) {
        let _ = created_unix_ms;
    }

    /// Returns the topic of a message. Before [`prepare`](Self::prepare) it is as long and may say another time.
    fn topic<'a>(&'a self, entry: &Entry<'a>) -> Text<'a>;

    /// Returns the state of visits to another service; `None` without visits.
    fn visit(&self) -> Option<&Visit> {
        None
    }

    /// As [`visit`](Self::visit), to change it.
    fn visit_mut(&mut self) -> Option<&mut Visit> {
        None
    }

    /// Returns when another visit is due.
    fn reprovisioning(&self) -> &Reprovisioning {
        const { &Reprovisioning::DEFAULT }
    }

    /// Starts a registration and clears the state of an earlier one.
    fn begin_registration(&mut self) {}

    /// Returns the operation id, empty before the service has accepted the registration.
    fn operation_id(&self) -> &str {
        ""
    }

    /// Returns the request that is due in a visit: the registration, or a question for its state.
    fn request(&self) -> Option<&dyn Compose> {
        None
    }

    /// Parses the topic of an answer in a visit; `None` if it is not one.
    fn answer_head(&self, topic: &str) -> Option<AnswerHead> {
        let _ = topic;
        None
    }

    /// Parses an answer in a visit.
    fn take_answer<'b>(&mut self, head: &AnswerHead, body: &'b [u8]) -> Option<Answer<'b>> {
        let _ = (head, body);
        None
    }

    /// Returns the payload of the latest assignment.
    fn assignment(&self) -> Option<&Assignment> {
        self.visit().and_then(Visit::assignment)
    }

    /// Returns the service of the current attempt.
    fn role(&self) -> ServiceKind {
        self.visit().map_or(ServiceKind::Hub, |visit| visit.role)
    }
}

/// The filters of an application, in a table of bounded size.
pub trait Filters {
    /// Adds a filter, and returns its index and whether its QoS has changed.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing changed then.
    fn want(&mut self, filter: &str, qos: QoS) -> Result<(u8, bool), SubscribeError>;

    /// Returns the index of a filter.
    fn find(&self, filter: &str) -> Option<u8>;

    /// Removes the filter at an index. The index is reserved until it is [freed](Self::free).
    fn unwant(&mut self, place: u8);

    /// Returns the used indices.
    fn taken(&self) -> Places;

    /// Returns the indices of wanted filters.
    fn wanted(&self) -> Places;

    /// Frees an index.
    fn free(&mut self, place: u8);
}

/// Why [`crate::Link::subscribe`] refused a filter; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The table of filters is full: its indices, or the memory for its texts.
    Full,
    /// The filter is empty, too long, or has a misplaced wildcard (MQTT 3.1.1, section 4.7).
    BadFilter,
    /// The service has fixed filters: an IoT hub.
    NotABroker,
}

impl core::fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "the table of filters is full; unsubscribe from one, or give it more memory",
            Self::BadFilter => {
                "the filter is empty, longer than 65535 bytes, has U+0000, or a wildcard that is not alone in its level"
            }
            Self::NotABroker => "an IoT hub has fixed filters; subscribe to a broker only",
        })
    }
}

impl core::error::Error for SubscribeError {}

pub(crate) mod sealed {
    pub trait Sealed {}
}
