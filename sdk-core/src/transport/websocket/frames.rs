//! The frames of WebSockets, as a client has them.

use core::fmt;

use crate::rng::Rng;

/// Bytes that the longest control frame of a client takes: two of its head, four of the mask and a payload of 125
/// (RFC 6455, section 5.5).
pub const CONTROL_FRAME: usize = 2 + MASK + CONTROL_PAYLOAD;

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_PAYLOAD: usize = 125;

/// Longest payload whose length fits the head; it is also the largest value there that is a length (RFC 6455,
/// section 5.2).
const SHORT: usize = 125;

/// Values in the head for a length in the next two bytes, and in the next eight (RFC 6455, section 5.2).
const IN_TWO: u8 = 126;
const IN_EIGHT: u8 = 127;

/// Bytes of a mask (RFC 6455, section 5.3).
const MASK: usize = 4;

/// The final-frame bit, and the bits of extensions, of which none was requested.
const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;

/// The frame is masked.
const MASKED: u8 = 0x80;

/// Opcodes (RFC 6455, section 5.2).
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// Removes the frames of a service, and adds those of a device.
///
/// Binary frames carry MQTT as a byte stream, and packets may span frames (MQTT 3.1.1, section 6): [`take`](Self::take)
/// returns and [`put`](Self::put) accepts bytes of that stream. Made by [`Upgrade::frames`](super::Upgrade::frames).
#[derive(Clone, Debug)]
pub struct Frames {
    /// Draws the masks.
    rng: Rng,
    place: Place,
    kind: Kind,
    /// Bytes of the frame's payload that have not arrived.
    left: u32,
    /// A message has begun and its last frame has not.
    open: bool,
    closed: bool,
    /// The payload of the latest ping, or of the close.
    ping: [u8; CONTROL_PAYLOAD],
    ping_len: usize,
    /// That ping is whole and not answered.
    owed: bool,
}

/// The kind of the next byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    First,
    Length,
    /// One of so many bytes of a length.
    Longer(u8),
    Payload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

/// The content of bytes that were [taken](Frames::take).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Taken {
    /// Bytes of data, which are now in front.
    pub data: usize,
    /// The service has closed the WebSocket: no data follows (RFC 6455, section 5.5.1).
    pub closed: bool,
}

impl Frames {
    pub(super) const fn new(rng: Rng) -> Self {
        Self {
            rng,
            place: Place::First,
            kind: Kind::Data,
            left: 0,
            open: false,
            closed: false,
            ping: [0; CONTROL_PAYLOAD],
            ping_len: 0,
            owed: false,
        }
    }

    /// Takes the next bytes from the service, in pieces of any size, and moves their frames' data to the front.
    ///
    /// # Errors
    /// [`FrameError`], after which the connection is of no use.
    pub fn take(&mut self, bytes: &mut [u8]) -> Result<Taken, FrameError> {
        let mut data = 0_usize;
        for at in 0..bytes.len() {
            if self.closed {
                break;
            }
            let byte = bytes.get(at).copied().unwrap_or_default();
            if self.byte(byte)?
                && let Some(slot) = bytes.get_mut(data)
            {
                *slot = byte;
                data = data.saturating_add(1);
            }
        }
        Ok(Taken { data, closed: self.closed })
    }

    /// Takes a byte; returns whether it is data.
    fn byte(&mut self, byte: u8) -> Result<bool, FrameError> {
        match self.place {
            Place::First => {
                self.kind = self.kind_of(byte)?;
                self.place = Place::Length;
            }
            Place::Length => {
                if byte & MASKED != 0 {
                    return Err(FrameError::Masked);
                }
                if self.kind != Kind::Data && usize::from(byte) > CONTROL_PAYLOAD {
                    return Err(FrameError::Control);
                }
                self.left = 0;
                match byte {
                    IN_TWO => self.place = Place::Longer(2),
                    IN_EIGHT => self.place = Place::Longer(8),
                    short => {
                        self.left = u32::from(short);
                        self.begin();
                    }
                }
            }
            Place::Longer(bytes) => {
                if self.left > u32::MAX >> 8 {
                    return Err(FrameError::TooLong);
                }
                self.left = (self.left << 8) | u32::from(byte);
                match bytes {
                    2.. => self.place = Place::Longer(bytes.wrapping_sub(1)),
                    _ => self.begin(),
                }
            }
            Place::Payload => {
                if matches!(self.kind, Kind::Ping | Kind::Close)
                    && let Some(slot) = self.ping.get_mut(self.ping_len)
                {
                    *slot = byte;
                    self.ping_len = self.ping_len.saturating_add(1);
                }
                self.left = self.left.saturating_sub(1);
                self.end();
                return Ok(self.kind == Kind::Data);
            }
        }
        Ok(false)
    }

