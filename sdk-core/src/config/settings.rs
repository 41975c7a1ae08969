//! Access of a link to its configuration.

use core::time::Duration;

use super::{Config, Subscriptions};
use crate::retry::{Policy, RetryContext};

/// Gives a link its configuration: by reference from a constant, by value, or shared.
pub trait Settings {
    /// The type of its texts.
    type Text: AsRef<str>;

    /// Whether the configuration was checked when the program was compiled: [`crate::Checked`].
    const CHECKED: bool = false;

    /// Whether the frontend makes requests over HTTPS ([`crate::Action::Register`]). Where it makes none,
    /// [`Config::https_registration`] is refused and nothing of it is linked. Default false.
    const HTTPS: bool = false;

    /// Returns the configuration, the same each time.
    fn config(&self) -> &Config<Self::Text>;

    /// Returns the delay before an attempt; by default that of [`crate::SessionConfig::retry`]. [`WithPolicy`] sets
    /// another policy.
    fn retry_delay(&self, context: &RetryContext, word: u32) -> Duration {
        self.config().session.retry.delay(context, word)
    }

    /// Returns the subscriptions to hold; by default what [`Config::subscriptions`] says.
    fn subscriptions(&self) -> Subscriptions {
        self.config().subscriptions
    }

    /// Adds to the subscriptions, and returns whether it could. By default there is no room for more than the configuration
    /// says.
    fn subscribe(&mut self, more: Subscriptions) -> bool {
        let _ = more;
        false
    }

    /// Stores a ready-made token ([`crate::Input::Token`]) and returns whether it fits. By default there is no room for
    /// one.
    fn keep_token(&mut self, token: &str) -> bool {
        let _ = token;
        false
    }

    /// Returns the stored token.
    fn token(&self) -> Option<&str> {
        None
    }
}

/// Settings with their own policy: `policy` replaces [`crate::SessionConfig::retry`].
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "applications write it down")]
pub struct WithPolicy<S, P> {
    /// The other settings.
    pub settings: S,
    /// The policy.
    pub policy: P,
}

impl<S: Settings, P: Policy> Settings for WithPolicy<S, P> {
    type Text = S::Text;

    const CHECKED: bool = S::CHECKED;
    const HTTPS: bool = S::HTTPS;

    fn config(&self) -> &Config<S::Text> {
        self.settings.config()
    }

    fn retry_delay(&self, context: &RetryContext, word: u32) -> Duration {
        self.policy.delay(context, word)
    }

    fn subscriptions(&self) -> Subscriptions {
        self.settings.subscriptions()
    }

    fn subscribe(&mut self, more: Subscriptions) -> bool {
        self.settings.subscribe(more)
    }

    fn keep_token(&mut self, token: &str) -> bool {
        self.settings.keep_token(token)
    }

    fn token(&self) -> Option<&str> {
        self.settings.token()
    }
}

impl<T: AsRef<str>> Settings for Config<T> {
    type Text = T;

    fn config(&self) -> &Self {
        self
    }
}

impl<T: AsRef<str>> Settings for &Config<T> {
    type Text = T;

    fn config(&self) -> &Config<T> {
        self
    }
}
