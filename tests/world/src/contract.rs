//! What every outbox has to keep.

use std::collections::VecDeque;

use steadfast_core::{Address, Entry, Instant, MessageId, Outbox, OutboxError, Usage};

use crate::rng::Rng;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    id: MessageId,
    telemetry: bool,
    text: String,
    payload: Vec<u8>,
    expires: Option<Instant>,
}

impl Kept {
    fn entry(&self) -> Entry<'_> {
        let address = if self.telemetry { Address::Telemetry(&self.text) } else { Address::Topic(&self.text) };
        Entry { id: self.id, address, payload: &self.payload, expires: self.expires }
    }

    fn size(&self) -> usize {
        self.text.len() + self.payload.len()
    }
}

/// Checks that outboxes made by `make`, each empty, keep the contract of [`Outbox`], by a model and seeded steps.
///
/// # Panics
/// When one does not, with the seed and the step.
pub fn outbox_contract<O: Outbox>(make: impl Fn() -> O) {
    starts_empty(&make());
    takes_what_fits_and_refuses_the_rest_unchanged(make());
    for seed in 0..40 {
        keeps_what_it_took(make(), seed);
    }
}

fn starts_empty(outbox: &impl Outbox) {
    assert_eq!(outbox.usage(), Usage::default(), "a new outbox is empty");
    assert_eq!((outbox.first(), outbox.last(), outbox.next(MessageId::new(0))), (None, None, None));
    assert_eq!(outbox.get(MessageId::new(1)), None);
    assert!(outbox.capacity().messages > 0, "an outbox can hold something");
}

fn takes_what_fits_and_refuses_the_rest_unchanged(mut outbox: impl Outbox) {
    let limit = outbox.capacity();
    let large = vec![7; limit.bytes + 1];
    let entry = |id, payload| Entry { id: MessageId::new(id), address: Address::Topic(""), payload, expires: None };
    let refused = outbox.push(entry(1, &large));
    assert!(matches!(refused, Err(OutboxError::TooLarge { .. })), "what never fits is too large, not {refused:?}");
    assert_eq!(outbox.usage(), Usage::default(), "a refused push changes nothing");
    for id in 0..limit.messages as u64 {
        assert_eq!(outbox.push(entry(id + 10, &[])), Ok(()), "message {id} of {limit:?}");
    }
    assert_eq!(outbox.push(entry(u64::MAX / 2, &[])), Err(OutboxError::Full));
    assert_eq!(outbox.usage().messages, limit.messages);
    assert!(outbox.remove(MessageId::new(10)) && !outbox.remove(MessageId::new(10)));
    assert_eq!(outbox.push(entry(u64::MAX / 2, &[])), Ok(()), "room is used again");
}

fn keeps_what_it_took(mut outbox: impl Outbox, seed: u64) {
    let mut rng = Rng::new(seed);
    let mut model: VecDeque<Kept> = VecDeque::new();
    let mut next = rng.draw() >> 1;
    for step in 0..200 {
        let context = format!("seed {seed}, step {step}");
        if rng.chance(60) {
            next += rng.between(1, 3);
            let kept = draw(&mut rng, next, outbox.capacity().bytes);
            match outbox.push(kept.entry()) {
                Ok(()) => model.push_back(kept),
                Err(OutboxError::Full) => {
                    let free = outbox.capacity().messages - model.len();
                    let bytes: usize = model.iter().map(Kept::size).sum();
                    assert!(free == 0 || bytes + kept.size() > outbox.capacity().bytes / 2, "{context}: full too soon");
                }
                Err(OutboxError::TooLarge { .. }) => assert!(kept.size() > outbox.capacity().bytes / 2, "{context}"),
                Err(error) => panic!("{context}: {error}"),
            }
        } else if !model.is_empty() {
            let at = if rng.chance(70) { 0 } else { rng.index(model.len()) };
            let gone = model.remove(at).map(|kept| kept.id);
            assert!(outbox.remove(gone.unwrap_or(MessageId::new(0))), "{context}: {gone:?} was there");
            assert!(!outbox.remove(MessageId::new(next + 1)), "{context}: what is not there cannot be removed");
        }
        compare(&outbox, &model, &mut rng, &context);
    }
}

fn draw(rng: &mut Rng, id: u64, limit: usize) -> Kept {
    let longest = (limit / 3) as u64;
    let len = usize::try_from(rng.between(0, longest)).unwrap_or(0);
    let text_len = len.min(usize::try_from(rng.between(0, 12)).unwrap_or(0));
    let letters = (0..text_len).map(|_| char::from(b'a' + rng.draw().to_le_bytes()[0] % 26));
    let text = letters.collect();
    let payload = (text_len..len).map(|_| rng.draw().to_le_bytes()[0]).collect();
    let expires = rng.chance(30).then(|| Instant::from_millis(rng.between(0, 1 << 40)));
    Kept { id: MessageId::new(id), telemetry: rng.chance(50), text, payload, expires }
}

fn compare(outbox: &impl Outbox, model: &VecDeque<Kept>, rng: &mut Rng, context: &str) {
    let bytes: usize = model.iter().map(Kept::size).sum();
    assert_eq!(outbox.usage().messages, model.len(), "{context}");
    assert_eq!(outbox.usage().bytes, bytes, "{context}");
    assert_eq!(outbox.first(), model.front().map(|kept| kept.id), "{context}");
    assert_eq!(outbox.last(), model.back().map(|kept| kept.id), "{context}");
    for kept in model {
        assert_eq!(outbox.get(kept.id), Some(kept.entry()), "{context}");
        assert_eq!(outbox.next(kept.id), Some(kept.id), "{context}");
        let after = model.iter().find(|other| other.id > kept.id).map(|other| other.id);
        assert_eq!(outbox.next(kept.id.next()), after, "{context}");
    }
    let anywhere = MessageId::new(rng.draw());
    let known = model.iter().find(|kept| kept.id == anywhere).map(Kept::entry);
    assert_eq!(outbox.get(anywhere), known, "{context}");
}