    fn kind_of(&mut self, first: u8) -> Result<Kind, FrameError> {
        let last = first & FINAL != 0;
        let kind = match first & !FINAL {
            CONTINUATION if self.open => Kind::Data,
            BINARY if !self.open => Kind::Data,
            CONTINUATION | BINARY => return Err(FrameError::Order),
            TEXT => return Err(FrameError::Text),
            PING => Kind::Ping,
            PONG => Kind::Pong,
            CLOSE => Kind::Close,
            other if other & RESERVED != 0 => return Err(FrameError::Extension),
            _ => return Err(FrameError::Unknown),
        };
        match kind {
            Kind::Data => self.open = !last,
            // This ping replaces one that was not answered yet (RFC 6455, section 5.5.3).
            Kind::Ping | Kind::Close if last => (self.ping_len, self.owed) = (0, false),
            Kind::Pong if last => {}
            Kind::Ping | Kind::Pong | Kind::Close => return Err(FrameError::Control),
        }
        Ok(kind)
    }

    /// Begins a payload, which may be empty.
    fn begin(&mut self) {
        self.place = Place::Payload;
        self.end();
    }

    /// Ends the frame when its payload is complete.
    fn end(&mut self) {
        if self.left > 0 {
            return;
        }
        self.place = Place::First;
        match self.kind {
            Kind::Data | Kind::Pong => {}
            Kind::Ping => self.owed = true,
            Kind::Close => self.closed = true,
        }
    }

    /// Writes as much of `data` as fits into one frame in `out`; returns how much of `data` that is, and the length of
    /// the frame, both 0 if `out` is too short.
    pub fn put(&mut self, data: &[u8], out: &mut [u8]) -> (usize, usize) {
        let longest = usize::from(u16::MAX);
        let short = out.len().saturating_sub(2 + MASK).min(SHORT);
        let long = out.len().saturating_sub(4 + MASK).min(longest);
        let data = data.get(..data.len().min(short.max(long))).unwrap_or(data);
        if data.is_empty() {
            return (0, 0);
        }
        (data.len(), frame(BINARY, self.mask(), data, out))
    }

    /// Writes the pong for the latest ping into `out`, of at least [`CONTROL_FRAME`] bytes; returns the length of the
    /// frame, 0 without a pending pong.
    pub fn put_answer(&mut self, out: &mut [u8]) -> usize {
        if !self.owed || out.len() < CONTROL_FRAME {
            return 0;
        }
        self.owed = false;
        let ping = self.ping;
        frame(PONG, self.mask(), ping.get(..self.ping_len).unwrap_or_default(), out)
    }

    /// Writes a close frame (RFC 6455, section 5.5.1) with the code 1000, normal closure, into `out`, of at least
    /// [`CONTROL_FRAME`] bytes; returns its length, 0 if it does not fit.
    pub fn put_close(&mut self, out: &mut [u8]) -> usize {
        if out.len() < CONTROL_FRAME { 0 } else { frame(CLOSE, self.mask(), &1000_u16.to_be_bytes(), out) }
    }

    /// Returns the code that the service closed the WebSocket with (RFC 6455, section 7.4), if it has and named one.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        let code = self.ping.get(..self.ping_len).filter(|_| self.closed)?.first_chunk()?;
        Some(u16::from_be_bytes(*code))
    }

    /// Whether [`put_answer`](Self::put_answer) has a pong to write.
    #[must_use]
    pub const fn owes_answer(&self) -> bool {
        self.owed
    }

    fn mask(&mut self) -> [u8; MASK] {
        self.rng.word().to_le_bytes()
    }
}

/// Writes a frame into `out`, which is large enough; returns its length.
fn frame(kind: u8, mask: [u8; MASK], data: &[u8], out: &mut [u8]) -> usize {
    let [.., high, low] = data.len().to_be_bytes();
    let head: &[u8] =
        if data.len() <= SHORT { &[FINAL | kind, MASKED | low] } else { &[FINAL | kind, MASKED | IN_TWO, high, low] };
    let masked = data.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let mut len = 0_usize;
    for (slot, byte) in out.iter_mut().zip(head.iter().chain(&mask).copied().chain(masked)) {
        *slot = byte;
        len = len.saturating_add(1);
    }
    len
}

