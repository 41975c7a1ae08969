//! What the codec's tests share.

use steadfast_core::mqtt::{Login, QoS, Will};
use steadfast_core::text::Text;

/// A login from plain texts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Who<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user_name: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    /// Topic, payload, level, retain.
    pub(crate) will: Option<(&'a str, &'a [u8], QoS, bool)>,
}

impl Login for Who<'_> {
    fn client_id(&self) -> Text<'_> {
        self.client_id.into()
    }

    fn user_name(&self) -> Option<Text<'_>> {
        self.user_name.map(Text::from)
    }

    fn password(&self) -> Option<Text<'_>> {
        self.password.map(Text::from)
    }

    fn will(&self) -> Option<Will<'_>> {
        self.will.map(|(topic, payload, qos, retain)| Will { topic: topic.into(), payload, qos, retain })
    }
}
