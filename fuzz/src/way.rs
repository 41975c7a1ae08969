//! What stands before MQTT: answers of proxies and to upgrades, and frames.

use steadfast_core::Seed;
use steadfast_core::transport::{CONTROL_FRAME, FrameError, Frames, Taken, Tunnel, Upgrade};

use crate::source::Source;

/// Reads `data` as an answer of a proxy, as one to an upgrade, and as frames, each whole and in pieces.
///
/// # Panics
/// When the same bytes mean something else in pieces, or a frame that was put does not come back.
pub fn target(data: &[u8]) {
    let mut source = Source::new(data);
    let (size, room) = (usize::from(source.byte()) + 1, usize::from(source.byte()));
    let data = source.rest();
    check_answers(data, size);
    check_frames(data, size);
    check_putting(data, room);
}

fn frames() -> Frames {
    Upgrade::new(Seed::from_number(1)).frames()
}

fn check_answers(data: &[u8], size: usize) {
    let (mut whole, mut pieces) = (Tunnel::new(), Tunnel::new());
    let failed = whole.take(data).is_err();
    let in_pieces = data.chunks(size).map(|piece| pieces.take(piece)).find(|taken| *taken != Ok(false));
    // Bytes behind the answer are a failure only where they come with it.
    assert!(matches!(in_pieces, Some(Err(_))) == failed || matches!(in_pieces, Some(Ok(true))));
    let mut upgrade = Upgrade::new(Seed::from_number(1));
    let opened = data.iter().map(|byte| upgrade.take(*byte)).find(|taken| *taken != Ok(false));
    assert!(opened != Some(Ok(true)), "nobody guesses the digest of a nonce");
}

/// Returns the data in `bytes`, and what made an end of it.
fn read(bytes: &[u8], size: usize) -> (Vec<u8>, Result<bool, FrameError>) {
    let (mut frames, mut data) = (frames(), Vec::new());
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        match frames.take(&mut piece) {
            Ok(Taken { data: len, closed, .. }) => {
                data.extend_from_slice(&piece[..len]);
                if closed {
                    return (data, Ok(true));
                }
            }
            Err(error) => return (data, Err(error)),
        }
        let mut out = [0; CONTROL_FRAME];
        let owed = frames.owes_answer();
        assert_eq!(frames.put_answer(&mut out) > 0, owed);
    }
    (data, Ok(false))
}

fn check_frames(data: &[u8], size: usize) {
    let (whole, end) = read(data, data.len().max(1));
    let (pieces, same_end) = read(data, size);
    assert_eq!(end, same_end);
    assert!(end.is_err() || whole == pieces);
    assert!(pieces.len() <= data.len() && pieces.starts_with(&whole));
}

fn check_putting(data: &[u8], room: usize) {
    let (mut frames, mut out, mut rest) = (frames(), vec![0; room], data);
    let mut sent = Vec::new();
    while !rest.is_empty() {
        let (taken, len) = frames.put(rest, &mut out);
        assert!(len <= room && (taken == 0) == (len == 0));
        let Some(head) = (taken > 0).then(|| if out[1] & 0x7f == 126 { 4 } else { 2 }) else { break };
        // As a service would send it: without the mask.
        let (mask, payload) = out[head..len].split_at(4);
        sent.extend([out[0], out[1] & 0x7f]);
        sent.extend(&out[2..head]);
        sent.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        rest = &rest[taken..];
    }
    let came = &data[..data.len() - rest.len()];
    assert_eq!(read(&sent, sent.len().max(1)), (came.to_vec(), Ok(false)));
}
