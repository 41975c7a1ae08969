//! What differs between services.

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

/// What differs between services: who the device is there, how it proves that, which filters and topics there are, which
/// messages the service takes, and whether another service has to be visited first.
///
/// A [`crate::Link`] has one, which owns the settings: [`crate::IotHub`], [`crate::Provisioned`], [`crate::Broker`], or
/// [`crate::AnyProfile`] for programs that choose when they run. The link calls it and never the other way round; a
/// profile neither waits nor sends. With a profile that visits no other service the dialogue of visits is not linked,
/// and likewise visits over HTTPS, and what the application subscribes to by itself.
///
/// It can be called and not be implemented outside this crate for now: what a profile of MQTT 5 needs will still change
/// it.
pub trait Profile: Login + sealed::Sealed {
    /// What can be wrong with the settings.
    type Error;

    /// Whether another service may have to be visited: [`visit`](Self::visit).
    const VISITS: bool;

    /// Whether a visit may go over HTTPS, by [`crate::Action::Register`]: [`Endpoint::https`].
    const HTTPS: bool;

    /// Whether the application subscribes by itself: [`filters`](Self::filters).
    const SUBSCRIBES: bool;

    /// Most bytes around the destination and the payload of a message.
    const FRAME: usize;

    /// Checks all that can be known before the first packet.
    ///
    /// # Errors
    /// What is wrong, naming the setting.
    fn check(&self) -> Result<(), Self::Error>;

    /// Returns the settings of the session, the same each time.
    fn session(&self) -> &SessionConfig;

    /// Returns what tells the device from others, to draw its random numbers from.
    fn identity(&self) -> &str;

    /// Returns the delay before an attempt; by default what the session's policy says.
    fn retry_delay(&self, context: &RetryContext, word: u32) -> Duration {
        Policy::delay(&self.session().retry, context, word)
    }

    /// Returns where to connect to.
    fn endpoint(&self) -> Endpoint<'_>;

    /// Returns how long a token is to be good for; `None` when nothing is to be signed.
    fn token_lifetime(&self) -> Option<Duration> {
        None
    }

    /// Begins a token that is good until then, in Unix seconds.
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

    /// Takes a finished token in place of a signature and returns when it expires, in Unix seconds, if that is later than
    /// `now` and the token could be kept.
    fn take_token(&mut self, token: &str, now_unix_secs: u64) -> Option<u64> {
        let _ = (token, now_unix_secs);
        None
    }

    /// Returns the places of the filters to hold while the link is up.
    fn wanted(&self) -> Places;

    /// Returns the filter at a place, and the level of delivery to ask for.
    fn filter(&self, place: u8) -> (Text<'_>, QoS);

    /// Returns the filters of the application.
    fn filters(&mut self) -> Option<&mut dyn Filters> {
        None
    }

    /// Checks a message. `stamped` says that the time of its acceptance is added.
    ///
    /// # Errors
    /// [`PublishError`].
    fn check_message(&self, message: &Message<'_>, stamped: bool) -> Result<(), PublishError>;

    /// Returns whether the time of its acceptance is to be added to a message.
    fn stamps(&self, destination: Destination<'_>) -> bool {
        let _ = destination;
        false
    }

    /// Prepares what [`topic`](Self::topic) needs of a message beside its entry.
    fn prepare(&mut self, created_unix_ms: Option<u64>) {
        let _ = created_unix_ms;
    }

    /// Returns the topic of a message. Before [`prepare`](Self::prepare) it is as long and may say another time.
    fn topic<'a>(&'a self, entry: &Entry<'a>) -> Text<'a>;

    /// Returns what the link keeps of visits to another service; `None` when none is ever visited.
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

    /// Begins a registration: what an earlier one left is forgotten.
    fn begin_registration(&mut self) {}

    /// Returns what names the registration, empty before the service has taken it.
    fn operation_id(&self) -> &str {
        ""
    }

    /// Returns the request that is due in a visit: the registration, or a question for its state.
    fn request(&self) -> Option<&dyn Compose> {
        None
    }

    /// Reads the topic of an answer in a visit; `None` when it is none.
    fn answer_head(&self, topic: &str) -> Option<AnswerHead> {
        let _ = topic;
        None
    }

    /// Reads an answer in a visit.
    fn take_answer<'b>(&mut self, head: &AnswerHead, body: &'b [u8]) -> Option<Answer<'b>> {
        let _ = (head, body);
        None
    }

    /// Returns what the latest visit brought.
    fn assignment(&self) -> Option<&Assignment> {
        self.visit().and_then(Visit::assignment)
    }

    /// Returns which service the current attempt turns to.
    fn role(&self) -> ServiceKind {
        self.visit().map_or(ServiceKind::Hub, |visit| visit.role)
    }
}

/// The filters of an application, in a table of bounded size.
pub trait Filters {
    /// Wants a filter, and returns its place and whether the level differs from the one it was wanted with.
    ///
    /// # Errors
    /// [`SubscribeError`]; nothing changed then.
    fn want(&mut self, filter: &str, qos: QoS) -> Result<(u8, bool), SubscribeError>;

    /// Returns the place of a filter.
    fn find(&self, filter: &str) -> Option<u8>;

    /// Wants the filter at a place no longer. The place is kept until it is [freed](Self::free).
    fn unwant(&mut self, place: u8);

    /// Returns the places that are taken.
    fn taken(&self) -> Places;

    /// Returns the places whose filter is wanted.
    fn wanted(&self) -> Places;

    /// Frees a place.
    fn free(&mut self, place: u8);
}

/// Why [`crate::Link::subscribe`] did not take a filter; nothing changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The table of filters has no room: its places, or the memory for its texts.
    Full,
    /// The filter is empty, too long, or its wildcards stand where they must not (MQTT 3.1.1, section 4.7).
    BadFilter,
    /// The service has filters of its own: an IoT hub.
    NotABroker,
}

impl core::fmt::Display for SubscribeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "the table of filters is full; unsubscribe from one, or give it more memory",
            Self::BadFilter => {
                "the filter is empty, longer than 65535 bytes, has U+0000, or a wildcard that is not alone in its level"
            }
            Self::NotABroker => "an IoT hub has filters of its own; only a broker is subscribed to",
        })
    }
}

impl core::error::Error for SubscribeError {}

pub(crate) mod sealed {
    pub trait Sealed {}
}
