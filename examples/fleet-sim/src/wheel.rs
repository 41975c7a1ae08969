//! The calendar of the fleet: one pending event per device, in virtual milliseconds.

/// Marks the end of a list.
const NONE: u32 = u32::MAX;

/// Slots of a level.
const SLOTS: usize = 4096;

/// A timing wheel of three levels: 1 ms, 4.1 s and 4.7 h per slot.
///
/// Each device has at most one pending event, so the lists run through arrays indexed by the device. The order of
/// events in the same millisecond depends only on the calls.
#[derive(Debug)]
pub(crate) struct Wheel {
    now: u32,
    pending: usize,
    next: Vec<u32>,
    due: Vec<u32>,
    levels: [Box<[u32]>; 3],
}

impl Wheel {
    /// Bytes for each device.
    pub(crate) const PER_DEVICE: usize = 2 * size_of::<u32>();

    pub(crate) fn new(devices: usize, now: u32) -> Self {
        let level = || vec![NONE; SLOTS].into_boxed_slice();
        Self { now, pending: 0, next: vec![NONE; devices], due: vec![0; devices], levels: [level(), level(), level()] }
    }

    /// Schedules the event of a device that has none pending; a past time counts as now.
    pub(crate) fn plan(&mut self, device: u32, at: u32) {
        self.due[device as usize] = at.max(self.now);
        self.pending += 1;
        self.link(device);
    }

    /// Returns the next event's time and device.
    pub(crate) fn pop(&mut self) -> Option<(u32, u32)> {
        if self.pending == 0 {
            return None;
        }
        loop {
            let slot = self.now as usize % SLOTS;
            let device = self.levels[0][slot];
            if device != NONE {
                self.levels[0][slot] = self.next[device as usize];
                self.pending -= 1;
                return Some((self.now, device));
            }
            self.now += 1;
            if self.now.is_multiple_of(1 << 12) {
                if self.now.is_multiple_of(1 << 24) {
                    self.cascade(2, (self.now >> 24) as usize % SLOTS);
                }
                self.cascade(1, (self.now >> 12) as usize % SLOTS);
            }
        }
    }

    fn link(&mut self, device: u32) {
        let at = self.due[device as usize];
        let (level, slot) = if at >> 12 == self.now >> 12 {
            (0, at)
        } else if at >> 24 == self.now >> 24 {
            (1, at >> 12)
        } else {
            (2, at >> 24)
        };
        let head = &mut self.levels[level][slot as usize % SLOTS];
        self.next[device as usize] = *head;
        *head = device;
    }

    /// Moves the events of a slot to the levels below.
    fn cascade(&mut self, level: usize, slot: usize) {
        let mut device = core::mem::replace(&mut self.levels[level][slot], NONE);
        while device != NONE {
            let following = self.next[device as usize];
            self.link(device);
            device = following;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_times() {
        let times = [0, 5, 4_095, 4_096, 70_000, 16_777_215, 16_777_216, 50_000_000, 100_000_000];
        let mut wheel = Wheel::new(times.len(), 0);
        for (device, at) in times.iter().enumerate().rev() {
            wheel.plan(device as u32, *at);
        }
        for (device, at) in times.iter().enumerate() {
            assert_eq!(wheel.pop(), Some((*at, device as u32)));
        }
        assert_eq!(wheel.pop(), None);
    }

    #[test]
    fn an_event_in_the_past_comes_at_once() {
        let mut wheel = Wheel::new(2, 0);
        wheel.plan(0, 10_000);
        assert_eq!(wheel.pop(), Some((10_000, 0)));
        wheel.plan(1, 3);
        assert_eq!(wheel.pop(), Some((10_000, 1)));
    }
}
