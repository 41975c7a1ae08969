//! The table of an application's filters.

use crate::link::{FILTERS_MAX, Filters, Places, SubscribeError};
use crate::mqtt::{MAX_FIELD_LEN, QoS};

/// The filters, in memory of the frontend's choice: their texts one behind the other, without gaps.
#[derive(Clone, Debug)]
pub(super) struct Table<B> {
    slots: [Option<Slot>; FILTERS_MAX as usize],
    texts: B,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u16,
    len: u16,
    qos: QoS,
    wanted: bool,
}

impl<B> Table<B> {
    pub(super) const fn new(texts: B) -> Self {
        Self { slots: [None; FILTERS_MAX as usize], texts }
    }
}

impl<B: AsRef<[u8]>> Table<B> {
    /// Returns the filter at an index and its QoS; an empty one if there is none.
    pub(super) fn get(&self, place: u8) -> (&str, QoS) {
        let Some(slot) = self.slots.get(usize::from(place)).copied().flatten() else { return ("", QoS::AtMostOnce) };
        (self.text(slot), slot.qos)
    }

    fn text(&self, slot: Slot) -> &str {
        let start = usize::from(slot.start);
        let bytes = self.texts.as_ref().get(start..start.saturating_add(usize::from(slot.len)));
        bytes.and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.slots.iter().flatten().fold(0, |len, slot| len.saturating_add(usize::from(slot.len)))
    }

    fn places(&self, which: impl Fn(&Slot) -> bool) -> Places {
        let mut places = 0;
        for slot in self.slots.iter().rev() {
            places = (places << 1) | Places::from(slot.as_ref().is_some_and(&which));
        }
        places
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Filters for Table<B> {
    fn want(&mut self, filter: &str, qos: QoS) -> Result<(u8, bool), SubscribeError> {
        if !is_filter(filter) {
            return Err(SubscribeError::BadFilter);
        }
        if let Some(place) = self.find(filter) {
            let slot = self.slots.get_mut(usize::from(place)).and_then(Option::as_mut);
            let changed = slot.is_some_and(|slot| {
                slot.wanted = true;
                core::mem::replace(&mut slot.qos, qos) != qos
            });
            return Ok((place, changed));
        }
        let start = self.len();
        let end = start.saturating_add(filter.len());
        let free = self.slots.iter().position(Option::is_none).ok_or(SubscribeError::Full)?;
        let room = self.texts.as_mut().get_mut(start..end).ok_or(SubscribeError::Full)?;
        let (Ok(place), Ok(from), Ok(len)) = (u8::try_from(free), u16::try_from(start), u16::try_from(filter.len()))
        else {
            return Err(SubscribeError::Full);
        };
        room.copy_from_slice(filter.as_bytes());
        if let Some(slot) = self.slots.get_mut(free) {
            *slot = Some(Slot { start: from, len, qos, wanted: true });
        }
        Ok((place, false))
    }

    fn find(&self, filter: &str) -> Option<u8> {
        let is_it = |slot: &Option<Slot>| slot.is_some_and(|slot| self.text(slot) == filter);
        self.slots.iter().position(is_it).and_then(|place| u8::try_from(place).ok())
    }

    fn unwant(&mut self, place: u8) {
        if let Some(Some(slot)) = self.slots.get_mut(usize::from(place)) {
            slot.wanted = false;
        }
    }

    fn taken(&self) -> Places {
        self.places(|_| true)
    }

    fn wanted(&self) -> Places {
        self.places(|slot| slot.wanted)
    }

    fn free(&mut self, place: u8) {
        let Some(gone) = self.slots.get_mut(usize::from(place)).and_then(Option::take) else { return };
        let start = usize::from(gone.start);
        let end = start.saturating_add(usize::from(gone.len));
        let texts = self.texts.as_mut();
        if end <= texts.len() {
            texts.copy_within(end.., start);
        }
        for slot in self.slots.iter_mut().flatten() {
            if slot.start > gone.start {
                slot.start = slot.start.saturating_sub(gone.len);
            }
        }
    }
}

/// Whether a text is a valid topic filter (MQTT 3.1.1, section 4.7): not empty, without U+0000, and with wildcards only
/// as whole levels, `#` only as the last.
fn is_filter(filter: &str) -> bool {
    let bytes = filter.as_bytes();
    if bytes.is_empty() || bytes.len() > MAX_FIELD_LEN {
        return false;
    }
    let mut before = b'/';
    for (at, byte) in bytes.iter().enumerate() {
        let behind = bytes.get(at.wrapping_add(1)).copied();
        let good = match byte {
            0 => false,
            b'#' => before == b'/' && behind.is_none(),
            b'+' => before == b'/' && behind.is_none_or(|byte| byte == b'/'),
            _ => true,
        };
        if !good {
            return false;
        }
        before = *byte;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_those_of_the_standard() {
        for good in ["#", "+", "/", "a", "a/#", "+/b/+", "$SYS/#", "$share/g/a/+", "a//b", "/finance"] {
            assert!(is_filter(good), "{good}");
        }
        for bad in ["", "a#", "a/#/b", "#/", "a+", "+a", "a/b+/c", "a\0b"] {
            assert!(!is_filter(bad), "{bad}");
        }
    }

    #[test]
    fn a_table_takes_what_fits_and_keeps_its_texts_when_one_goes() {
        let mut table = Table::new([0; 12]);
        assert_eq!(table.want("a/b", QoS::AtLeastOnce), Ok((0, false)));
        assert_eq!(table.want("c/+/d", QoS::AtMostOnce), Ok((1, false)));
        assert_eq!(table.want("efgh", QoS::AtLeastOnce), Ok((2, false)));
        assert_eq!(table.want("i", QoS::AtLeastOnce), Err(SubscribeError::Full));
        assert_eq!(table.want("a/b", QoS::AtMostOnce), Ok((0, true)), "it is there, with another level");
        table.unwant(0);
        assert_eq!((table.taken(), table.wanted()), (0b111, 0b110));
        table.free(0);
        assert_eq!((table.get(1), table.get(2)), (("c/+/d", QoS::AtMostOnce), ("efgh", QoS::AtLeastOnce)));
        assert_eq!(table.want("i", QoS::AtLeastOnce), Ok((0, false)));
        assert_eq!((table.find("i"), table.find("a/b"), table.get(3)), (Some(0), None, ("", QoS::AtMostOnce)));
    }

    #[test]
    fn a_table_has_sixteen_places() {
        let mut table = Table::new([0; 64]);
        for byte in b'a'..b'a' + FILTERS_MAX {
            let text = [byte];
            assert!(table.want(core::str::from_utf8(&text).unwrap(), QoS::AtLeastOnce).is_ok());
        }
        assert_eq!(table.want("one more", QoS::AtLeastOnce), Err(SubscribeError::Full));
        assert_eq!(table.taken(), Places::MAX);
    }
}