/// The service sent an invalid frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The head has bits of an extension, but none was negotiated (RFC 6455, section 5.2).
    Extension,
    /// The head names a kind that is reserved (RFC 6455, section 5.2).
    Unknown,
    /// The frame is one of text: MQTT travels in binary ones (MQTT 3.1.1, \[MQTT-6.0.0-1\]).
    Text,
    /// The frame is masked, which only those of clients are (RFC 6455, section 5.1).
    Masked,
    /// The frame continues no message, or begins one in the middle of another (RFC 6455, section 5.4).
    Order,
    /// A control frame is longer than 125 bytes or in pieces (RFC 6455, section 5.5).
    Control,
    /// The frame has 4 GiB or more.
    TooLong,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Extension => "a WebSocket frame uses an extension that was not requested",
            Self::Unknown => "a WebSocket frame is of a reserved kind",
            Self::Text => "a WebSocket frame of text, where MQTT has binary ones",
            Self::Masked => "a WebSocket frame of the service is masked",
            Self::Order => "a WebSocket frame continues no message, or breaks into one",
            Self::Control => "a WebSocket control frame is too long or in pieces",
            Self::TooLong => "a WebSocket frame has 4 GiB or more",
        })
    }
}

impl core::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Rng, Seed};
    use proptest::prelude::*;
    use std::vec::Vec;
    use std::{format, vec};

    fn frames() -> Frames {
        Frames::new(Rng::new(Seed::from_number(1), ""))
    }

    /// What `bytes` hold when they come in pieces of `size`.
    fn came(bytes: &[u8], size: usize) -> (Frames, Result<(Vec<u8>, bool), FrameError>) {
        let (mut frames, mut data) = (frames(), Vec::new());
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            match frames.take(&mut piece) {
                Ok(Taken { data: len, closed }) => {
                    data.extend_from_slice(&piece[..len]);
                    if closed {
                        return (frames, Ok((data, true)));
                    }
                }
                Err(error) => return (frames, Err(error)),
            }
        }
        (frames, Ok((data, false)))
    }

    fn answer(frames: &mut Frames) -> Vec<u8> {
        let mut out = [0; CONTROL_FRAME];
        let len = frames.put_answer(&mut out);
        unmasked(&out[..len])
    }

    /// A frame of a client as one of a service.
    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let Some((head, rest)) = frame.split_at_checked(2) else { return frame.to_vec() };
        assert!(head[1] & MASKED != 0, "a client masks");
        let (length, rest) = rest.split_at(if head[1] & !MASKED == IN_TWO { 2 } else { 0 });
        let (mask, masked) = rest.split_at(MASK);
        let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        [head[0], head[1] & !MASKED].into_iter().chain(length.iter().copied()).chain(payload).collect()
    }

    #[test]
    fn data_comes_out_of_its_frames_however_they_are_cut() {
        // A short frame, a message in two frames with a ping between them, one of 256 bytes, an empty one, a pong.
        let mut bytes = vec![0x82, 3, 1, 2, 3];
        bytes.extend([0x02, 1, 4, 0x89, 2, b'h', b'i', 0x80, 2, 5, 6]);
        bytes.extend([0x82, 126, 1, 0]);
        bytes.extend(vec![7; 256]);
        bytes.extend([0x82, 0, 0x8a, 1, 9, 0x82, 127, 0, 0, 0, 0, 0, 0, 0, 2, 8, 9]);
        let mut expected = vec![1, 2, 3, 4, 5, 6];
        expected.extend(vec![7; 256]);
        expected.extend([8, 9]);
        for size in 1..=bytes.len() {
            let (mut frames, got) = came(&bytes, size);
            assert_eq!(got, Ok((expected.clone(), false)), "in pieces of {size}");
            assert_eq!(answer(&mut frames), [0x8a, 2, b'h', b'i'], "in pieces of {size}");
            assert!(answer(&mut frames).is_empty(), "one answer is enough");
        }
    }

    #[test]
    fn a_close_ends_the_data() {
        for (close, code) in
            [(&[0x88, 0][..], None), (&[0x88, 2, 3, 0xf5], Some(1013)), (&[0x88, 3, 3, 0xe9, b'!'], Some(1001))]
        {
            let bytes = [&[0x82, 1, 7], close, &[0x82, 1, 8]].concat();
            for size in 1..=bytes.len() {
                let (mut frames, got) = came(&bytes, size);
                assert_eq!((got, frames.close_code()), (Ok((vec![7], true)), code));
                assert!(answer(&mut frames).is_empty());
            }
        }
    }

    #[test]
    fn a_close_of_the_device_says_that_it_ends_in_order() {
        let (mut frames, mut out) = (frames(), [0; CONTROL_FRAME]);
        assert_eq!(frames.close_code(), None);
        let len = frames.put_close(&mut out);
        assert_eq!(unmasked(&out[..len]), [0x88, 2, 3, 0xe8]);
        assert_eq!(frames.put_close(&mut out[1..]), 0, "it waits for room");
    }

    #[test]
    fn the_latest_ping_is_the_one_that_is_answered() {
        let (mut frames, _) = came(&[0x89, 1, b'a', 0x89, 1, b'b', 0x89, 0], 3);
        assert!(frames.owes_answer());
        assert_eq!(answer(&mut frames), [0x8a, 0]);
        assert!(!frames.owes_answer());
        let long = [&[0x89, 125][..], &[5; 125]].concat();
        let (mut frames, _) = came(&long, 50);
        assert_eq!(frames.put_answer(&mut [0; CONTROL_FRAME - 1]), 0, "it waits for room");
        assert_eq!(answer(&mut frames), [&[0x8a, 125][..], &[5; 125]].concat());
        // The beginning of another one takes nothing away that could still be sent half.
        let (mut frames, _) = came(&[0x89, 1, b'a', 0x89, 2, b'b'], 1);
        assert!(answer(&mut frames).is_empty());
    }

    #[test]
    fn what_is_no_frame_is_told_as_such() {
        let table: [(&[u8], FrameError); 14] = [
            (&[0xc2, 0], FrameError::Extension),
            (&[0x92, 0], FrameError::Extension),
            (&[0xa2, 0], FrameError::Extension),
            (&[0xc1, 0], FrameError::Extension),
            (&[0x83, 0], FrameError::Unknown),
            (&[0x8f, 0], FrameError::Unknown),
            (&[0x81, 1, b'x'], FrameError::Text),
            (&[0x82, 0x81, 0, 0, 0, 0, 0], FrameError::Masked),
            (&[0x80, 1, 0], FrameError::Order),
            (&[0x02, 1, 0, 0x82, 1, 0], FrameError::Order),
            (&[0x09, 0], FrameError::Control),
            (&[0x89, 126, 0, 126], FrameError::Control),
            (&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0], FrameError::TooLong),
            (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::TooLong),
        ];
        for (bytes, error) in table {
            for size in 1..=bytes.len() {
                assert_eq!(came(bytes, size).1, Err(error), "{bytes:x?}");
            }
            assert!(format!("{error}").contains("WebSocket"));
        }
    }

    #[test]
    fn a_frame_is_masked_as_in_the_specification() {
        // RFC 6455, section 5.7.
        let mut out = [0; 64];
        let len = frame(TEXT, [0x37, 0xfa, 0x21, 0x3d], b"Hello", &mut out);
        assert_eq!(out[..len], [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        let mut frames = frames();
        let masks = [0; 2].map(|_| {
            let (_, len) = frames.put(b"a", &mut out);
            out[len - 5..len - 1].to_vec()
        });
        assert_ne!(masks[0], masks[1], "each frame has a mask of its own");
    }

    proptest! {
        #[test]
        fn what_is_put_is_what_is_taken(data in proptest::collection::vec(any::<u8>(), 1..900), room in 0..800_usize) {
            let (mut out, mut frames) = (vec![0; room], frames());
            let (mut rest, mut sent) = (data.as_slice(), Vec::new());
            while !rest.is_empty() {
                let (taken, len) = frames.put(rest, &mut out);
                prop_assert!(len <= room);
                prop_assert_eq!(taken > 0, room > 2 + MASK, "room for one byte is enough");
                if taken == 0 {
                    return Ok(());
                }
                sent.extend(unmasked(&out[..len]));
                rest = &rest[taken..];
            }
            prop_assert_eq!(came(&sent, 7).1, Ok((data, false)));
        }

        #[test]
        fn bytes_of_any_kind_mean_the_same_however_they_are_cut(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0x82), Just(0x89), 0..4_u8], 0..200),
            size in 1..50_usize,
        ) {
            let (whole, cut) = (came(&bytes, bytes.len().max(1)), came(&bytes, size));
            match (whole.1, cut.1) {
                // What came before the fault was handed out, or not.
                (Err(whole), Err(cut)) => prop_assert_eq!(whole, cut),
                (whole, cut) => prop_assert_eq!(whole, cut),
            }
        }
    }
}
